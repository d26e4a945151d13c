"""Ratios of speed and scale, each measured in one run: what is compared runs in turns, the median counts.

    python bench/speed.py [--only a b ...] [--repeats 5] [--films 13] [--threads 1] [--tower FILE] [--out bench/README.md]

The tower is timm's ViT-S/14 (DINOv2's shape, 224 pixels) with random weights: its speed is that of the trained one. Beside wall
time stands processor time (all threads of the process): on a machine that others use too, it says what wall time hides. Films
are synthetic noise with structure, written as PNG (1024 x 1024) or JPEG (2048 x 2048).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from growth import compact, growth
from measures import options
from PIL import Image
from race import full_size, tiny
from rig import FIVE, Row, Turns, films, one_epoch, raw_encoder, replace_rows, table, vit

from medbridge import MedBridge, create_expert
from medbridge.cli.predict import predict_files
from medbridge.data import Benchmark
from medbridge.data.images import read_film
from medbridge.features.cache import FeatureCache
from medbridge.features.encode import map_part
from medbridge.features.films import CachedFilms
from medbridge.features.shards import FeatureStore, ShardWriter
from medbridge.focal import extract_views
from medbridge.train import Network, TrainConfig

HERE = Path(__file__).parent


def filling(args: argparse.Namespace, place: Path) -> Row:
    """(a) throughput of filling the cache against the raw tower's."""
    expert, benchmark = vit(), films(place / "films", args.films)
    raw, views = raw_encoder(expert, benchmark, [9, 11])
    count = iter(range(10**6))

    def fill() -> None:
        FeatureCache(place / f"cache-{next(count)}", progress=False).films(benchmark, [expert], [[9, 11]], FIVE)

    t = Turns({"raw": raw, "fill": fill}, args.repeats)
    wall, cpu = t.ratio("raw", "fill")
    return Row("a", "filling the cache / raw tower, throughput", ">= 0.95", wall >= 0.95, wall, cpu,
               f"{views / t.seconds('raw'):.1f} and {views / t.seconds('fill'):.1f} views a second")


def epochs(args: argparse.Namespace, place: Path) -> Row:
    """(b) an epoch on cached maps against the same epoch streamed."""
    expert, benchmark = vit(), films(place / "films", args.films)
    model = MedBridge([expert], benchmark.labels, sampler=FIVE, maps="full")  # what the tower says, without a basis
    cached = FeatureCache(place / "cache", progress=False).of(model, benchmark, training=True)
    live = FeatureCache(place / "cache", progress=False, features="stream", fresh=False).of(model, benchmark, training=True)
    start = {k: p.detach().clone() for k, p in model.trainable().items()}
    losses: dict[str, float] = {}
    config = TrainConfig(batch_size=6)

    def epoch(name: str, source: object) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                for k, p in model.trainable().items():
                    p.copy_(start[k])
            torch.manual_seed(0)
            losses[name] = one_epoch(Network(model, source, cached, config), config)

        return run

    t = Turns({"live": epoch("live", live), "cached": epoch("cached", cached)}, args.repeats)
    wall, cpu = t.ratio("live", "cached")
    gap = abs(losses["live"] - losses["cached"])
    return Row("b", "epoch streamed / from the cache, N = 5", ">= 20, losses within 1e-3", wall >= 20 and gap <= 1e-3, wall, cpu,
               f"{t.seconds('live'):.2f} s and {t.seconds('cached'):.3f} s for {len(benchmark)} films; "
               f"losses differ by {gap:.1e}")


def views(args: argparse.Namespace, place: Path) -> Row:
    """(c) N views of a 2048 x 2048 film against one decode and one resize: the package's own, and Pillow's on bytes."""
    rows = []
    for kind in ("jpg", "png"):
        benchmark = films(place / kind, 1, 2048, kind)
        path, boxes = benchmark.paths()[0], FIVE.inference_boxes(2048, 2048)

        def pillow(path: Path = path) -> None:
            with Image.open(path) as image:
                np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))

        t = Turns({"pillow": pillow, "one": lambda p=path, b=boxes: extract_views(read_film(p), b[:1], 224),
                   "five": lambda p=path, b=boxes: extract_views(read_film(p), b, 224)}, 4 * args.repeats)
        rows += [(kind, other, *t.ratio("five", other), t) for other in ("one", "pillow")]
    worst = max(rows, key=lambda r: r[2])
    names = {"one": "one view", "pillow": "Pillow alone"}
    detail = "; ".join(f"{kind}, {names[other]}: {t.seconds(other) * 1e3:.0f} and {t.seconds('five') * 1e3:.0f} ms, {wall:.2f}"
                       for kind, other, wall, _, t in rows)
    return Row("c", "5 views of a 2048 x 2048 film / one decode and one resize", "<= 1.3", worst[2] <= 1.3, *worst[2:4], detail)


_MEMORY = """
import sys; sys.path.insert(0, {here!r})
import speed; speed.one_run_of_memory({n}, {folder!r})
"""


def one_run_of_memory(n: int, folder: str) -> None:
    """Train an epoch on n films whose features take 166 kB each, and print the peak of this process."""
    expert = create_expert("tiny-vit")
    labels = ("a", "b")
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(n)], "patient_id": [str(i) for i in range(n)], "split": "train",
                          "a": [float(i % 2) for i in range(n)], "b": [float(i % 3 == 0) for i in range(n)]})
    model = MedBridge([expert], labels, sampler=FIVE, maps="full")
    depths, keys = model.depths[0], [i.to_bytes(20, "big") for i in range(n)]
    store = FeatureStore(folder)
    writer = ShardWriter(store, 16 * 2**20)
    shapes = [(expert.prefix + r * c, w) for r, c, w in [(*expert.grids[d - 1], expert.widths[d - 1]) for d in depths]]
    generator = torch.Generator().manual_seed(0)
    for key in keys:
        maps = {f"map.{d:03d}": torch.randn(5, *s, generator=generator).half() for d, s in zip(depths, shapes, strict=True)}
        writer.add(key, maps | {"summary": torch.randn(5, expert.image_dim, generator=generator).half()})
    writer.flush()
    boxes = FIVE.inference_boxes(1024, 1024)
    parts = [map_part(d) for d in depths]
    located = store.find(keys, ["summary", "embed", *parts])
    cached = CachedFilms(benchmark=Benchmark("noise", folder, labels, table, synthetic=True), keys=keys, located=[located],
                         parts=[parts], depths=[depths], boxes=[boxes] * n, sizes=[(1024, 1024)] * n, fixed=[5] * n)
    config = TrainConfig(batch_size=16, epochs=1)
    one_epoch(Network(model, cached, cached, config), config)
    size = sum(p.stat().st_size for p in store.shards())
    # not ru_maxrss, which a child inherits from the larger process that started it
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak": int(peak.split()[1]) * 1024, "features": size}))


def memory(args: argparse.Namespace, place: Path) -> Row:
    """(e) peak memory of an epoch with many images against few; Linux."""
    found = {}
    for n in (250, 2500):
        code = _MEMORY.format(here=str(HERE), n=n, folder=str(place / f"store-{n}"))
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found[n] = json.loads(out.stdout.splitlines()[-1])
    few, many = found[250], found[2500]
    ratio = many["peak"] / few["peak"]
    return Row("e", "peak memory with 2,500 films / with 250", "no growth (<= 1.05)", ratio <= 1.05, ratio, None,
               f"{few['peak'] / 1e6:.0f} and {many['peak'] / 1e6:.0f} MB; features {few['features'] / 1e6:.0f} and "
               f"{many['features'] / 1e6:.0f} MB")


def folder(args: argparse.Namespace, place: Path) -> Row:
    """(f) prediction on a folder of films against the raw tower."""
    expert, benchmark = vit(), films(place / "films", args.films)
    model = MedBridge([expert], benchmark.labels, sampler=FIVE).eval()
    raw, views = raw_encoder(expert, benchmark, model.depths[0])
    t = Turns({"raw": raw, "predict": lambda: list(predict_files(model, benchmark.paths()))}, args.repeats)
    wall, cpu = t.ratio("raw", "predict")
    return Row("f", "prediction on a folder / raw tower, throughput", ">= 0.9", wall >= 0.9, wall, cpu,
               f"{views / t.seconds('raw'):.1f} and {views / t.seconds('predict'):.1f} views a second")


PARTS = {"a": filling, "b": epochs, "c": views, "d": full_size, "d-tiny-vit": tiny("tiny-vit"),
         "d-tiny-resnet": tiny("tiny-resnet"), "e": memory, "f": folder, "g": compact, "h": growth("cache"),
         "i": growth("stream")}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "options"], default=[*PARTS, "options"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--films", type=int, default=13, help="of (a), (b), (f) and (g): 13 films x 5 views make one batch")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1250, 5000, 20000], help="phantom films of (h) and (i)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the tower; the other cores decode and write")
    parser.add_argument("--phantom", type=int, default=200, help="films of part d")
    parser.add_argument("--epochs", type=int, default=30, help="most epochs of part d")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of part d")
    parser.add_argument("--tower", help="part d: safetensors of timm's vit_small_patch14_dinov2.lvd142m; default: random weights")
    parser.add_argument("--out", help="write the table there, e.g. bench/README.md; with --only, its rows alone are replaced")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for key, part in PARTS.items():
        if key in args.only:
            with tempfile.TemporaryDirectory() as place:
                rows.append(part(args, Path(place)))
            print(rows[-1], flush=True)
    extra = list(options(args)) if "options" in args.only else []
    load = "/".join(f"{x:.1f}" for x in os.getloadavg())
    text = table(rows, extra, args, load)
    print(text)
    if args.out:
        out = Path(args.out)
        written = out.read_text(encoding="utf-8") if out.exists() else ""
        _, heading, kept = written.partition("\n## ")  # what was written about the table by hand stays
        partly = written and len(args.only) < len(PARTS) + 1
        out.write_text(replace_rows(written, rows, args.threads, load) if partly else text + heading + kept, encoding="utf-8")


if __name__ == "__main__":
    main()

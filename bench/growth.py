"""What films cost as their number grows, cached and streamed, and what compact maps save: parts g to i of speed.py.

Films are PhantomCXR (synthetic), drawn once into MEDBRIDGE_CACHE. Each number and way runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rig import FIVE, Row, Turns, films, one_epoch, vit

from medbridge import FeatureCache, MedBridge, TrainConfig, create_expert, load_benchmark
from medbridge.features.encode import view_bytes
from medbridge.train import Network

HERE = Path(__file__).parent
_RUN = """
import sys; sys.path.insert(0, {here!r})
import growth; growth.one_run({n}, {features!r}, {folder!r}, {threads})
"""


def compact(args: argparse.Namespace, place: Path) -> Row:
    """(g) full maps against compact ones: bytes per view, an epoch, a step."""
    expert, benchmark, config = vit(), films(place / "films", args.films), TrainConfig(batch_size=6)
    works: dict[str, Callable[[], object]] = {}
    kilobytes = {}
    for maps in ("full", "compact"):
        model = MedBridge([expert], benchmark.labels, sampler=FIVE, maps=maps)
        cached = FeatureCache(place / maps, progress=False).of(model, benchmark, training=True)
        kilobytes[maps] = view_bytes(expert, model.depths[0], None if model.bases is None else model.bases[0]) / 1e3
        works[maps] = lambda m=model, c=cached: one_epoch(Network(m, c, c, config), config)
    t, steps = Turns(works, args.repeats), -(-len(benchmark) // config.batch_size)
    wall, cpu = t.ratio("full", "compact")
    return Row("g", "an epoch on full maps / on compact ones, N = 5", ">= 1, a twentieth of the bytes",
               wall >= 1 and kilobytes["full"] >= 20 * kilobytes["compact"], wall, cpu,
               "; ".join(f"{maps}: {kilobytes[maps]:.0f} kB per view, an epoch {t.seconds(maps) * 1e3:.0f} ms, a step "
                         f"{t.seconds(maps) / steps * 1e3:.0f} ms" for maps in works))


def one_run(n: int, features: str, folder: str, threads: int) -> None:
    """Features of n films where they are cached, and an epoch; print seconds of both and the peak of this process."""
    torch.set_num_threads(threads)
    benchmark, expert = load_benchmark("phantom", n_films=n), create_expert("tiny-vit")
    model = MedBridge([expert], benchmark.labels, sampler=FIVE)
    begin = time.perf_counter()
    made = FeatureCache(folder, features=features).of(model, benchmark, training=True)
    fill, config = time.perf_counter() - begin, TrainConfig(epochs=1)
    begin = time.perf_counter()
    one_epoch(Network(model, made, made, config), config)
    # not ru_maxrss, which a child inherits from the larger process that started it
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"fill": fill, "epoch": time.perf_counter() - begin, "peak": int(peak.split()[1]) * 1024}))


def growth(features: str) -> Callable[[argparse.Namespace, Path], Row]:
    """(h), (i) peak memory and time of an epoch with the most films against the fewest, from the cache or streamed; Linux."""
    def part(args: argparse.Namespace, place: Path) -> Row:
        load_benchmark("phantom", n_films=max(args.sizes))  # drawn once
        found = {}
        for n in args.sizes:
            code = _RUN.format(here=str(HERE), n=n, features=features, folder=str(place / str(n)), threads=args.threads)
            out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
            found[n] = json.loads(out.stdout.splitlines()[-1])
        few, many = min(found), max(found)
        memory = found[many]["peak"] / found[few]["peak"]
        slower = found[many]["epoch"] / many / (found[few]["epoch"] / few)
        what = "from the cache" if features == "cache" else "streamed"
        return Row("h" if features == "cache" else "i", f"peak memory of {many:,} films / of {few:,}, {what}",
                   "no growth (<= 1.1), time per film too (<= 1.2)", memory <= 1.1 and slower <= 1.2, memory, None,
                   f"time per film {slower:.2f}; " + "; ".join(
                       f"{n:,} films: fill {f['fill']:.0f} s, epoch {f['epoch']:.0f} s, {f['peak'] / 1e6:.0f} MB"
                       for n, f in found.items()))

    return part

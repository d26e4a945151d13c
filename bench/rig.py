"""What the bench scripts share: a tower with random weights, synthetic films, timing in turns, the machine's name, the table."""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from medbridge.data import Benchmark
from medbridge.experts import Expert
from medbridge.experts.clip import OpenClipExpert
from medbridge.experts.timm_vision import TimmExpert
from medbridge.features.encode import film_views
from medbridge.focal import FocalSampler
from medbridge.train import Loop, Network, TrainConfig

FIVE = FocalSampler(crop=0.5, overlap=0.0, extra=0)  # the whole film and four windows: N = 5


class Words(nn.Module):
    """Random text embeddings: their values do not change the time."""

    text_dim = 64

    def forward(self, texts: list[str]) -> Tensor:
        rows = [torch.randn(64, generator=torch.Generator().manual_seed(sum(map(ord, t)))) for t in texts]
        return nn.functional.normalize(torch.stack(rows), dim=1)


def vit() -> Expert:
    """ViT-S/14 with random weights as an expert."""
    torch.manual_seed(0)
    trunk = timm.create_model("vit_small_patch14_dinov2", pretrained=False, img_size=224, num_classes=0)
    expert = TimmExpert("vit-s14-random", trunk, Words(), 224)
    return expert.to("cuda") if torch.cuda.is_available() else expert


def clip(name: str) -> Expert:
    """An open_clip model, such as ViT-B-32, with random weights as an expert."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(name, pretrained=None)
    return OpenClipExpert(f"{name}, random weights", model, open_clip.get_tokenizer(name))


def films(folder: Path, count: int, side: int = 1024, kind: str = "png") -> Benchmark:
    """Synthetic pictures of a film's size and roughly its compressibility; two labels drawn at random."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        soft = np.asarray(Image.fromarray(rng.uniform(40, 200, (16, 16)).astype(np.uint8)).resize((side, side)), dtype=np.float32)
        pixels = (soft + rng.normal(0, 4, (side, side))).clip(0, 255).astype(np.uint8)
        name = f"{i:04d}.{kind}"
        Image.fromarray(pixels).save(folder / name, **({"quality": 90} if kind == "jpg" else {}))
        rows.append({"image": name, "patient_id": name, "split": ("train", "val")[i % 2], "a": i % 2.0, "b": i // 2 % 2.0})
    return Benchmark("noise (synthetic)", folder, ("a", "b"), pd.DataFrame(rows), synthetic=True)


@dataclass
class Row:
    """One ratio: what, the target, the measured wall and processor ratios, and the absolute numbers behind them."""

    key: str
    what: str
    target: str
    met: bool
    wall: float | None
    processor: float | None
    detail: str


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


class Turns:
    """Several works timed in turns, after one warm-up of each: what disturbs the machine for long disturbs all of them."""

    def __init__(self, works: dict[str, Callable[[], object]], repeats: int) -> None:
        for work in works.values():
            work()
        self.times = {name: [] for name in works}
        for _ in range(repeats):
            for name, work in works.items():
                self.times[name].append(timed(work))

    def seconds(self, name: str) -> float:
        """Median wall seconds."""
        return statistics.median(wall for wall, _ in self.times[name])

    def ratio(self, a: str, b: str) -> tuple[float, float]:
        """Time of ``a`` by that of ``b``, wall and processor: the median over the turns of the ratio within a turn."""
        pairs = list(zip(self.times[a], self.times[b], strict=True))
        return tuple(statistics.median(x[i] / y[i] for x, y in pairs) for i in (0, 1))


def one_epoch(network: Network, config: TrainConfig) -> float:
    """The first epoch of a new training, without validation and checkpoints; its mean loss."""
    loop = Loop(network, config, save_steps=10**9)
    loop.bar = tqdm(disable=True)
    return loop._epoch(0)


def raw_encoder(expert: Expert, benchmark: Benchmark, depths: list[int]) -> tuple[Callable[[], None], int]:
    """The frozen tower alone on views that are in memory, in the batches that the cache uses."""
    kind = expert.view_kind
    views = torch.cat([film_views(lambda i=i: benchmark.read(i), FIVE.inference_boxes(1024, 1024), [kind])[kind]
                       for i in range(len(benchmark))]).to(expert.mean.device)

    def run() -> None:
        for start in range(0, len(views), 65):
            expert.encode_maps(expert.preprocess(views[start : start + 65]), depths)

    return run, len(views)


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def row_line(r: Row, when: str = "") -> str:
    """A line of the table."""
    wall, cpu = ("" if ratio is None else f"{ratio:.3g}" for ratio in (r.wall, r.processor))
    return f"| {r.key} | {r.what} | {r.target} | {'yes' if r.met else 'no'} | {wall} | {cpu} | {r.detail}{when} |"


def replace_rows(written: str, rows: list[Row], threads: int, load: str) -> str:
    """The table as it was written, with these rows as they are now and the day, threads and load of their measurement; new ones
    come last."""
    when = f" ({time.strftime('%d %B %Y')}, alone, {threads} thread(s), load average {load})"
    lines = written.splitlines()
    for r in rows:
        at = [i for i, line in enumerate(lines) if re.match(r"\| [a-z](-\S+)? \|", line)]
        own = next((i for i in at if lines[i].startswith(f"| {r.key} |")), None)
        lines[at[-1] + 1 if own is None else own : at[-1] + 1 if own is None else own + 1] = [row_line(r, when)]
    return "\n".join(lines) + "\n"


def table(rows: list[Row], extra: list[str], args: argparse.Namespace, load: str) -> str:
    """The results as Markdown."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    lines = [
        "# Speed and scale, measured", "",
        f"`python bench/speed.py --threads {args.threads} --repeats {args.repeats} --films {args.films} --phantom {args.phantom} "
        f"--epochs {args.epochs} --seeds {args.seeds}`, {time.strftime('%d %B %Y')}.",
        f"Machine: {processor()}, {os.cpu_count()} cores, {device}; PyTorch {torch.__version__}, {args.threads} thread(s) for "
        f"the tower; load average of the machine {load}.", "",
        "What is compared runs in turns; a ratio is the median over the turns of the ratio within a turn. Processor time "
        "counts all threads of the process: it does not see what is hidden behind other cores, and suffers little from other "
        "programs. The films are synthetic noise, except in (d), (h) and (i), which train on PhantomCXR (synthetic). The tower "
        "in (a), (b), (f) and (g) is ViT-S/14 with random weights, in (h) and (i) tiny-vit.", "",
        "| | what | target | met | ratio, wall | ratio, processor | behind it |", "|---|---|---|---|---|---|---|"]
    lines += map(row_line, rows)
    if extra:
        lines += ["", "What single measures do to the speed here (above 1: faster):", "", "| measure | time without / with |",
                  "|---|---|", *(f"| {line} |" for line in extra), "",
                  "The package computes in float32 and eagerly by default; `--precision bfloat16` turns "
                  "autocast on, and such features have a place of their own. Not used, and not measured without a GPU: "
                  "torch.compile, channels_last, pinned batches in training (filling pins its views). JPEG draft decoding is "
                  "not used: the windows need the film's full resolution, and a whole film alone would get other pixels."]
    return "\n".join(lines) + "\n"

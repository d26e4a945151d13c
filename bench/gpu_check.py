"""What nobody could measure without a GPU, in one run of at most eight minutes: speed, memory, agreement with the CPU, resume.

    python bench/gpu_check.py [--device cuda] [--minutes 8] [--out runs/gpu_check]
    python bench/gpu_check.py --device cpu --toy          # the same steps in miniature, as the test runs them

It brings its own inputs: PhantomCXR films (synthetic), which it draws, a ViT-B/16 of CLIP's shape with random weights, and the
shipped tiny experts. Each part has a share of the time and stops measuring when that is spent; what was not reached is said.
It writes gpu_check.json and gpu_check.md after each part, and ends with status 1 where a check fails or time ran out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rig import FIVE, clip, processor
from tqdm import tqdm

from medbridge import MedBridge, create_expert
from medbridge.data import Benchmark
from medbridge.data.phantom.benchmark import load_phantom
from medbridge.experts import Expert
from medbridge.features.batch import passes
from medbridge.features.budget import GPUS, UTILISATION, tower_flops
from medbridge.features.cache import FeatureCache
from medbridge.features.encode import encode_views
from medbridge.predict import predict_film
from medbridge.train import Network, TrainConfig, fit

TOLERANCE = 1e-3


class Check:
    """One run: its inputs, what was measured so far, and how much time is left."""

    def __init__(self, device: str, toy: bool, minutes: float, out: Path, place: Path) -> None:
        self.device, self.toy, self.out, self.place = device, toy, out, place
        self.began, self.end = time.monotonic(), time.monotonic() + 60 * minutes
        self.rows: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.card = torch.cuda.get_device_name() if device == "cuda" else processor()

    def films(self, count: int) -> Benchmark:
        """PhantomCXR films, drawn here."""
        return load_phantom(self.place / "films", n_films=count, workers=1 if self.toy else None)

    def tower(self, precision: str = "float32") -> Expert:
        """The expert whose speed is measured."""
        expert = create_expert("tiny-vit") if self.toy else clip("ViT-B-16")
        expert.precision = precision
        return expert.to(self.device)

    def rate(self, work: Callable[[], int], seconds: float) -> float:
        """How many a second ``work`` does, which returns a number: after a call to warm up, for so long, but at least once."""
        work()
        self.wait()
        began, done = time.perf_counter(), 0
        while not done or time.perf_counter() - began < seconds:
            done += work()
            self.wait()
        return done / (time.perf_counter() - began)

    def wait(self) -> None:
        """Until the device has done what it was asked for."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def note(self, what: str, value: float | str, unit: str = "", passed: bool | None = None) -> None:
        """A line of the result; ``passed`` where it is a check."""
        with self.lock:
            self.rows.append({"what": what, "value": value, "unit": unit, "passed": passed})
        tqdm.write(f"{what}: {value if isinstance(value, str) else f'{value:.4g}'} {unit}")

    def part(self, name: str, work: Callable[[Check], None], least: float) -> None:
        """Run one part, unless fewer than ``least`` seconds are left; its peak memory is a line too."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            if not self.toy and self.end - time.monotonic() < least:
                self.note(name, f"not run: fewer than {least:.0f} s were left", passed=False)
            else:
                work(self)
            if self.device == "cuda":
                self.note(f"{name}: peak memory of the GPU", torch.cuda.max_memory_allocated() / 1e9, "GB")
        except Exception as error:  # the other parts are worth their minutes all the same
            self.note(name, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", passed=False)
        self.write()

    def write(self) -> bool:
        """Both files as they are now; whether all checks passed."""
        with self.lock:
            passed = all(row["passed"] is not False for row in self.rows)
            spent = time.monotonic() - self.began
            result = {"device": self.device, "card": self.card, "cores": os.cpu_count(), "torch": torch.__version__,
                      "toy": self.toy, "seconds": round(spent, 1), "passed": passed, "rows": self.rows}
            machine = f"{self.card}, {os.cpu_count()} cores, PyTorch {torch.__version__}; {time.strftime('%d %B %Y')}"
            size = "; toy size, which says nothing about speed" if self.toy else ""
            lines = [f"{machine}, {spent:.0f} s{size}", "", "| what | value | |", "|---|---|---|"]
            for row in self.rows:
                value = row["value"] if isinstance(row["value"], str) else f"{row['value']:.4g} {row['unit']}"
                outcome = {None: "", True: "passed", False: "FAILED"}[row["passed"]]
                lines.append(f"| {row['what']} | {value} | {outcome} |")
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / "gpu_check.json").write_text(json.dumps(result, indent=1))
            (self.out / "gpu_check.md").write_text("\n".join(lines) + "\n")
        return passed

    def stop(self) -> None:
        """Time is up, whatever hangs."""
        self.note("the whole run", "stopped: its time was up", passed=False)
        self.write()
        os._exit(1)


def towers(check: Check) -> None:
    """Views a second of the raw tower, as the cache calls it, and the share of the card's data sheet."""
    for precision, seconds in (("float32", 15), ("bfloat16", 15)):
        expert, count = check.tower(precision), 2 if check.toy else 64
        views = torch.rand(count, expert.size, expert.size)

        def encode(expert: Expert = expert, views: torch.Tensor = views) -> int:
            encode_views(expert, views, [expert.depth - 1, expert.depth])
            return len(views)

        speed = check.rate(encode, 0 if check.toy else seconds)
        flops = speed * tower_flops(expert)
        check.note(f"tower in {precision}", speed, "views/s")
        check.note(f"tower in {precision}, work", flops / 1e12, "TFLOP/s")
        for card, (sheet, _) in GPUS.items():
            if precision == "bfloat16" and card.split()[-1] in check.card:
                check.note(f"share of the data sheet's {sheet / 1e12:.0f} TFLOP/s (assumed: {UTILISATION:.0%})", flops / sheet)


def training(check: Check) -> None:
    """Filling the compact cache, an epoch from it and one streamed, the adapter's own step."""
    films = check.films(24 if check.toy else 240)
    train, val = films.split("train"), films.split("val")

    def model() -> MedBridge:
        torch.manual_seed(0)
        return MedBridge([check.tower("bfloat16")], films.labels, sampler=FIVE, dropout=0.0).to(check.device)

    network, cache = model(), FeatureCache(check.place / "cache", progress=True)
    began = time.perf_counter()
    parts = cache.of(network, train, training=True), cache.of(network, val)
    seconds, views = time.perf_counter() - began, sum(len(boxes) for part in parts for boxes in part.boxes)
    size = sum(path.stat().st_size for path in (check.place / "cache").rglob("*") if path.is_file())
    check.note("filling the compact cache, its basis included", views / seconds, "views/s")
    check.note("compact cache", size / views / 1e3, "kB a view")
    config = TrainConfig(epochs=3, patience=9, local_views=4)
    history = fit(network, *parts, config, progress=False)
    check.note("an epoch from the cache", min(row["seconds"] for row in history.rows), "s")
    streamed, stream = model(), FeatureCache(check.place / "stream", features="stream", fresh=False)  # the same views
    rows = fit(streamed, stream.of(streamed, train, training=True), stream.of(streamed, val), config, progress=False).rows
    check.note("an epoch streamed, films decoded and encoded again", rows[-1]["seconds"], "s")  # the first one fills memory too
    check.note("its loss beside the one from the cache", abs(rows[-1]["loss"] - history.rows[-1]["loss"]), "apart")

    trainee = Network(network, *parts, config)
    pass_ = next(iter(passes(partial(trainee.batch, 0), *trainee.known, np.arange(len(train)), config.batch_size, 1, 0)))
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4, fused=True)
    network.train()

    def step() -> int:
        for loss in trainee.losses(network, pass_, torch.device(check.device)):
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return 1

    check.note("the adapter's step of 16 films", 1e3 / check.rate(step, 0 if check.toy else 8), "ms")


def tiny(check: Check, films: Benchmark) -> MedBridge:
    """The shipped experts under an untrained adapter."""
    torch.manual_seed(0)
    experts = [create_expert(name) for name in ("tiny-vit", "tiny-resnet")[: 1 if check.toy else 2]]
    return MedBridge(experts, films.labels, sampler=FIVE, width=32, queries=4)


def agreement(check: Check) -> None:
    """The same films through the same adapter here and on the processor, decoded and encoded anew each time."""
    films = check.films(24 if check.toy else 48)
    model = tiny(check, films)
    FeatureCache(check.place / "cache", progress=False).of(model, films.split("train"), training=True)  # fits its bases
    rows = range(3 if check.toy else 12)
    scores = {device: np.stack([predict_film(model.to(device), films.read(i)) for i in rows]) for device in ("cpu", check.device)}
    if check.device == "cpu":
        check.note("agreement with the CPU", "this is the CPU: compared with itself")
    gap = float(np.abs(scores["cpu"] - scores[check.device]).max())
    check.note("largest difference of a score from the CPU's", gap, passed=gap <= TOLERANCE)
    check.note("spread of these scores", float(scores["cpu"].std()), passed=bool(scores["cpu"].std() > 0))


def train_tiny(check: Check, run: Path) -> torch.Tensor:
    """One small training with a checkpoint after every step; its trained weights, in one row."""
    films = check.films(24 if check.toy else 48)
    model = tiny(check, films)
    cache = FeatureCache(check.place / "cache", progress=False)
    parts = cache.of(model, films.split("train"), training=True), cache.of(model, films.split("val"))
    fit(model, *parts, TrainConfig(epochs=8, batch_size=4, patience=9), run, progress=False, save_steps=1)
    return torch.cat([p.detach().flatten().double().cpu() for p in model.trainable().values()])


def resume(check: Check) -> None:
    """A training in a process of its own, killed in the middle, goes on to the end of one that was not."""
    whole, run = train_tiny(check, check.place / "whole"), check.place / "killed"
    command = [sys.executable, __file__, "--device", check.device, "--place", str(check.place), "--train", str(run),
               *["--toy"] * check.toy]
    with subprocess.Popen(command) as child:
        while not (run / "checkpoint.pt").exists() and child.poll() is None:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
    check.note("killed in the middle of a training", f"status {child.returncode}", passed=child.returncode == -signal.SIGKILL)
    gap = float((train_tiny(check, run) - whole).abs().max())
    check.note("largest difference of a weight after going on", gap, passed=gap <= TOLERANCE)
    check.note("the same bit by bit", "yes" if gap == 0 else "no")  # some kernels of a GPU add in another order each time


PARTS = {"towers": (towers, 45), "agreement": (agreement, 60), "resume": (resume, 90), "training": (training, 120)}


def main() -> int:
    """All parts, each as long as there is time for it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--toy", action="store_true", help="a tiny expert and 24 films")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"))
    parser.add_argument("--place", help=argparse.SUPPRESS)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nor may the cache or the loop take one that is there
    elif not torch.cuda.is_available():
        print("gpu_check: PyTorch sees no CUDA device; --device cpu --toy tries the steps without one")
        return 1
    if args.train:
        train_tiny(Check(args.device, args.toy, args.minutes, args.out, Path(args.place)), args.train)
        return 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        check = Check(args.device, args.toy, args.minutes, args.out, Path(place))
        timer = threading.Timer(60 * args.minutes, check.stop)
        timer.daemon = True
        timer.start()
        for name, (work, least) in PARTS.items():
            check.part(name, work, least)
        check.note("peak memory of the process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "GB")
        passed = check.write()
        timer.cancel()
    print(f"{args.out / 'gpu_check.md'}: {'all checks passed' if passed else 'a check FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

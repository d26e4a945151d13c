"""How time and memory grow with films, views, experts and labels: measured, plotted.

    python bench/cost_curves.py [--repeats 3] [--out bench/cost_curves.png]

The shipped tiny experts on synthetic noise; one thread. What grows, and how, is the point: the absolute numbers are those of
small towers. Filling is measured from an empty cache, an epoch on a full one. Bytes are those of the shards.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from rig import films, one_epoch

from medbridge import MedBridge, create_expert
from medbridge.data import Benchmark
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.train import Network, TrainConfig

NAMES = ("tiny-vit", "tiny-resnet", "tiny-resnet-scenes")
BASE = {"films": 24, "views": 5, "experts": 1, "labels": 2}
SWEEP = {"films": (12, 24, 48, 96), "views": (2, 5, 10, 17), "experts": (1, 2, 3), "labels": (2, 8, 32)}
GRIDS = {2: (1.0, 0.0), 5: (0.5, 0.0), 10: (0.5, 0.25), 17: (0.25, 0.0)}


def with_labels(benchmark: Benchmark, count: int) -> Benchmark:
    """The same films with this many labels."""
    names = [f"finding {i}" for i in range(count)]
    rows = benchmark.table.assign(**{n: [float((i >> (k % 5)) % 2) for i in range(len(benchmark))] for k, n in enumerate(names)})
    return Benchmark(benchmark.name, benchmark.root, tuple(names), rows, synthetic=True)


def measure(benchmark: Benchmark, experts: list, views: int, repeats: int) -> tuple[float, float, float]:
    """Processor seconds of a fill and of an epoch, and bytes of the cache."""
    crop, overlap = GRIDS[views]
    sampler = FocalSampler(crop=crop, overlap=overlap, extra=0)
    model = MedBridge(experts, benchmark.labels, sampler=sampler)
    fills, epochs = [], []
    with tempfile.TemporaryDirectory() as place:
        for n in range(repeats):
            begin = time.process_time()
            cached = FeatureCache(Path(place) / str(n), progress=False).of(model, benchmark)
            fills.append(time.process_time() - begin)
            config = TrainConfig(batch_size=8)
            network = Network(model, cached, cached, config)
            begin = time.process_time()
            one_epoch(network, config)
            epochs.append(time.process_time() - begin)
        size = sum(p.stat().st_size for p in (Path(place) / "0").rglob("*.safetensors"))
    assert all(len(b) == views for b in cached.boxes)
    return statistics.median(fills), statistics.median(epochs), size


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", default="bench/cost_curves.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    experts = [create_expert(name) for name in NAMES]
    found: dict[str, list[tuple[int, float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        many = films(Path(place), max(SWEEP["films"]), 512)
        measure(with_labels(many.take(range(4)), 2), experts[:1], 5, 1)  # warms up
        for axis, values in SWEEP.items():
            for value in values:
                at = {**BASE, axis: value}
                row = measure(with_labels(many.take(range(at["films"])), at["labels"]), experts[: at["experts"]], at["views"],
                              args.repeats)
                found.setdefault(axis, []).append((value, *row))
                print(f"{axis:>8} {value:3d}: fill {row[0]:.2f} s, epoch {row[1]:.2f} s, cache {row[2] / 1e6:.1f} MB", flush=True)
    colours, kinds = sns.color_palette("colorblind"), ("filling the cache, s", "an epoch, s", "cache, MB")
    figure, axes = plt.subplots(3, 4, figsize=(11, 7), sharex="col", sharey="row", layout="constrained")
    for column, (axis, rows) in zip(axes.T, found.items(), strict=True):
        for ax, kind, colour, at, scale in zip(column, kinds, colours, (1, 2, 3), (1, 1, 1e-6), strict=False):
            ax.plot([r[0] for r in rows], [r[at] * scale for r in rows], marker="o", color=colour)
            ax.set_ylim(bottom=0)
            ax.grid(alpha=0.3)
            if axis == "films":
                ax.set_ylabel(kind)
        column[-1].set_xlabel(axis)
    figure.suptitle(f"Cost of tiny experts on synthetic films, processor time of one thread; base: {BASE['films']} films, "
                    f"{BASE['views']} views, {BASE['experts']} expert, {BASE['labels']} labels", fontsize=10)
    figure.savefig(args.out, dpi=110)
    print(args.out)


if __name__ == "__main__":
    main()

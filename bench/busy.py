"""How much longer an epoch takes beside other programs.

    python bench/busy.py [--films 200] [--repeats 3] [--threads 1 2]

Five members on two tiny experts and SYNTHETIC films are trained for one epoch in a process of their own: alone, and beside one
program per core of this machine but one that does nothing but count; in turns. Prints a Markdown table. It imports medbridge
from PYTHONPATH, so that another commit is measured with ``PYTHONPATH=/path/to/its/checkout``.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

EPOCH = """
import sys, torch
from medbridge import FeatureCache, MedBridge, TrainConfig, create_expert, fit, load_benchmark
from medbridge.model import CROSS_FITTED
torch.set_num_threads(int(sys.argv[1]))
films = load_benchmark("phantom", n_films=int(sys.argv[2]))
model = MedBridge([create_expert(n) for n in ("tiny-resnet", "tiny-resnet-scenes")], films.labels, CROSS_FITTED)
cache = FeatureCache(progress=False)
parts = cache.of(model, films.split("train"), training=True), cache.of(model, films.split("val"))
history = fit(model, *parts, TrainConfig(epochs=2), progress=False)
print("seconds", history.rows[1]["seconds"])
"""


def epoch(threads: int, films: int) -> float:
    """Seconds of the second epoch of a new process; the first warms up."""
    out = subprocess.run([sys.executable, "-c", EPOCH, str(threads), str(films)], capture_output=True, text=True, check=True,
                         env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    return float(out.stdout.split("seconds")[-1])


def beside(programs: int, threads: int, films: int) -> float:
    """:func:`epoch` beside programs that keep a core busy each."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        return epoch(threads, films)
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    programs, cores = max(1, (os.cpu_count() or 1) - 1), os.cpu_count()
    epoch(1, args.films)  # draws the films and fills the cache
    print(f"{time.strftime('%d %B %Y')}, {cores} cores, {programs} busy; load average {os.getloadavg()[0]:.1f}; "
          f"{args.films} films, median of {args.repeats}\n")
    print("| threads | epoch alone | beside busy cores | ratio |\n|---|---|---|---|", flush=True)
    for threads in args.threads:
        turns = [(epoch(threads, args.films), beside(programs, threads, args.films)) for _ in range(args.repeats)]
        alone, busy = (statistics.median(x) for x in zip(*turns, strict=True))
        print(f"| {threads} | {alone:.1f} s | {busy:.1f} s | {statistics.median(b / a for a, b in turns):.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""A resized copy of any benchmark, in the layout of ``folder.py``: read once, small on disk, fast from then on. [ours]

```
out/
  prepared.json    benchmark, size, synthetic; written first, so that a folder never mixes two sizes
  images/          8-bit grayscale PNG, the short side at most ``size`` pixels, under their old names
  labels.csv       image, patient_id, split, one column a label (blank = unknown); written last
  boxes.csv        where the benchmark has boxes, in pixels of the resized films
  unreadable.csv   image, reason: films that could not be decoded and are in none of the other files
```

A film is written under a temporary name and renamed when it is whole. A run that is stopped at any moment loses the films in
flight, and the same call goes on with the rest. One run at a time for a folder.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from medbridge.data.base import Benchmark
from medbridge.data.folder import BOX_COLUMNS, PREPARED
from medbridge.data.images import probe_film, read_film
from medbridge.errors import BenchmarkError, BenchmarkWarning, ImageError

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` did: films written now, films that were there already, and ``(image, reason)`` of each unreadable."""

    out: Path
    written: int
    kept: int
    unreadable: list[tuple[str, str]]


def prepare(
    benchmark: Benchmark, out: str | Path, size: int = 512, workers: int | None = None, progress: bool = True
) -> Prepared:
    """Write the resized copy; ``load_benchmark("folder", out)`` reads it.

    Args:
        size: short side in pixels, antialiased, aspect kept; a smaller film keeps its own size.
        workers: processes; None takes all cores, 1 works in this process. progress: show a bar.

    Warns:
        BenchmarkWarning: boxes that lie outside their film; they are left out.

    Raises:
        BenchmarkError: size or workers below 1, a folder that holds something else, a folder that cannot be written, or no film
            that can be read.
    """
    out = Path(out)
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value in (("size", size), ("workers", workers)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise BenchmarkError(f"prepare: {name}={value!r}; give a whole number >= 1")
    names = _names(benchmark.image_ids())
    try:
        _claim(out, benchmark, int(size))
        jobs = [(str(path), str(out / "images" / name)) for path, name in zip(benchmark.paths(), names, strict=True)]
        todo = [i for i, (_, target) in enumerate(jobs) if not os.path.exists(target)]
        for folder in sorted({os.path.dirname(jobs[i][1]) for i in todo}):
            os.makedirs(folder, exist_ok=True)
        results = _each(partial(_write_film, int(size)), [(i, *jobs[i]) for i in todo], workers)
        bar = tqdm(results, "preparing films", len(todo), unit="film", disable=not progress)
        failed = {i: reason for i, reason in bar if reason}
        if len(failed) == len(benchmark):
            raise BenchmarkError(f"prepare: none of {len(benchmark)} films of {benchmark.root} can be read: {failed[0]}")
        unreadable = [(benchmark.image_ids()[i], failed[i]) for i in sorted(failed)]
        _write_csv(out / "unreadable.csv", ("image", "reason"), unreadable)
        _write_tables(benchmark, names, sorted(failed), out, int(size))
    except OSError as error:
        raise BenchmarkError(f"prepare: cannot write to {out}: {error}; free space, or choose another folder") from error
    return Prepared(out, len(todo) - len(failed), len(benchmark) - len(todo), unreadable)


def _names(images: Sequence[str]) -> list[str]:
    """Where each film goes: its old name with .png; two films that differ by their ending alone keep it before .png."""
    short = [str(PurePosixPath(image).with_suffix(".png")) for image in images]
    times = Counter(name.lower() for name in short)
    return [name if times[name.lower()] == 1 else f"{image}.png" for name, image in zip(short, images, strict=True)]


def _claim(out: Path, benchmark: Benchmark, size: int) -> None:
    record = {"benchmark": benchmark.name, "size": size, "synthetic": benchmark.synthetic}
    path = out / PREPARED
    if path.is_file():
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            held = None
        if held != record:
            raise BenchmarkError(f"{path}: the folder holds {held}, not {record}; choose another folder, or delete it first")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BenchmarkError(f"{out}: is there already, and no folder that was prepared before; choose another folder")
    (out / "images").mkdir(parents=True, exist_ok=True)
    for leftover in out.rglob("*.part"):
        leftover.unlink()
    _replace(path, json.dumps(record, indent=2) + "\n")


def _each(work: partial, jobs: Sequence[tuple], workers: int) -> Iterator[tuple[int, str | None]]:
    # A child started by spawn runs an unguarded script again; there it must not start a pool of its own.
    if workers == 1 or len(jobs) < 4 or multiprocessing.parent_process() is not None:
        yield from map(work, jobs)
        return
    # Forked workers need no importable __main__ (notebooks, scripts without a guard). Off Linux fork is unsafe.
    context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
    # Ctrl-C is for the parent, which ends the workers; they would print a traceback each.
    with context.Pool(min(workers, len(jobs)), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap_unordered(work, jobs, chunksize=4)


def _write_film(size: int, job: tuple[int, str, str]) -> tuple[int, str | None]:
    """``(i, None)``, or ``(i, reason)`` where the film cannot be decoded."""
    i, source, target = job
    try:
        film = read_film(source)
    except ImageError as error:
        return i, str(error)
    height, width = _resized(*film.shape, size)
    if (height, width) != film.shape:
        film = np.asarray(Image.fromarray(film).resize((width, height), Image.Resampling.LANCZOS))
    part = f"{target}.{os.getpid()}.part"
    Image.fromarray(np.rint(255 * film.clip(0, 1)).astype(np.uint8)).save(part, format="PNG")
    os.replace(part, target)
    return i, None


def _resized(height: int, width: int, size: int) -> tuple[int, int]:
    short = min(height, width)
    return (height, width) if short <= size else (round(height * size / short), round(width * size / short))


def _write_tables(benchmark: Benchmark, names: Sequence[str], failed: Sequence[int], out: Path, size: int) -> None:
    whole = np.delete(np.arange(len(benchmark)), list(failed))
    table = benchmark.table.iloc[whole]
    new = dict(zip(table["image"], (names[i] for i in whole), strict=True))
    if benchmark.boxes is not None:
        boxes = benchmark.boxes[benchmark.boxes["image"].isin(new)]
        shapes = {image: probe_film(benchmark.root / image) for image in boxes["image"].unique()}
        rows, outside = [], []
        for image, label, *corners in boxes[list(BOX_COLUMNS)].itertuples(index=False):
            height, width = shapes[image]
            to_height, to_width = _resized(height, width, size)
            x0, y0, x1, y1 = np.clip(corners, 0, (width, height) * 2) * np.tile((to_width / width, to_height / height), 2)
            if x0 < x1 and y0 < y1:
                rows.append((new[image], label, *(f"{corner:.3f}" for corner in (x0, y0, x1, y1))))
            else:
                outside.append(f"{image} ({width} x {height})")
        if outside:
            warnings.warn(f"prepare: {len(outside)} of {len(boxes)} boxes lie outside their film and are left out, first of "
                          f"{outside[0]}; these films are not of the size that the boxes were drawn on, so doubt the other "
                          f"boxes too", BenchmarkWarning, stacklevel=3)
        _write_csv(out / "boxes.csv", BOX_COLUMNS, rows)
    labels = [["" if np.isnan(v) else int(v) for v in row] for row in table[list(benchmark.labels)].to_numpy(np.float64)]
    rows = zip(new.values(), table["patient_id"], table["split"], labels, strict=True)
    _write_csv(out / "labels.csv", ("image", "patient_id", "split", *benchmark.labels), ((*row[:3], *row[3]) for row in rows))


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Sequence]) -> None:
    part = path.with_name(f"{path.name}.part")
    with open(part, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    os.replace(part, path)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)

"""A resized copy of any benchmark, in the layout of ``folder.py``: read once, small on disk, fast from then on.

prepared.json is written first, so that a folder never mixes two sizes, and labels.csv last. A run that is stopped at any moment
loses the films in flight, and the same call goes on with the rest. One run at a time for a folder.
"""

import json
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from medbridge.data.base import Benchmark
from medbridge.data.folder import BOX_COLUMNS, PREPARED
from medbridge.data.images import film_file, probe_film, read_film
from medbridge.data.table import REQUIRED_COLUMNS, check_whole_number
from medbridge.errors import BenchmarkError, BenchmarkWarning, ImageError
from medbridge.support.files import write_atomic
from medbridge.support.processes import unordered


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` did."""

    out: Path
    written: int  # films
    kept: int  # films that were there already
    unreadable: list[tuple[str, str]]  # image, reason; in unreadable.csv, and in none of the other files


def prepare(benchmark: Benchmark, out: str | Path, size: int = 512, workers: int | None = None,
            progress: bool = True) -> Prepared:
    """Write the resized copy; ``load_benchmark("folder", out)`` reads it.

    ``size`` is the short side in pixels, antialiased, aspect kept; a smaller film keeps its own size. ``workers`` are processes;
    None takes all cores, 1 works in this process. BenchmarkWarning: boxes outside their film are left out. BenchmarkError: size
    or workers below 1, a folder that holds something else or cannot be written, or no film that can be read.
    """
    out, images = Path(out), benchmark.image_ids()
    workers = (os.cpu_count() or 1) if workers is None else workers
    check_whole_number("prepare: size", size, 1)
    check_whole_number("prepare: workers", workers, 1)
    names = pd.Series([str(PurePosixPath(image).with_suffix(".png")) for image in images], dtype=object)
    # two films that differ by their ending alone keep it before .png
    names = names.mask(names.str.lower().duplicated(keep=False), [f"{image}.png" for image in images])
    try:
        _claim(out, {"benchmark": benchmark.name, "size": int(size), "synthetic": benchmark.synthetic})
        jobs = zip(images, benchmark.paths(), [out / "images" / name for name in names], strict=True)
        jobs = [job for job in jobs if not _is_newer(job[2], job[1])]
        results = unordered(partial(_write_film, int(size)), jobs, workers, chunk=4)
        bar = tqdm(results, "preparing films", len(jobs), unit="film", disable=not progress)
        failed = {image: reason for image, reason in bar if reason}
        if len(failed) == len(benchmark):
            raise BenchmarkError(f"prepare: none of {len(failed)} films of {benchmark.root} can be read: {failed[images[0]]}")
        unreadable = [(image, failed[image]) for image in images if image in failed]
        _write_csv(out / "unreadable.csv", pd.DataFrame(unreadable, columns=["image", "reason"]))
        new = {image: name for image, name in zip(images, names, strict=True) if image not in failed}
        if benchmark.boxes is not None:
            _write_csv(out / "boxes.csv", _boxes(benchmark, new, int(size)))
        labels, table = list(benchmark.labels), benchmark.table[benchmark.table["image"].isin(new)].assign(image=new.values())
        table[labels] = table[labels].astype(float).astype("Int64")  # 1, 0 or blank
        _write_csv(out / "labels.csv", table[[*REQUIRED_COLUMNS, *labels]])
    except OSError as error:
        raise BenchmarkError(f"prepare: cannot write to {out}: {error}; free space, or choose another folder") from error
    return Prepared(out, len(jobs) - len(failed), len(benchmark) - len(jobs), unreadable)


def _claim(out: Path, record: dict) -> None:
    """Take a new folder, or one that was prepared in the same way before."""
    path, held = out / PREPARED, None
    if path.is_file():
        with suppress(ValueError):
            held = json.loads(path.read_text(encoding="utf-8"))
        if held != record:
            raise BenchmarkError(f"{path}: the folder holds {held}, not {record}; choose another folder, or delete it first")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BenchmarkError(f"{out}: is there already, and no folder that was prepared before; choose another folder")
    for leftover in out.rglob(".*.part.*"):
        leftover.unlink()
    write_atomic(path, json.dumps(record, indent=2) + "\n")


def _is_newer(copy: Path, film: Path) -> bool:
    """Whether the copy is there, and was made after the film's file last changed: an old time of the content proves nothing."""
    try:
        film_info = film_file(film).stat()
        return copy.stat().st_ctime_ns >= max(film_info.st_mtime_ns, film_info.st_ctime_ns)
    except OSError:
        return False


def _write_film(size: int, job: tuple[str, Path, Path]) -> tuple[str, str | None]:
    """``(image, None)``, or ``(image, reason)`` where the film cannot be decoded."""
    image, source, target = job
    try:
        film = read_film(source)
    except ImageError as error:
        return image, str(error)
    height, width = _resized(*film.shape, size)
    if (height, width) != film.shape:
        film = np.asarray(Image.fromarray(film).resize((width, height), Image.Resampling.LANCZOS))
    write_atomic(target, Image.fromarray(np.rint(255 * film.clip(0, 1)).astype(np.uint8)).save)
    return image, None


def _resized(height: int, width: int, size: int) -> tuple[int, int]:
    short = min(height, width)
    return (height, width) if short <= size else (round(height * size / short), round(width * size / short))


def _boxes(benchmark: Benchmark, new: dict[str, str], size: int) -> pd.DataFrame:
    """The boxes of the films whose ``new`` names are given, in pixels of the resized films."""
    boxes = benchmark.boxes.loc[benchmark.boxes["image"].isin(new), list(BOX_COLUMNS)].reset_index(drop=True)
    shapes = {image: probe_film(benchmark.root / image) for image in boxes["image"].unique()}
    film = np.array([shapes[image] for image in boxes["image"]]).reshape(-1, 2)[:, [1, 0, 1, 0]]
    resized = np.array([_resized(*shapes[image], size) for image in boxes["image"]]).reshape(-1, 2)[:, [1, 0, 1, 0]]
    corners = np.clip(boxes[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float64), 0, film) * (resized / film)
    inside = (corners[:, :2] < corners[:, 2:]).all(axis=1)
    if not inside.all():
        first = int(np.argmin(inside))
        warnings.warn(f"prepare: {np.sum(~inside)} of {len(boxes)} boxes lie outside their film and are left out, first of "
                      f"{boxes['image'][first]} ({film[first, 0]} x {film[first, 1]}); these films are not of the size that the "
                      f"boxes were drawn on, so doubt the other boxes too", BenchmarkWarning, stacklevel=3)
    boxes[["x0", "y0", "x1", "y1"]] = corners
    return boxes[inside].assign(image=boxes["image"].map(new))


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    write_atomic(path, table.to_csv(index=False, lineterminator="\n", float_format="%.3f"))

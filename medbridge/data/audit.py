"""What is really in a benchmark's folder: counts against the published ones, and the films themselves. [ours]

Films are decoded in full, a sample of them by default. Reading goes film by film; memory does not grow with their number.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from medbridge.data.base import SPLITS, Benchmark
from medbridge.data.covidx import ALSO_IN
from medbridge.data.images import check_films
from medbridge.errors import BenchmarkError

__all__ = ["Audit", "audit"]

_CHUNK = 256  # films whose results are held at a time
_SHOWN = 5


@dataclass(frozen=True)
class Audit:
    """What :func:`audit` found.

    Attributes:
        benchmark: its name; synthetic: whether programs drew the films; root: its folder.
        images, patients: in the table.
        sizes: one row a published part or split: part, here, published (NaN where its owner states none).
        labels: :meth:`Benchmark.summary`.
        left_out: reason -> the images that the files list and the table does not hold.
        decoded: how many films were decoded; seed: of the sample, None where it was all of them.
        unreadable: ``(image, message)`` of each film that is on disk and cannot be decoded.
        absent: films of the table that are not on disk, among those looked at.
        overlap: patient -> its splits, of each patient in more than one.
        duplicates: groups of images with the very same bytes, among those looked at.
        crossing: how many of the groups lie in more than one split.
    """

    benchmark: str
    synthetic: bool
    root: str
    images: int
    patients: int
    sizes: pd.DataFrame
    labels: pd.DataFrame
    left_out: dict[str, list[str]]
    decoded: int
    seed: int | None
    unreadable: list[tuple[str, str]]
    absent: list[str]
    overlap: dict[str, list[str]]
    duplicates: list[list[str]]
    crossing: int

    @property
    def faults(self) -> list[str]:
        """One line a fault: films that cannot be read, patients in two splits. Empty where all is well."""
        found = []
        if self.unreadable:
            found.append(f"{len(self.unreadable)} of {self.decoded} decoded films cannot be read")
        if self.overlap:
            found.append(f"{len(self.overlap)} patients are in more than one split")
        aside = sum(len(names) for reason, names in self.left_out.items() if reason.startswith(ALSO_IN))
        if aside:
            found.append(f"{aside} films were left out, as their patient is in another split too")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; an unknown number is null, and of what was left out only counts and the first five."""
        return {
            "benchmark": self.benchmark, "synthetic": self.synthetic, "root": self.root, "images": self.images,
            "patients": self.patients, "sizes": _records(self.sizes), "labels": _records(self.labels),
            "left_out": {reason: {"images": len(names), "first": names[:_SHOWN]} for reason, names in self.left_out.items()},
            "decoded": self.decoded, "seed": self.seed,
            "unreadable": [{"image": image, "reason": reason} for image, reason in self.unreadable],
            "absent": self.absent, "patients_in_two_splits": self.overlap, "duplicates": self.duplicates,
            "duplicates_across_splits": self.crossing, "faults": self.faults,
        }  # fmt: skip

    def text(self) -> str:
        """The report as the terminal shows it."""
        lines = [f"{self.benchmark}: {self.images:,} images of {self.patients:,} patients in {self.root}"]
        if self.synthetic:
            lines.append("SYNTHETIC: no film shows a person")
        lines += ["", f"{'split':<24}  {'here':>9}  {'published':>9}"]
        for part, here, published in self.sizes.itertuples(index=False):
            lines.append(f"{part:<24}  {here:>9,}  " + (f"{'-':>9}" if np.isnan(published) else f"{int(published):>9,}"))
        width = max(len("label"), *(len(label) for label in self.labels["label"]))
        lines += ["", f"{'label':<{width}}  split  {'positive':>9}  {'negative':>9}  {'unknown':>9}  prevalence"]
        for row in self.labels.itertuples(index=False):
            share = "-" if np.isnan(row.prevalence) else f"{100 * row.prevalence:.1f} %"
            lines.append(f"{row.label:<{width}}  {row.split:<5}  {row.positive:>9,}  {row.negative:>9,}  {row.unknown:>9,}  "
                         f"{share:>10}")
        lines.append("")
        for reason, names in self.left_out.items():
            lines.append(f"left out, {reason}: {len(names):,}: {_first(names)}")
        if not self.left_out:
            lines.append("left out: none of the listed images")
        which = f"{self.decoded:,} films, " + ("all there are" if self.seed is None else f"drawn with seed {self.seed}")
        lines.append(f"unreadable: {len(self.unreadable):,} of {which}")
        lines += [f"  {message}" for _, message in self.unreadable]
        if self.absent:
            lines.append(f"not on disk: {len(self.absent):,} of those films: {_first(self.absent)}")
        named = [f"{patient} ({', '.join(splits)})" for patient, splits in self.overlap.items()]
        lines.append(f"patients in more than one split: {len(named):,}" + (f": {_first(named)}" if named else ""))
        groups = [" = ".join(group) for group in self.duplicates]
        across = f", {self.crossing:,} of them across splits" if groups else ""
        lines.append(f"same bytes: {len(groups):,} groups among those films{across}" + (f": {_first(groups)}" if groups else ""))
        lines += ["", f"FAULT: {'; '.join(self.faults)}" if self.faults else "no fault found"]
        return "\n".join(lines)


def audit(benchmark: Benchmark, sample: int | None = 200, seed: int = 0, workers: int | None = None,
          progress: bool = True) -> Audit:
    """Look at a benchmark's table and at its films.

    Args:
        sample: how many films, drawn with ``seed``, are decoded in full and compared byte by byte; None for every film.
        workers: threads that decode (default: one a core). progress: show a bar.

    Raises:
        BenchmarkError: sample below 1.
    """
    if sample is not None and (isinstance(sample, bool) or sample < 1):
        raise BenchmarkError(f"audit: sample={sample!r}; give a number of films >= 1, or None for every film")
    table, whole = benchmark.table, sample is None or sample >= len(benchmark)
    drawn = np.arange(len(benchmark)) if whole else np.sort(
        np.random.default_rng(seed).choice(len(benchmark), sample, replace=False))
    looked = benchmark.take(drawn)
    names, paths = looked.image_ids(), looked.paths()
    here = [path.is_file() for path in paths]
    present = [(name, path) for name, path, there in zip(names, paths, here, strict=True) if there]
    unreadable = list(_unreadable(present, workers, progress))
    duplicates = _same_bytes(present)
    split_of = dict(zip(table["image"], table["split"], strict=True))
    splits = table.drop_duplicates(["patient_id", "split"])
    several = splits[splits.duplicated("patient_id", keep=False)].groupby("patient_id", sort=True)["split"].agg(list)
    lost = benchmark.dropped
    return Audit(
        benchmark=benchmark.name, synthetic=benchmark.synthetic, root=str(benchmark.root), images=len(benchmark),
        patients=int(table["patient_id"].nunique()), sizes=_sizes(benchmark), labels=benchmark.summary(),
        left_out={} if lost is None else {str(k): v["image"].tolist() for k, v in lost.groupby("reason", sort=False)},
        decoded=len(present), seed=None if whole else seed, unreadable=unreadable,
        absent=[name for name, there in zip(names, here, strict=True) if not there],
        overlap={str(patient): sorted(held, key=SPLITS.index) for patient, held in several.items()},
        duplicates=duplicates, crossing=sum(len({split_of[name] for name in group}) > 1 for group in duplicates),
    )  # fmt: skip


def _sizes(benchmark: Benchmark) -> pd.DataFrame:
    """The splits; then, where a published part is no split by itself, the parts that they were drawn from."""
    table, official = benchmark.table, benchmark.official
    parts = table.get("official_split", table["split"])
    # A split can be held against a published number only if all of it is that part and no other split has some of it.
    same = set(official) <= set(SPLITS) and bool((parts == table["split"]).all())
    rows = [(split, int((table["split"] == split).sum()), official.get(split, np.nan) if same else np.nan) for split in SPLITS]
    if official and not same:
        rows += [(f"official {part}", int((parts == part).sum()), count) for part, count in official.items()]
    return pd.DataFrame(rows, columns=["part", "here", "published"])


def _unreadable(films: list[tuple[str, Path]], workers: int | None, progress: bool) -> Iterator[tuple[str, str]]:
    with tqdm(total=len(films), desc="decoding films", unit="film", disable=not progress) as bar:
        for start in range(0, len(films), _CHUNK):
            chunk = films[start : start + _CHUNK]
            name_of = {path: name for name, path in chunk}
            for path, message in check_films(name_of, workers, progress=False):
                yield name_of[path], message
            bar.update(len(chunk))


def _same_bytes(films: list[tuple[str, Path]]) -> list[list[str]]:
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for name, path in films:
        by_size[os.stat(path).st_size].append((name, path))
    groups = []
    for same in by_size.values():
        by_hash: dict[str, list[str]] = defaultdict(list)
        for name, path in same if len(same) > 1 else ():
            with open(path, "rb") as file:
                by_hash[hashlib.file_digest(file, "sha256").hexdigest()].append(name)
        groups += [group for group in by_hash.values() if len(group) > 1]
    return sorted(groups)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{key: None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}
            for row in table.to_dict("records")]


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")

"""What is really in a benchmark's folder: counts against the published ones, and the films themselves."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from medbridge.data.base import Benchmark
from medbridge.data.copies import copy_groups, film_print
from medbridge.data.covidx import ALSO_IN
from medbridge.data.files import first_five
from medbridge.data.images import film_file, read_film
from medbridge.data.table import SPLITS
from medbridge.data.walk import FolderFiles, find_films
from medbridge.errors import BenchmarkError, ImageError
from medbridge.support.text import fill_template, text_table
from medbridge.support.threads import ahead

LEAST_SIDE = 28  # pixels; a smaller picture is no film (MedMNIST's have 28)


@dataclass(frozen=True)
class Audit:
    """What :func:`audit` saw of a benchmark: its table, and the films that were looked at."""
    benchmark: str
    synthetic: bool
    root: str
    images: int
    patients: int
    sizes: pd.DataFrame  # one row per published part or split: part, here, published (NaN where its owner states none)
    labels: pd.DataFrame  # Benchmark.summary()
    left_out: dict[str, list[str]]  # reason -> the images that the files list and the table does not hold
    decoded: int
    seed: int | None  # of the sample, None where all films were decoded
    unreadable: list[tuple[str, str]]  # image and message of each film that is on disk and cannot be decoded
    blank: list[tuple[str, str]]  # image, and what it shows in place of a patient: films of one grey, halves, a few pixels
    absent: list[str]
    unlisted: list[str]  # films in the folder that the table does not name
    unopened: list[str]  # messages about files and folders there that cannot be opened, or may be a damaged film
    patients_in_two_splits: dict[str, list[str]]  # patient -> its splits
    duplicates: list[list[str]]  # groups of images with the same pixels, or resized or compressed from one another
    duplicates_across_splits: int

    @property
    def faults(self) -> list[str]:
        """One line per fault: films that cannot be read, patients in two splits. Empty where all is well."""
        aside = sum(len(names) for reason, names in self.left_out.items() if reason.startswith(ALSO_IN))
        faults = {f"{len(self.unreadable)} of {self.decoded} decoded films cannot be read": self.unreadable,
                  f"{len(self.blank)} of {self.decoded} decoded films show no patient": self.blank,
                  f"{len(self.unopened)} files or folders that no row names cannot be opened": self.unopened,
                  f"{self.duplicates_across_splits} groups of copies are in more than one split": self.duplicates_across_splits,
                  f"{len(self.patients_in_two_splits)} patients are in more than one split": self.patients_in_two_splits,
                  f"{aside} films were left out, as their patient is in another split too": aside}
        return [fault for fault, found in faults.items() if found]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; an unknown number is null, and of what was left out only counts and the first five."""
        tables = {"sizes": self.sizes, "labels": self.labels}
        return vars(self) | {
            **{name: table.astype(object).where(table.notna(), None).to_dict("records") for name, table in tables.items()},
            "left_out": {reason: {"images": len(names), "first": names[:5]} for reason, names in self.left_out.items()},
            **{name: [{"image": image, "reason": reason} for image, reason in getattr(self, name)]
               for name in ("unreadable", "blank")},
            "faults": self.faults,
        }

    def text(self) -> str:
        """The report as the terminal shows it; ``audit.txt.jinja`` says what stands in it."""
        sizes = [(part, f"{here:,}", "-" if np.isnan(published) else f"{published:,.0f}")
                 for part, here, published in self.sizes.itertuples(index=False)]
        labels = [(row.label, row.split, f"{row.positive:,}", f"{row.negative:,}", f"{row.unknown:,}",
                   "-" if np.isnan(row.prevalence) else f"{100 * row.prevalence:.1f} %") for row in self.labels.itertuples()]
        return fill_template(
            __file__, "audit.txt.jinja", audit=self, first_five=first_five,
            groups=[" = ".join(group) for group in self.duplicates],
            patients=[f"{patient} ({', '.join(splits)})" for patient, splits in self.patients_in_two_splits.items()],
            sizes=text_table([("split", "here", "published"), *sizes], ["left", "right", "right"]),
            labels=text_table([("label", "split", "positive", "negative", "unknown", "prevalence"), *labels],
                              ["left", "left", *["right"] * 4])).removesuffix("\n")


def audit(benchmark: Benchmark, sample: int | None = 200, seed: int = 0, workers: int | None = None,
          progress: bool = True) -> Audit:
    """Look at a benchmark's table and at ``sample`` of its films, drawn with ``seed``, or at all of them (None).

    They are decoded in full and compared by content, by ``workers`` threads (default: one per core). Where the table alone says
    which films there are (no owner's list), the folder is searched for others. BenchmarkError for a sample below 1.
    """
    if sample is not None and (isinstance(sample, bool) or sample < 1):
        raise BenchmarkError(f"audit: sample={sample!r}; give a number of films >= 1, or None for every film")
    table, lost = benchmark.table, benchmark.dropped
    whole = sample is None or sample >= len(benchmark)
    chosen = range(len(benchmark)) if whole else np.random.default_rng(seed).choice(len(benchmark), sample, replace=False)
    looked = benchmark.take(np.sort(chosen))
    name_of = dict(zip(looked.paths(), looked.image_ids(), strict=True))
    present = [path for path in name_of if os.path.lexists(film_file(path))]  # a link to nothing is no film that can be read
    bar = tqdm(ahead(_look, present, workers or os.cpu_count() or 1), "checking films", len(present), unit="film",
               disable=not progress)
    here, seen = set(present), dict(zip(present, bar, strict=True))
    films = [path for path, (_, _, trace) in seen.items() if trace]
    duplicates = sorted([name_of[films[i]] for i in group] for group in copy_groups([seen[path][2] for path in films]))
    listed = set(benchmark.paths())
    found = FolderFiles() if lost is not None or benchmark.synthetic else find_films(benchmark.root, lambda p: p not in listed)
    split_of = dict(zip(table["image"], table["split"], strict=True))
    splits = table.drop_duplicates(["patient_id", "split"])
    several = splits[splits.duplicated("patient_id", keep=False)].groupby("patient_id", sort=True)["split"].agg(list)
    return Audit(
        benchmark=benchmark.name, synthetic=benchmark.synthetic, root=str(benchmark.root), images=len(benchmark),
        patients=int(table["patient_id"].nunique()), sizes=_sizes(benchmark), labels=benchmark.summary(),
        left_out={} if lost is None else {str(k): v["image"].tolist() for k, v in lost.groupby("reason", sort=False)},
        decoded=len(present), seed=None if whole else seed,
        unreadable=[(name_of[path], fault) for path, (fault, _, _) in seen.items() if fault],
        blank=[(name_of[path], blank) for path, (_, blank, _) in seen.items() if blank],
        unlisted=[str(path.relative_to(benchmark.root)) for path in found.films], unopened=found.faults,
        absent=[name for path, name in name_of.items() if path not in here],
        patients_in_two_splits={str(patient): sorted(held, key=SPLITS.index) for patient, held in several.items()},
        duplicates=duplicates,
        duplicates_across_splits=sum(len({split_of[name] for name in group}) > 1 for group in duplicates),
    )  # fmt: skip


def _sizes(benchmark: Benchmark) -> pd.DataFrame:
    """The splits; then, where a published part is no split by itself, the parts that they were drawn from."""
    table, official = benchmark.table, benchmark.official
    parts = table.get("official_split", table["split"])
    # A split can be held against a published number only if all of it is that part and no other split has some of it.
    same = set(official) <= set(SPLITS) and bool((parts == table["split"]).all())
    rows = [(split, int((table["split"] == split).sum()), official.get(split, np.nan) if same else np.nan) for split in SPLITS]
    if not same:
        rows += [(f"official {part}", int((parts == part).sum()), count) for part, count in official.items()]
    return pd.DataFrame(rows, columns=["part", "here", "published"])


def _look(path: Path) -> tuple[str, str, bytes]:
    """Why a film cannot be read, what it shows in place of a patient, and what copies of it are known by."""
    try:
        film = read_film(path)
    except ImageError as error:
        return str(error), "", b""
    return "", _blank(np.rint(255 * film).astype(np.uint8)), film_print(film)


def _blank(film: np.ndarray) -> str:
    """What a film ``(H, W)`` of 8 bits shows in place of a patient, or ''."""
    low, middle, high = np.percentile(film, (5, 50, 95))
    if min(film.shape) < LEAST_SIDE:
        return f"{film.shape[1]} x {film.shape[0]} pixels"
    if high - low < 4:
        return {0: "black", 255: "white"}.get(int(middle), "one grey")
    for side, lines in {"top": film, "bottom": film[::-1], "left": film.T, "right": film.T[::-1]}.items():
        count = int(np.argmin((lines == lines[0, 0]).all(axis=1)))  # lines of one grey from this side on
        if count > 0.45 * len(lines):
            return f"{100 * count / len(lines):.0f} % from the {side} are one grey"
    return ""

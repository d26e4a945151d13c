"""COVIDx CXR-4 (Wu et al., arXiv 2311.17677), read as Kaggle distributes it (andyczhao/covidx-cxr2, version 9).

The split is the owner's. Negative and positive films come mostly from different public collections, so a model can score well by
recognising the hospital: the column ``source`` lets a study look.
"""

import os
import re
from pathlib import Path

import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.files import CARDS, Distribution, first_five
from medbridge.data.table import SPLITS, check_choice
from medbridge.errors import BenchmarkError

ALSO_IN = "patient also in "  # how the reason begins for which a film of a patient in two lists was set aside
_LINE = re.compile(r"(?P<names>\S+\s.*\S)\s+(?P<label>positive|negative)\s+(?P<source>\S+)")


def load_covidx(root: str | Path, overlap: str = "error", files: str = "present") -> Benchmark:
    """The label COVID-19 and the columns official_split, source.

    A patient in more than one list is an error, or with overlap='drop-train' all but the films of the last list are set aside.
    """
    source = Distribution("covidx", root, **CARDS["covidx"])
    check_choice("overlap", overlap, ("error", "drop-train"))
    source.where = source.root / "{train,val,test}.txt"
    table = pd.concat([_read(source, split) for split in SPLITS], ignore_index=True)
    order = table["split"].map(SPLITS.index)
    last = order.groupby(table["patient_id"]).transform("max")
    early = order < last
    if overlap == "error" and early.any():
        films = table[table["patient_id"].isin(table.loc[early, "patient_id"])]
        counts = films.groupby(["patient_id", "split"], sort=False).size()
        shown = [f"{patient} ({', '.join(f'{n} in {split}.txt' for (_, split), n in held.items())})"
                 for patient, held in counts.groupby("patient_id", sort=False)]
        raise BenchmarkError(f"{root}: {len(shown)} patient(s) are in more than one of train.txt, val.txt and test.txt: "
                             f"{first_five(shown)}; pass overlap='drop-train' to set {early.sum()} film(s) aside, or results "
                             f"will look better than they are")
    return source.benchmark(source.set_aside(table, ~early, ALSO_IN + last.map(dict(enumerate(SPLITS)))), files)


def _read(source: Distribution, split: str) -> pd.DataFrame:
    path, rows, seen = source.root / f"{split}.txt", [], {}
    held = set(os.listdir(source.root / split)) if (source.root / split).is_dir() else set()
    for number, line in enumerate(map(str.strip, source.text(path).splitlines()), 1):
        if not line:
            continue
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise BenchmarkError(f"{path}: line {number}: {line[:120]!r} is not `patient file class source` with class positive "
                                 f"or negative; this loader reads {source.title}")
        patient, file = _patient_and_file(parts["names"], held)
        first = seen.setdefault(file, number)
        if first != number:
            raise BenchmarkError(f"{path}: lines {first} and {number} name the same file {file!r}; keep one of them")
        label = float(parts["label"] == "positive")
        rows.append((f"{split}/{file}", patient, split, label, split, parts["source"]))
    if not rows:
        raise BenchmarkError(f"{path}: no lines; this loader reads {source.title}")
    return pd.DataFrame(rows, columns=["image", "patient_id", "split", *source.labels, "official_split", "source"])


def _patient_and_file(names: str, held: set[str]) -> tuple[str, str]:
    """Either may hold blanks, and stand in quotes: where one ends and the other begins, the folder (``held``) knows; without the
    film, the first blank that no quotes enclose."""
    blanks = [blank.span() for blank in re.finditer(r"\s+", names)]
    whole = [names[:start].count('"') % 2 == 0 for start, _ in blanks]
    pairs = [(names[:start].strip('"'), names[end:].strip('"')) for start, end in blanks]
    return next((pair for pair in pairs if pair[1] in held), pairs[whole.index(True) if True in whole else 0])

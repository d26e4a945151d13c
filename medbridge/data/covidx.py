"""COVIDx CXR-4 (Wu et al., arXiv 2311.17677), read as Kaggle distributes it (andyczhao/covidx-cxr2, version 9).

```
root/
  train.txt, val.txt, test.txt   one line a film: patient file class source
  train/  val/  test/            the files of each list
```

84,818 films of 45,342 patients, gathered from public collections; class is positive or negative, the label is COVID-19. The split
is the owner's. Fields are parted by blanks; a file name may hold some, the other fields do not.

Where documents differ: the paper states the totals; of the split counts below only the sum could be checked against it. The
project's own repository still describes CXR-3 (29,986 training films by its table's total, 13,992 + 15,994 by its columns),
which has no val.txt. Negative and positive films come mostly from different sources, so a model can score well by telling
the hospital: the column ``source`` lets a study look.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from medbridge.data.base import SPLITS, Benchmark
from medbridge.data.files import build, check_root, dropped_rows, keep_present
from medbridge.errors import BenchmarkError

__all__ = ["ALSO_IN", "LABELS", "OFFICIAL", "load_covidx"]

LABELS = ("COVID-19",)
OFFICIAL = {"train": 67_863, "val": 8_473, "test": 8_482}
"""Images of each official split."""
ALSO_IN = "patient also in "
"""How the reason begins for which a film of a patient in two lists was set aside."""

_HINT = "COVIDx CXR-4 (train.txt, val.txt, test.txt)"
_LINE = re.compile(r"(?P<patient>\S+)\s+(?P<file>\S.*?)\s+(?P<label>\S+)\s+(?P<source>\S+)")
_CLASSES = {"positive": 1.0, "negative": 0.0}


def load_covidx(root: str | Path, overlap: str = "error", files: str = "present") -> Benchmark:
    """Load COVIDx CXR-4.

    Args:
        root: the folder with the files above.
        overlap: what a patient in more than one list is: 'error', or 'drop-train': the training films of such a patient
            are set aside, and the validation films of one who is in test too.
        files: 'present' keeps the films on this disk, 'all' every line without a look at the disk.

    Returns:
        Benchmark with the label COVID-19 and the columns official_split, source.

    Raises:
        BenchmarkError: a missing or foreign file, a malformed line, a film listed twice, a patient in two lists, no film on disk.
    """
    root = check_root(root, "train.txt, val.txt, test.txt, train/, val/ and test/")
    if overlap not in ("error", "drop-train"):
        raise BenchmarkError(f"overlap={overlap!r}; choose 'error' or 'drop-train'")
    table = pd.concat([_read(root / f"{split}.txt", split) for split in SPLITS], ignore_index=True)
    table, shared = _apart(table, root, overlap)
    where = str(root / "{train,val,test}.txt")
    table, absent = keep_present(table, root, where, files)
    return build("covidx", root, LABELS, table, where, OFFICIAL, [shared, absent])


def _read(path: Path, split: str) -> pd.DataFrame:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        older = "; CXR-3 and older versions have no val.txt" if split == "val" else ""
        raise BenchmarkError(f"{path}: no such file, part of {_HINT}{older}; put it there, or give the folder that holds it as "
                             f"root") from None
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); this loader reads {_HINT}") from None
    rows, seen = [], {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = _LINE.fullmatch(line.strip())
        if parts is None or parts["label"] not in _CLASSES:
            raise BenchmarkError(f"{path}: line {number}: {line.strip()[:120]!r} is not `patient file class source` with class "
                                 f"positive or negative; this loader reads {_HINT}")
        first = seen.setdefault(parts["file"], number)
        if first != number:
            raise BenchmarkError(f"{path}: lines {first} and {number} name the same file {parts['file']!r}; keep one of them")
        rows.append((f"{split}/{parts['file']}", parts["patient"], split, _CLASSES[parts["label"]], split, parts["source"]))
    if not rows:
        raise BenchmarkError(f"{path}: no lines; this loader reads {_HINT}")
    return pd.DataFrame(rows, columns=["image", "patient_id", "split", *LABELS, "official_split", "source"])


def _apart(table: pd.DataFrame, root: Path, overlap: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table without a patient in two splits, and what was set aside for it. Test films always stay."""
    order = table["split"].map({split: i for i, split in enumerate(SPLITS)})
    last = order.groupby(table["patient_id"]).transform("max")
    early = (order < last).to_numpy()
    if not early.any():
        return table, dropped_rows([], "")
    if overlap == "error":
        patients = table.loc[early, "patient_id"].drop_duplicates()
        shown = []
        for patient in patients[:5]:
            held = table.loc[table["patient_id"] == patient, "split"].value_counts()
            shown.append(f"{patient} ({', '.join(f'{held[s]} in {s}.txt' for s in SPLITS if s in held)})")
        more = ", ..." if len(patients) > 5 else ""
        raise BenchmarkError(f"{root}: {len(patients)} patient(s) are in more than one of train.txt, val.txt and test.txt: "
                             f"{', '.join(shown)}{more}; pass overlap='drop-train' to set {int(early.sum())} film(s) aside, or "
                             f"results will look better than they are")
    reasons = ALSO_IN + last[early].map(dict(enumerate(SPLITS)))
    return table[~early], dropped_rows(table.loc[early, "image"], reasons.to_list())

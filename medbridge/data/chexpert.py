"""CheXpert (Irvin et al., AAAI 2019), read as Stanford AIMI distributes it, full size or -small.

```
CheXpert-v1.0/  or  CheXpert-v1.0-small/   (or the folder that holds one of them)
  train.csv   223,414 images of 64,540 patients, labels by the CheXpert labeler: 1, 0, -1 (uncertain), blank
  valid.csv   234 images, 200 patients, labels by three radiologists
  test.csv or test_labels.csv   668 images, 500 patients, labels by radiologists; published later, with CheXlocalize
  train/patient00001/study1/view1_frontal.jpg ...  valid/ ...  test/ ...
```

The owner gives no split for model selection: the official valid set is what papers test on, so it is the test split here and
'val' is drawn from train by patient [ours]. Where the official test set is present it is the test split, and the valid set,
too small for its rare labels, is set aside; ``test='valid'`` tests on it all the same.

Where the files differ from their description: ``Path`` begins with the distribution's name (CheXpert-v1.0-small/train/...),
whatever the folder is called now; the test file begins at 'test/' and may lack sex, age and view, which then follow
from the file name; the full-size download unpacks to four folders side by side, ``CheXpert-v1.0 batch 1 (validate & csv)``
with the tables and valid/, ``batch 2 (train 1)`` to ``batch 4 (train 3)`` with patient folders and no train/. They are read as
they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.files import build, check_root, draw_val, dropped_rows, keep_present, read_csv
from medbridge.data.uncertainty import apply_policy
from medbridge.errors import BenchmarkError

__all__ = ["LABELS", "OFFICIAL", "keep_views", "load_chexpert"]

LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
OFFICIAL = {"train": 223_414, "valid": 234, "test": 668}
"""Images of each official split."""
VIEWS = ("frontal", "lateral", "all")

_BATCH_1 = "CheXpert-v1.0 batch 1 (validate & csv)"
_HINT = "CheXpert-v1.0 or CheXpert-v1.0-small ({})"
_PATH = r"^(?:.*/)?(?P<image>(?P<split>train|valid|test)/(?P<patient>patient\d+)/(?P<study>study\d+)/[^/]+)$"
_METADATA = ("Sex", "Age", "Frontal/Lateral", "AP/PA")


def load_chexpert(
    root: str | Path,
    views: str = "frontal",
    uncertain: str | Mapping[str, str] = "ignore",
    blank: str = "negative",
    test: str = "auto",
    val_share: float = 0.1,
    seed: int = 0,
    files: str = "present",
) -> Benchmark:
    """Load CheXpert.

    Args:
        root: CheXpert-v1.0, CheXpert-v1.0-small, or the folder that holds one of them or the four batches.
        views: 'frontal', 'lateral' or 'all'.
        uncertain, blank: what -1 and blank become, see :func:`medbridge.data.uncertainty.apply_policy`.
        test: the test split: 'valid', 'test', or 'auto': the official test set where it is here, else the valid set.
        val_share: share of the training patients that become the validation split [ours].
        seed: of that draw.
        files: 'present' keeps the films on this disk, 'all' every row without a look at the disk.

    Returns:
        Benchmark with the 14 labels and the columns official_split, study, sex, age, view ('Frontal' or 'Lateral'), ap_pa.

    Raises:
        BenchmarkError: a missing or foreign file, a label outside 1 / 0 / -1 / blank, no film on disk.
    """
    root = _home(check_root(root, "train.csv, valid.csv, train/ and valid/"))
    if test not in ("auto", "valid", "test"):
        raise BenchmarkError(f"test={test!r}; choose from auto, valid, test")
    test_csv = next((root / name for name in ("test.csv", "test_labels.csv") if (root / name).is_file()), None)
    if test == "test" and test_csv is None:
        raise BenchmarkError(f"{root / 'test.csv'}: no such file, nor test_labels.csv; the official test set comes with "
                             f"CheXlocalize; put it there, or pass test='valid'")
    parts = {"train": _read(root / "train.csv", "train", uncertain, blank),
             "valid": _read(root / "valid.csv", "valid", uncertain, blank)}
    if test_csv is not None:
        parts["test"] = _read(test_csv, "test", uncertain, blank)
    tested = ("test" if test_csv is not None else "valid") if test == "auto" else test
    table = pd.concat([draw_val(parts["train"], val_share, seed), parts[tested].assign(split="test")], ignore_index=True)
    aside = [dropped_rows(part["image"], f"official {name} set, the test split is the {tested} set")
             for name, part in parts.items() if name not in ("train", tested)]
    table, others = keep_views(table, views)
    where = str(root / "train.csv")
    if root.name == _BATCH_1:
        root = root.parent
        table = table.assign(image=_in_batches(table, root))
    table, absent = keep_present(table, root, where, files) if len(table) else (table, dropped_rows([], ""))
    official = {name: count for name, count in OFFICIAL.items() if name in parts}
    return build("chexpert", root, LABELS, table, where, official, [*aside, others, absent])


def _in_batches(table: pd.DataFrame, root: Path) -> list[str]:
    """Where the films lie when the batches of the full-size download are side by side in ``root``."""
    batch_of = {entry.name: batch.name for batch in sorted(root.glob("CheXpert-v1.0 batch *")) if batch.is_dir()
                for entry in os.scandir(batch) if entry.name.startswith("patient")}
    return [f"{batch_of[patient]}/{image.removeprefix('train/')}" if patient in batch_of else f"{_BATCH_1}/{image}"
            for image, patient in zip(table["image"], table["patient_id"], strict=True)]


def keep_views(table: pd.DataFrame, views: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The films of the wanted view by the column ``view`` ('Frontal', 'Lateral'), and the rest as dropped rows."""
    if views not in VIEWS:
        raise BenchmarkError(f"views={views!r}; choose from {', '.join(VIEWS)}")
    keep = np.ones(len(table), bool) if views == "all" else (table["view"].str.lower() == views).to_numpy(dtype=bool)
    return table[keep], dropped_rows(table.loc[~keep, "image"], [f"view {view}" for view in table.loc[~keep, "view"]])


def _home(root: Path) -> Path:
    if (root / "train.csv").is_file():
        return root
    homes = sorted(path.parent for path in root.glob("CheXpert*/train.csv"))
    if len(homes) > 1:
        raise BenchmarkError(f"{root}: holds {' and '.join(home.name for home in homes)}; give one of them as root")
    return homes[0] if homes else root


def _read(path: Path, split: str, uncertain: str | Mapping[str, str], blank: str) -> pd.DataFrame:
    required = [] if split == "test" else _METADATA
    raw = read_csv(path, ["Path", *required, *LABELS], _HINT.format(path.name), optional=_METADATA if not required else (),
                   categories=LABELS)
    parts = raw["Path"].str.extract(_PATH)
    wrong = (parts["split"] != split).to_numpy(dtype=bool, na_value=True)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise BenchmarkError(f"{path}: row {i + 2}: column 'Path' holds {raw['Path'].iloc[i]!r}; "
                             f"expected .../{split}/patientNNNNN/studyN/viewN_frontal.jpg")
    lateral = parts["image"].str.contains("_lateral").map({True: "Lateral", False: "Frontal"})
    nothing = pd.Series("", index=raw.index)
    return pd.DataFrame({
        "image": parts["image"].astype(object),
        "patient_id": parts["patient"].astype(object),
        **apply_policy(raw, LABELS, str(path), uncertain, blank),
        "official_split": split,
        "study": parts["study"].astype(object),
        "sex": raw.get("Sex", nothing).astype(object),
        "age": pd.to_numeric(raw.get("Age", nothing), errors="coerce"),
        "view": raw.get("Frontal/Lateral", lateral).astype(object),
        "ap_pa": raw.get("AP/PA", nothing).astype(object),
    }, index=raw.index)

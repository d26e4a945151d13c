"""CheXpert (Irvin et al., AAAI 2019), read as Stanford AIMI distributes it, full size or -small.

train.csv holds labels by the CheXpert labeler, the others by radiologists. Papers test on the official valid set, so it is the
test split here and 'val' is drawn from train by patient [ours]. Where the official test set is here (published later with
CheXlocalize) it is the test split, and the valid set, too small for its rare labels, is set aside. The full-size download unpacks
to four folders side by side: batch 1 with the tables and valid/, batches 2 to 4 with patient folders and no train/.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.files import build, check_root, draw_val, dropped_rows, keep_present, read_csv, set_aside
from medbridge.data.table import check_cells, check_choice
from medbridge.data.uncertainty import apply_policy
from medbridge.errors import BenchmarkError

LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
OFFICIAL = {"train": 223_414, "valid": 234, "test": 668}  # images of each official split
_BATCH_1 = "CheXpert-v1.0 batch 1 (validate & csv)"
_PATH = r"^(?:.*/)?(?P<image>(?P<split>train|valid|test)/(?P<patient>patient\d+)/(?P<study>study\d+)/[^/]+)$"
_METADATA = ("Sex", "Age", "Frontal/Lateral", "AP/PA")


def load_chexpert(root: str | Path, views: str = "frontal", uncertain: str | Mapping[str, str] = "ignore",
                  blank: str = "negative", test: str = "auto", val_share: float = 0.1, seed: int = 0,
                  files: str = "present") -> Benchmark:
    """14 labels and the columns official_split, study, sex, age, view ('Frontal' or 'Lateral'), ap_pa.

    ``root`` is CheXpert-v1.0, CheXpert-v1.0-small, or the folder that holds one of them or the four batches; ``views`` is
    'frontal', 'lateral' or 'all'; ``uncertain`` and ``blank`` are policies of :func:`medbridge.data.uncertainty.apply_policy`;
    ``test`` becomes the test split: 'valid', 'test', or 'auto', the official test set where it is here, else the valid set.
    """
    root = check_root(root, "train.csv, valid.csv, train/ and valid/")
    homes = [] if (root / "train.csv").is_file() else sorted(path.parent for path in root.glob("CheXpert*/train.csv"))
    if len(homes) > 1:
        raise BenchmarkError(f"{root}: holds {' and '.join(home.name for home in homes)}; give one of them as root")
    home = homes[0] if homes else root
    root = home.parent if home.name == _BATCH_1 else home
    check_choice("test", test, ("auto", "valid", "test"))
    paths = {"train": home / "train.csv", "valid": home / "valid.csv"}
    for name in ("test_labels.csv", "test.csv"):
        if (home / name).is_file():
            paths["test"] = home / name
    if test == "test" and "test" not in paths:
        raise BenchmarkError(f"{home / 'test.csv'}: no such file, nor test_labels.csv; the official test set comes with "
                             f"CheXlocalize; put it there, or pass test='valid'")
    tested = test if test != "auto" else "test" if "test" in paths else "valid"
    parts = {split: _read(path, split, uncertain, blank) for split, path in paths.items()}
    aside = [dropped_rows(part["image"], f"official {name} set, the test split is the {tested} set")
             for name, part in parts.items() if name not in ("train", tested)]
    table = pd.concat([parts["train"], parts[tested].assign(split="test")], ignore_index=True)
    table, others = keep_views(draw_val(table, val_share, seed), views)
    if root != home:  # the batches lie side by side
        batch_of = {entry.name: batch.name for batch in sorted(root.glob("CheXpert-v1.0 batch *")) if batch.is_dir()
                    for entry in os.scandir(batch) if entry.name.startswith("patient")}
        table["image"] = [f"{batch_of[patient]}/{image.removeprefix('train/')}" if patient in batch_of else f"{_BATCH_1}/{image}"
                          for image, patient in zip(table["image"], table["patient_id"], strict=True)]
    table, absent = keep_present(table, root, paths["train"], files)
    official = {name: OFFICIAL[name] for name in parts}
    return build("chexpert", root, LABELS, table, paths["train"], official, [*aside, others, absent])


def keep_views(table: pd.DataFrame, views: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The films of the wanted view by the column ``view`` ('Frontal', 'Lateral'), and the rest as dropped rows."""
    check_choice("views", views, ("frontal", "lateral", "all"))
    return set_aside(table, (table["view"].str.lower() == views) | (views == "all"), "view " + table["view"])


def _read(path: Path, split: str, uncertain: str | Mapping[str, str], blank: str) -> pd.DataFrame:
    required, optional = ((), _METADATA) if split == "test" else (_METADATA, ())  # the test file may lack them
    raw = read_csv(path, ["Path", *required, *LABELS], f"CheXpert-v1.0 or CheXpert-v1.0-small ({path.name})", optional, LABELS)
    parts = raw["Path"].str.extract(_PATH)
    check_cells(path, raw["Path"], parts["split"] != split,
                f"column {{name!r}} holds {{value!r}}; expected .../{split}/patientNNNNN/studyN/viewN_frontal.jpg")
    lateral = parts["image"].str.contains("_lateral").map({True: "Lateral", False: "Frontal"}).astype(object)
    nothing = pd.Series("", raw.index, dtype=object)
    return pd.DataFrame({
        "image": parts["image"], "patient_id": parts["patient"], **apply_policy(raw, LABELS, path, uncertain, blank),
        "official_split": split, "study": parts["study"],
        "sex": raw.get("Sex", nothing), "age": pd.to_numeric(raw.get("Age", nothing), errors="coerce"),
        "view": raw.get("Frontal/Lateral", lateral), "ap_pa": raw.get("AP/PA", nothing),
    })

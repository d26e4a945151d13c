"""CheXpert (Irvin et al., AAAI 2019), read as Stanford AIMI distributes it, full size or -small.

train.csv holds labels by the CheXpert labeler, the others by radiologists. Papers test on the official valid set, so it is the
test split here, unless the official test set (published later with CheXlocalize) is there too; 'val' is drawn from train.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.files import CARDS, Distribution, draw_val
from medbridge.data.table import check_cells, check_choice
from medbridge.data.uncertainty import apply_policy
from medbridge.errors import BenchmarkError

_BATCH_1 = "CheXpert-v1.0 batch 1 (validate & csv)"  # of the full-size download, with the tables and valid/ but no train/
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
    source = Distribution("chexpert", root, **CARDS["chexpert"])
    check_choice("test", test, ("auto", "valid", "test"))
    homes = [] if (source.root / "train.csv").is_file() else [path.parent for path in source.root.glob("CheXpert*/train.csv")]
    if len(homes) > 1:
        raise BenchmarkError(f"{root}: holds {' and '.join(sorted(home.name for home in homes))}; give one of them as root")
    home = homes[0] if homes else source.root
    source.root = home.parent if home.name == _BATCH_1 else home
    paths = {"train": home / "train.csv", "valid": home / "valid.csv"}
    for path in (home / "test.csv", home / "test_labels.csv"):
        if path.is_file():
            paths.setdefault("test", path)
    if test == "test" and "test" not in paths:
        raise BenchmarkError(f"{home / 'test.csv'}: no such file, nor test_labels.csv; the official test set comes with "
                             f"CheXlocalize; put it there, or pass test='valid'")
    tested = list(paths)[-1] if test == "auto" else test
    parts = {split: _read(source, path, split, uncertain, blank) for split, path in paths.items()}
    for name in parts.keys() - {"train", tested}:
        source.set_aside(parts[name], [False] * len(parts[name]), f"official {name} set, the test split is the {tested} set")
    table = pd.concat([parts["train"], parts[tested].assign(split="test")], ignore_index=True)
    table = keep_views(source, draw_val(table, val_share, seed), views)
    if source.root != home:  # the patients' folders lie in batches side by side
        batch_of = {entry.name: batch.name for batch in sorted(source.root.glob("CheXpert-v1.0 batch *")) if batch.is_dir()
                    for entry in os.scandir(batch) if entry.name.startswith("patient")}
        table["image"] = [f"{batch_of[patient]}/{image.removeprefix('train/')}" if patient in batch_of else f"{_BATCH_1}/{image}"
                          for image, patient in zip(table["image"], table["patient_id"], strict=True)]
    source.official = {name: source.official[name] for name in parts}
    return source.benchmark(table, files)


def keep_views(source: Distribution, table: pd.DataFrame, views: str) -> pd.DataFrame:
    """The films of the wanted view by the column ``view`` ('Frontal', 'Lateral')."""
    check_choice("views", views, ("frontal", "lateral", "all"))
    return source.set_aside(table, (table["view"].str.lower() == views) | (views == "all"), "view " + table["view"])


def _read(source: Distribution, path: Path, split: str, uncertain: str | Mapping[str, str], blank: str) -> pd.DataFrame:
    required, optional = ((), _METADATA) if split == "test" else (_METADATA, ())  # the test file may lack them
    raw = source.csv(path, ["Path", *required, *source.labels], optional, source.labels)
    parts = raw["Path"].str.extract(_PATH)
    check_cells(path, raw["Path"], parts["split"] != split,
                f"column {{name!r}} holds {{value!r}}; expected .../{split}/patientNNNNN/studyN/viewN_frontal.jpg")
    lateral = parts["image"].str.contains("_lateral").map({True: "Lateral", False: "Frontal"}).astype(object)
    nothing = pd.Series("", raw.index, dtype=object)
    return pd.DataFrame({
        "image": parts["image"], "patient_id": parts["patient"],
        **apply_policy(raw, source.labels, path, uncertain, blank), "official_split": split, "study": parts["study"],
        "sex": raw.get("Sex", nothing), "age": pd.to_numeric(raw.get("Age", nothing), errors="coerce"),
        "view": raw.get("Frontal/Lateral", lateral), "ap_pa": raw.get("AP/PA", nothing),
    })

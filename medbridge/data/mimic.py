"""MIMIC-CXR-JPG (Johnson et al., arXiv 1901.07042), read as PhysioNet distributes it (credentialed access).

Release 2.1.0 keeps the names of 2.0.0. Labels belong to the study and are joined to each of its films; the few studies without a
row are set aside. The split is the owner's, 'validate' is 'val' here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.chexpert import LABELS
from medbridge.data.files import build, check_root, keep_present, read_csv, set_aside
from medbridge.data.table import check_cells, check_choice
from medbridge.data.uncertainty import apply_policy
from medbridge.errors import BenchmarkError

OFFICIAL = {"train": 368_960, "validate": 2_991, "test": 5_159}  # images of each official split, lateral views among them
_SPLITS = {"train": "train", "validate": "val", "test": "test"}


def load_mimic(root: str | Path, views: str | Sequence[str] = ("PA", "AP"), labeler: str = "chexpert",
               uncertain: str | Mapping[str, str] = "ignore", blank: str = "negative", files: str = "present") -> Benchmark:
    """14 labels and the columns official_split, study, view.

    ``views`` are the ViewPosition values that are kept (frontal: PA, AP; lateral: LATERAL, LL), or 'all', films without one among
    them; ``labeler`` is 'chexpert' or 'negbio'; ``uncertain`` and ``blank`` are policies of
    :func:`medbridge.data.uncertainty.apply_policy`.
    """
    root = check_root(root, "mimic-cxr-2.0.0-metadata.csv.gz and files/")
    check_choice("labeler", labeler, ("chexpert", "negbio"))
    if isinstance(views, str) and views != "all":
        raise BenchmarkError(f"views={views!r}; give a list of ViewPosition values, e.g. ['PA', 'AP'], or 'all'")
    path, films = _read(root, "metadata", ["dicom_id", "subject_id", "study_id", "ViewPosition"])
    split_path, splits = _read(root, "split", ["dicom_id", "split"])
    check_cells(split_path, splits["split"], ~splits["split"].isin(_SPLITS),
                f"column {{name!r}} holds {{value!r}}; expected {', '.join(_SPLITS)}")
    at = _rows_of(films["dicom_id"], splits["dicom_id"], split_path)
    official = pd.Series(np.append(splits["split"], None)[at], dtype=object)  # None where the file does not say
    label_path, labels = _read(root, labeler, ["study_id"], LABELS)
    at = _rows_of(films["study_id"], labels["study_id"], label_path)
    values = apply_policy(labels, LABELS, label_path, uncertain, blank).to_numpy()[at]
    subject, study, view = films["subject_id"], films["study_id"], films["ViewPosition"]
    table = pd.DataFrame({
        "image": "files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + films["dicom_id"] + ".jpg",
        "patient_id": subject, "split": official.map(_SPLITS).astype(object), **dict(zip(LABELS, values.T, strict=True)),
        "official_split": official, "study": study, "view": view,
    })
    table, others = set_aside(table, view.isin(view if views == "all" else list(views)), "view " + view.replace("", "unknown"))
    table, unlisted = set_aside(table, table["split"].notna(), "not in the split file")
    table, unlabelled = set_aside(table, at[table.index] >= 0, f"its study has no row in the {labeler} file")
    table, absent = keep_present(table, root, path, files)
    return build("mimic", root, LABELS, table, path, OFFICIAL, [others, unlisted, unlabelled, absent])


def _read(root: Path, which: str, columns: Sequence[str], labels: Sequence[str] = ()) -> tuple[Path, pd.DataFrame]:
    path = root / f"mimic-cxr-2.0.0-{which}.csv.gz"
    return path, read_csv(path, [*columns, *labels], f"MIMIC-CXR-JPG 2.0.0 or 2.1.0 ({path.name})", categories=labels)


def _rows_of(wanted: pd.Series, column: pd.Series, path: Path) -> np.ndarray:
    """Where each wanted value stands in the column of the file, -1 where it does not."""
    check_cells(path, column, column.duplicated(), "{name} {value!r} is there twice; download the file again")
    return pd.Index(column).get_indexer(wanted)

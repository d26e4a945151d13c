"""MIMIC-CXR-JPG (Johnson et al., arXiv 1901.07042), read as PhysioNet distributes it (credentialed access).

Release 2.1.0 keeps the names of 2.0.0. Labels belong to the study and are joined to each of its films; the few studies without a
row are set aside. The split is the owner's, 'validate' is 'val' here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.files import CARDS, Distribution
from medbridge.data.table import check_cells, check_choice
from medbridge.data.uncertainty import apply_policy
from medbridge.errors import BenchmarkError

_SPLITS = {"train": "train", "validate": "val", "test": "test"}


def load_mimic(root: str | Path, views: str | Sequence[str] = ("PA", "AP"), labeler: str = "chexpert",
               uncertain: str | Mapping[str, str] = "ignore", blank: str = "negative", files: str = "present") -> Benchmark:
    """14 labels and the columns official_split, study, view.

    ``views`` are the ViewPosition values that are kept (frontal: PA, AP; lateral: LATERAL, LL), or 'all', films without one among
    them; ``labeler`` is 'chexpert' or 'negbio'; ``uncertain`` and ``blank`` are policies of
    :func:`medbridge.data.uncertainty.apply_policy`.
    """
    source = Distribution("mimic", root, **CARDS["mimic"])
    check_choice("labeler", labeler, ("chexpert", "negbio"))
    if isinstance(views, str) and views != "all":
        raise BenchmarkError(f"views={views!r}; give a list of ViewPosition values, e.g. ['PA', 'AP'], or 'all'")
    paths = {which: source.root / f"mimic-cxr-2.0.0-{which}.csv.gz" for which in ("metadata", "split", labeler)}
    films = source.csv(paths["metadata"], ["dicom_id", "subject_id", "study_id", "ViewPosition"])
    splits = source.csv(paths["split"], ["dicom_id", "split"])
    check_cells(paths["split"], splits["split"], ~splits["split"].isin(_SPLITS),
                f"column {{name!r}} holds {{value!r}}; expected {', '.join(_SPLITS)}")
    labels = source.csv(paths[labeler], ["study_id", *source.labels], categories=source.labels)
    for path, column in ((paths["split"], splits["dicom_id"]), (paths[labeler], labels["study_id"])):
        check_cells(path, column, column.duplicated(), "{name} {value!r} is there twice; download the file again")
    official = films["dicom_id"].map(splits.set_index("dicom_id")["split"]).astype(object)  # NaN where the file does not say
    at = pd.Index(labels["study_id"]).get_indexer(films["study_id"])  # -1: no labels
    values = apply_policy(labels, source.labels, paths[labeler], uncertain, blank).to_numpy()[at]
    subject, study, view = films["subject_id"], films["study_id"], films["ViewPosition"]
    table = pd.DataFrame({
        "image": "files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + films["dicom_id"] + ".jpg",
        "patient_id": subject, "split": official.map(_SPLITS).astype(object),
        **dict(zip(source.labels, values.T, strict=True)), "official_split": official, "study": study, "view": view,
    })
    wanted = view.isin(view if views == "all" else list(views))
    table = source.set_aside(table, wanted, "view " + view.replace("", "unknown"))
    table = source.set_aside(table, table["split"].notna(), "not in the split file")
    table = source.set_aside(table, at[table.index] >= 0, f"its study has no row in the {labeler} file")
    return source.benchmark(table, files)

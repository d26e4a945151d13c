"""torchxrayvision (Cohen et al., MIDL 2022) reads the same tables: the same labels, cell by cell, but for two choices.

Both are stated in medbridge/data/uncertainty.py: a blank is negative here unless ``blank='unknown'``, where theirs is unknown;
and a film of 'No Finding' has 0 in every finding there, whatever its cells say (support devices: in MIMIC, not in CheXpert).
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medbridge import load_benchmark
from medbridge.data.labels import canonical

xrv = pytest.importorskip("torchxrayvision")  # in the extra 'dev'
FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"
SHARED = Path(os.environ.get("MEDBRIDGE_SHARED", Path(__file__).parents[3] / "shared")) / "data"
CHEXPERT = FIXTURES / "chexpert" / "CheXpert-v1.0-small"
MIMIC = {which: FIXTURES / "mimic" / f"mimic-cxr-2.0.0-{which}.csv.gz" for which in ("chexpert", "metadata")}


def _theirs(dataset, names):
    """Rows by image, columns by finding."""
    columns = [canonical(label) or label for label in dataset.pathologies]
    return pd.DataFrame(dataset.labels, index=pd.Index(list(names), dtype=object), columns=columns)


def _ours(benchmark, key):
    """The findings that both know, and what a film of 'No Finding' says."""
    table = benchmark.table[list(benchmark.labels)].set_axis(pd.Index(list(key(benchmark.table)), dtype=object))
    return table.rename(columns={name: canonical(name) or name for name in benchmark.labels}).astype(np.float32)


def _name(table):
    return [image.rpartition("/")[2] for image in table["image"]]


def _equal(ours, theirs):
    assert len(theirs) and set(theirs.index) <= set(ours.index) and len(theirs.columns) >= 13 and set(theirs) <= set(ours)
    pd.testing.assert_frame_equal(ours.loc[theirs.index, theirs.columns], theirs, check_names=False)


@pytest.mark.parametrize("root", [FIXTURES / "nih", SHARED / "nih-thumbs", SHARED / "nih-multilabel"], ids=lambda p: p.name)
@pytest.mark.filterwarnings("ignore")
def test_nih_is_read_alike(root):
    if not root.is_dir():
        pytest.skip(f"{root} is not here")
    splits = "official" if (root / "test_list.txt").is_file() else "drawn"
    ours = load_benchmark("nih", root, files="all", splits=splits)
    boxes = FIXTURES / "nih" / "BBox_List_2017.csv"
    theirs = xrv.datasets.NIH_Dataset(str(root), str(next(root.glob("Data_Entry_2017*.csv"))), str(boxes), views=["PA", "AP"],
                                      unique_patients=False)
    theirs = _theirs(theirs, theirs.csv["Image Index"])
    _equal(_ours(ours, _name), theirs[theirs.index.isin(_name(ours.table))])


def _with_choices(ours, theirs, devices):
    """Ours with a blank left unknown, and their rule for films of 'No Finding'."""
    healthy = ours["No Finding"] == 1
    ours.loc[healthy, [c for c in theirs if devices or c != "Support Devices"]] = 0
    return ours


@pytest.mark.filterwarnings("ignore")
def test_chexpert_is_read_alike():
    ours = _ours(load_benchmark("chexpert", CHEXPERT, views="all", blank="unknown", files="all"), lambda t: t["image"])
    for split in ("train", "valid"):
        theirs = xrv.datasets.CheX_Dataset(str(CHEXPERT), str(CHEXPERT / f"{split}.csv"), views=["PA", "AP", "L"],
                                           unique_patients=False)
        theirs = _theirs(theirs, [path.partition("/")[2] for path in theirs.csv["Path"]])
        _equal(_with_choices(ours.copy(), theirs, devices=False), theirs)
        known = theirs.notna() & (ours.loc[theirs.index, "No Finding"] != 1).to_numpy()[:, None]
        negative = _ours(load_benchmark("chexpert", CHEXPERT, views="all", files="all"), lambda t: t["image"])
        pd.testing.assert_frame_equal(negative.loc[theirs.index, theirs.columns].where(known), theirs.where(known))


@pytest.mark.filterwarnings("ignore")
def test_mimic_is_read_alike():
    ours = _ours(load_benchmark("mimic", FIXTURES / "mimic", views="all", blank="unknown", files="all"),
                 lambda t: [name.removesuffix(".jpg") for name in _name(t)])
    theirs = xrv.datasets.MIMIC_Dataset(str(FIXTURES / "mimic"), *map(str, MIMIC.values()), views=["PA", "AP", "LATERAL", "LL"],
                                        unique_patients=False)
    theirs = _theirs(theirs, theirs.csv["dicom_id"])
    theirs = theirs[theirs.index.isin(ours.index)]  # the split file has no word of the others
    _equal(_with_choices(ours, theirs, devices=True), theirs)

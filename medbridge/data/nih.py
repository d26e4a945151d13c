"""NIH ChestX-ray14 (Wang et al., CVPR 2017), as the NIH Clinical Center distributes it: 112,120 frontal films of 30,805 patients.

Validation patients are drawn from the owner's train_val.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from medbridge.data.base import Benchmark
from medbridge.data.files import CARDS, Distribution, draw_val
from medbridge.data.images import probe_film
from medbridge.data.table import assign_splits, check_cells, check_choice, check_columns
from medbridge.data.walk import find_films
from medbridge.errors import BenchmarkError, ImageError

_COLUMNS = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "View Position")
_LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
_BOXES = "BBox_List_2017.csv"
_CORNERS = ["Bbox [x", "y", "w", "h]"]  # the header breaks at its own commas
_SIDE = 1024  # pixels; of the films as distributed, on which the boxes were drawn


def load_nih(root: str | Path, splits: str = "official", val_share: float = 0.1, fractions: Sequence[float] = (0.7, 0.1, 0.2),
             seed: int = 0, files: str = "present") -> Benchmark:
    """14 labels (a film of 'No Finding' has 0 in all) and the columns official_split, age (years), sex, view, follow_up.

    splits='drawn' draws train, val and test by patient in these ``fractions``, for a copy without the owner's lists. Boxes are in
    pixels of the films as they are here, resized or not (with files='all' in those of the owner's 1024 x 1024).
    """
    source = Distribution("nih", root, **CARDS["nih"])
    check_choice("splits", splits, ("official", "drawn"))
    older = not (source.root / "Data_Entry_2017_v2020.csv").is_file() and (source.root / "Data_Entry_2017.csv").is_file()
    raw = source.csv("Data_Entry_2017.csv" if older else "Data_Entry_2017_v2020.csv", _COLUMNS,
                     optional=["Patient Gender", "Patient Sex"], categories=["Finding Labels", "Patient Age"])
    sex = "Patient Sex" if "Patient Sex" in raw and "Patient Gender" not in raw else "Patient Gender"  # in most copies
    check_columns(raw, [sex], source.where, f"this loader reads {source.title}")
    places = _places(source.root, raw["Image Index"]) if files == "present" else {}
    places |= {name: f"images/{name}" for name in raw["Image Index"] if name not in places}
    table = pd.DataFrame({
        "image": raw["Image Index"].map(places),
        "patient_id": raw["Patient ID"], **_labels(raw["Finding Labels"], source),
        "age": _years(raw["Patient Age"]), "sex": raw[sex], "view": raw["View Position"],
        "follow_up": pd.to_numeric(raw["Follow-up #"], errors="coerce"),
    })
    # Splits are drawn over the whole list, so that a film keeps its split when more of the archives are unpacked.
    if splits == "official":
        table["official_split"] = raw["Image Index"].map(_official_splits(source)).astype(object)
        table = source.set_aside(table, table["official_split"].notna(), f"in neither {' nor '.join(_LISTS.values())}")
        table = draw_val(table.assign(split=table["official_split"]), val_share, seed)
    else:
        source.official = {}
        table = assign_splits(table, fractions, seed)
    boxes = _boxes(source, places, files) if (source.root / _BOXES).is_file() else None
    return source.benchmark(table, files, boxes)


def _places(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Name in the owner's list -> the film below root: in images_001/images/, or as copies have it, as .jpg or .PNG, or in any
    folder; the owner's folders and endings first."""
    stems = {name.rpartition(".")[0]: name for name in names}
    films = [path.relative_to(root) for path in find_films(root, lambda path: path.stem in stems).films]
    films.sort(key=lambda path: (path.suffix != ".png", not path.parts[0].startswith("images"), len(path.parts), path))
    return {stems[path.stem]: path.as_posix() for path in reversed(films)}


def _labels(findings: pd.Series, source: Distribution) -> dict[str, np.ndarray]:
    """Label -> 1 or 0 per film, from cells such as 'Mass|Nodule'."""
    cells = [[name.strip() for name in cell.split("|")] for cell in findings.cat.categories]
    wrong = np.array([names != ["No Finding"] and not set(source.labels).issuperset(names) for names in cells])
    check_cells(source.where, findings, wrong[findings.cat.codes],
                f"column {{name!r}} holds {{value!r}}; expected names out of {', '.join(source.labels)}, or 'No Finding' alone")
    return {label: np.array([float(label in names) for names in cells])[findings.cat.codes] for label in source.labels}


def _years(ages: pd.Series) -> np.ndarray:
    """'58', '058Y', '006M', '010D' (as in the first release) in years; what is no age, or beyond any person's, is NaN."""
    parts = pd.Series(ages.cat.categories, dtype=object).str.extract(r"^\s*(\d+)\s*([YMD]?)\s*$")
    years = pd.to_numeric(parts[0], errors="coerce") / parts[1].map({"M": 12, "D": 365.25}).fillna(1).astype(float)
    return years.where(years <= 120).to_numpy()[ages.cat.codes]  # the table has ages such as 411


def _official_splits(source: Distribution) -> dict[str, str]:
    """Image -> 'train_val' or 'test'."""
    instead = "pass splits='drawn' to draw train, val and test by patient (not comparable with published results)"
    split_of = pd.concat([pd.Series(split, source.text(name, instead=instead).split()) for split, name in _LISTS.items()])
    if len(twice := split_of.index[split_of.index.duplicated()]):
        raise BenchmarkError(f"{source.root}: image {twice[0]!r} is listed twice in {' and '.join(_LISTS.values())}; download "
                             f"the lists again")
    return split_of.to_dict()


def _boxes(source: Distribution, places: Mapping[str, str], files: str) -> pd.DataFrame:
    """The owner's boxes in pixels of the films that are here."""
    raw, path = source.csv(_BOXES, ["Image Index", "Finding Label", *_CORNERS]), source.root / _BOXES
    numbers = raw[_CORNERS].apply(pd.to_numeric, errors="coerce")
    for column in _CORNERS:
        check_cells(path, raw[column], numbers[column].isna(), "column {name!r} holds {value!r}, no number")
    x, y, w, h = numbers.astype(np.float64).to_numpy().T
    label = raw["Finding Label"].replace({"Infiltrate": "Infiltration"})
    check_cells(path, label, ~label.isin(source.labels), f"unknown label {{value!r}}; known are {', '.join(source.labels)}")
    image = raw["Image Index"].map(places)
    boxes = pd.DataFrame({"image": image, "label": label, "x0": x, "y0": y, "x1": x + w, "y1": y + h})[image.notna()]
    shapes = np.full((len(boxes), 2), _SIDE)
    for shape, name in zip(shapes, boxes["image"] if files == "present" else (), strict=False):
        with suppress(ImageError):  # whoever reads the damaged film hears of it; its box stays as it was
            shape[:] = probe_film(source.root / name)  # smaller copies of the films are common
    boxes[["x0", "y0", "x1", "y1"]] *= shapes[:, [1, 0, 1, 0]] / _SIDE
    return boxes

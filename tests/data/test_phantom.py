"""PhantomCXR: determinism, labels and boxes that agree, hospitals that differ, and a cache that can be trusted."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import procrustes

from medbridge.data import label_names, load_benchmark, validate
from medbridge.data.phantom import benchmark as phantom
from medbridge.data.phantom.anatomy import Thorax
from medbridge.data.phantom.benchmark import load_phantom
from medbridge.data.phantom.film import HOSPITALS, LABELS, age_and_sex, draw_labels, make_film
from medbridge.errors import BenchmarkError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("phantom")


@pytest.fixture(scope="module")
def films(root):
    return load_phantom(root, n_films=18, workers=1)


def test_film_is_deterministic_and_typed():
    film, again = make_film(3, "A", ["Nodule"], 5), make_film(3, "A", ["Nodule"], 5)
    assert film.image.shape == (1024, 1024) and film.image.dtype == np.uint8
    assert (film.image == again.image).all()
    assert film.labels == again.labels and film.boxes == again.boxes and film.meta == again.meta
    assert tuple(film.labels) == LABELS
    assert film.meta["hospital"] == "A" and film.meta["sex"] in "FM" and 18 <= film.meta["age"] <= 95
    assert (make_film(4, "A", ["Nodule"], 5).image != film.image).mean() > 0.3


@pytest.fixture(scope="module")
def normal():
    return make_film(8, "A", [], 2)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("subtlety", [0.0, 1.0, None])
def test_each_finding_is_drawn_where_its_box_says(label, subtlety, normal):
    film = make_film(8, "A", [label], 2, subtlety)
    assert film.labels == {name: int(name == label) for name in LABELS}
    assert film.boxes and {name for name, *_ in film.boxes} == {label}
    assert normal.boxes == [] and not any(normal.labels.values())
    # The same seed draws the same noise, so all that differs is the finding (and, for a lifted diaphragm, its side).
    change = np.abs(film.image.astype(int) - normal.image)
    inside = np.zeros(change.shape, bool)
    for _, x0, y0, x1, y1 in film.boxes:
        assert 0 <= x0 < x1 <= 1024 and 0 <= y0 < y1 <= 1024
        inside[int(y0) : int(y1), int(x0) : int(x1)] = True
    assert change[inside].mean() > 5 * change[~inside].mean()


def test_sizes_of_nodule_and_mass():
    sizes = {
        label: [max(x1 - x0, y1 - y0) for seed in range(6) for _, x0, y0, x1, y1 in make_film(seed, "A", [label]).boxes]
        for label in ("Nodule", "Mass")
    }
    assert min(sizes["Nodule"]) >= 12 and max(sizes["Nodule"]) <= 28
    assert min(sizes["Mass"]) >= 50 and max(sizes["Mass"]) <= 160


def test_subtlety_lowers_contrast():
    def contrast(subtlety):
        film, normal = (make_film(1, "A", names, 1, subtlety) for names in (["Mass"], []))
        _, x0, y0, x1, y1 = (int(v) if not isinstance(v, str) else v for v in film.boxes[0])
        return (film.image.astype(float) - normal.image)[y0:y1, x0:x1].mean()

    assert contrast(0.0) > 1.5 * contrast(0.5) > 1.5 * contrast(1.0) > 0


def test_one_patient_keeps_anatomy_but_not_pose():
    def lungs(patient, pose):
        thorax = Thorax(patient, np.random.default_rng(pose))
        return np.concatenate(list(thorax.lungs.values()))

    def distance(a, b):  # what no shift, turn or scaling explains: the shape
        return procrustes(a, b)[2]

    same = [distance(lungs(patient, 1), lungs(patient, 2)) for patient in range(12)]
    others = [distance(lungs(patient, 1), lungs(patient + 1, 2)) for patient in range(12)]
    assert np.mean(same) < 0.5 * np.mean(others)
    assert np.abs(lungs(0, 1) - lungs(0, 2)).max() > 2
    assert make_film(1, "B", [], 9).meta["age"] == make_film(2, "B", [], 9).meta["age"]


def test_hospitals_differ():
    films = {hospital: [make_film(seed, hospital, []) for seed in range(5)] for hospital in HOSPITALS}
    belly = {h: [film.image[860:940, 280:400].astype(float) for film in films[h]] for h in HOSPITALS}
    grain = {h: np.median([np.diff(patch, axis=1).std() for patch in belly[h]]) for h in HOSPITALS}
    assert grain["C"] > 1.3 * grain["A"]
    contrast = {h: np.mean([film.image.std() for film in films[h]]) for h in HOSPITALS}
    assert contrast["B"] > contrast["A"] > contrast["C"]
    ages = {h: np.mean([age_and_sex(seed, h)[0] for seed in range(300)]) for h in HOSPITALS}
    assert ages["B"] < ages["A"] < ages["C"]
    portable = {h: sum(film.meta["view"] == "AP" for film in films[h]) for h in HOSPITALS}
    assert portable["C"] >= 4 > portable["B"]


def test_prevalence_and_co_occurrence():
    for hospital, site in HOSPITALS.items():
        drawn = [draw_labels(seed, hospital, seed) for seed in range(3000)]
        share = {label: np.mean([label in names for names in drawn]) for label in LABELS}
        for label in LABELS:
            assert 0.08 <= site.prevalence[label] <= 0.35
            assert share[label] == pytest.approx(site.prevalence[label], abs=0.03)
        assert 0.2 < np.mean([not names for names in drawn]) < 0.45
        with_effusion = [names for names in drawn if "Effusion" in names]
        assert np.mean(["Atelectasis" in names for names in with_effusion]) > 1.5 * share["Atelectasis"]


def test_findings_of_one_patient_correlate():
    def agreement(first, second):
        a, b = (draw_labels(s, "A", p) for s, p in (first, second))
        return len(set(a) & set(b)) / max(1, len(set(a) | set(b)))

    same = np.mean([agreement((2 * i, i), (2 * i + 1, i)) for i in range(400)])
    other = np.mean([agreement((2 * i, i), (2 * i + 1, i + 1000)) for i in range(400)])
    assert same > 2 * other


def test_benchmark_table_and_boxes(films):
    assert films.synthetic and "synthetic" in films.name.lower()
    assert films.labels == LABELS == label_names()["phantom"] and len(films) == 18
    validate(films.table, ["Infiltration"], "phantom")
    assert set(films.table["split"]) == {"train", "val", "test"}
    assert films.table["hospital"].value_counts().to_dict() == {"A": 6, "B": 6, "C": 6}
    assert list(films.boxes.columns) == ["image", "label", "x0", "y0", "x1", "y1"]
    boxed = set(zip(films.boxes["image"], films.boxes["label"], strict=True))
    positive = {(row["image"], label) for _, row in films.table.iterrows() for label in LABELS if row[label] == 1}
    assert boxed == positive
    film = films.read(0)
    assert film.shape == (1024, 1024) and film.dtype == np.float32


def test_written_film_is_the_drawn_film(films):
    row = next(phantom._films_of("A", 0))
    drawn = make_film(row["seed"], "A", patient_seed=row["patient_seed"]).image
    i = films.image_ids().index(row["image"])
    assert np.abs(films.read(i) * 255 - drawn).mean() < 2.0


def test_splits_are_by_patient_near_their_shares_and_nested():
    rows = {h: [row for row, _ in zip(phantom._films_of(h, 0), range(2000), strict=False)] for h in HOSPITALS}
    table = pd.DataFrame(sum(rows.values(), []))
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()
    assert table.groupby("patient_id").size().between(1, 3).all()
    shares = table.drop_duplicates("patient_id")["split"].value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.60, abs=0.01) and shares["val"] == pytest.approx(0.12, abs=0.01)
    assert table["image"].is_unique and table["seed"].is_unique


def test_smaller_is_the_beginning_and_hospitals_share_films(root, films, monkeypatch):
    monkeypatch.setattr(phantom, "make_film", lambda *a, **k: pytest.fail("drew a film that was there"))
    small = load_phantom(root, n_films=9, workers=1)
    pd.testing.assert_frame_equal(small.table, films.table.iloc[:9])
    only = load_benchmark("phantom-B", root=root, n_films=6, workers=1)
    assert only.image_ids() == [i for i in films.image_ids() if i.startswith("images/B/")]
    assert set(small.split("train").table["split"]) == {"train"}


def test_damaged_films_are_made_again(root, films):
    paths = films.paths()
    before = [path.read_bytes() for path in paths]
    stamps = [path.stat().st_mtime_ns for path in paths]
    paths[0].unlink()
    paths[1].write_bytes(before[1][:1000])
    record = films.root / "records" / films.image_ids()[2].removeprefix("images/").replace(".jpg", ".json")
    record.write_text("{")
    again = load_phantom(root, n_films=18, workers=1)
    assert [path.read_bytes() for path in paths] == before
    assert [path.stat().st_mtime_ns for path in paths[3:]] == stamps[3:]
    assert json.loads(record.read_text())["bytes"] == len(before[2])
    pd.testing.assert_frame_equal(again.boxes, films.boxes)
    assert not list(films.root.rglob("*.part*"))


def test_pool_writes_the_same_files(tmp_path, films):
    pooled = load_phantom(tmp_path, n_films=6, workers=2)
    assert [path.read_bytes() for path in pooled.paths()] == [path.read_bytes() for path in films.paths()[:6]]


def test_folder_is_named_by_generator_and_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBRIDGE_CACHE", str(tmp_path))
    first = load_phantom(hospitals="A", n_films=1, workers=1)
    other = load_phantom(hospitals="A", n_films=1, workers=1, seed=1)
    assert first.root.parent == tmp_path and first.root != other.root
    assert first.paths()[0].read_bytes() != other.paths()[0].read_bytes()
    monkeypatch.setattr(phantom, "GENERATOR_VERSION", phantom.GENERATOR_VERSION + 1)
    assert load_phantom(hospitals="A", n_films=1, workers=1).root != first.root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hospital": "D"}, "hospital='D'.*A, B, C"),
        ({"findings": ["Hernia"]}, "Hernia.*Atelectasis"),
        ({"findings": "Nodule"}, "is a string"),
        ({"subtlety": 1.5}, "subtlety=1.5"),
        ({"patient_seed": -1}, "patient_seed=-1"),
    ],
)
def test_bad_film_arguments(arguments, message):
    with pytest.raises(BenchmarkError, match=message):
        make_film(0, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hospitals": "AX"}, "hospitals='AX'.*A, B, C"),
        ({"hospitals": "AA"}, "each once"),
        ({"hospitals": ""}, "one or more"),
        ({"n_films": 0}, "n_films=0"),
        ({"workers": 0}, "workers=0"),
        ({"seed": 1.5}, "seed=1.5"),
    ],
)
def test_bad_benchmark_arguments(tmp_path, arguments, message):
    with pytest.raises(BenchmarkError, match=message):
        load_phantom(tmp_path, **arguments)


def test_unwritable_root_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchmarkError, match="cannot write films.*MEDBRIDGE_CACHE"):
        load_phantom(tmp_path / "file", n_films=1, workers=1)

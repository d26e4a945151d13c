"""Maps on all films with boxes: against other patients' maps, of a model, and on a benchmark as distributed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from samples import with_bases

from medbridge.data.nih import load_nih
from medbridge.errors import MedBridgeError
from medbridge.explain.localisation import localisation_table
from medbridge.model import MedBridge


def _spot(row, column):
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[row, column] = 1.0
    return heat


def test_a_map_that_is_the_same_on_every_film_gains_nothing_over_other_films(squares):
    """Boxes in four corners: a map that always points at one corner beats chance there, and other patients' maps as little."""
    part = squares.split("test").take(range(8))
    corners = [(16 * (i % 2) * 6, 12 * (i // 2 % 2) * 6) for i in range(8)]
    boxes = pd.DataFrame([{"image": image, "label": "wide", "x0": x, "y0": y, "x1": x + 32, "y1": y + 24}
                          for image, (x, y) in zip(part.image_ids(), corners, strict=True)])
    benchmark = replace(part, boxes=boxes, table=part.table.assign(patient_id=[f"p{i}" for i in range(8)]))
    films = [part.read(i) for i in range(8)]

    def table(spot_of, films_of=benchmark, n_boot=100):
        def maps(film):
            i = next(i for i, f in enumerate(films) if np.array_equal(f, film))
            return lambda label: _spot(*spot_of(i))

        return localisation_table(maps, films_of, ["wide"], n_boot, progress=False).iloc[0]

    same, own = table(lambda i: (0, 0)), table(lambda i: (corners[i][1] // 24, corners[i][0] // 32))
    assert same["hit"] == 2 / 8 and same["hit_chance"] == 1 / 16 and same["hit_other"] == same["hit"]
    assert same["hit_other_gain_lo"] == same["hit_other_gain_hi"] == 0
    assert own["hit"] == own["iou"] == 1 and own["hit_other"] == own["iou_other"] == pytest.approx(1 / 7)
    assert own["hit_other_gain_lo"] == pytest.approx(6 / 7)
    one = replace(benchmark, table=benchmark.table.assign(patient_id="p"))
    assert np.isnan(table(lambda i: (0, 0), one, 10)["hit_other"])


def test_localisation_of_a_model(squares, vit):
    model = with_bases(MedBridge([vit], squares.labels, seed=0))
    part = squares.split("test")
    boxes = pd.DataFrame([{"image": image, "label": "wide", "x0": 0, "y0": 80, "x1": 128, "y1": 90}
                          for image, wide in zip(part.image_ids(), part.table["wide"], strict=True) if wide])
    with pytest.raises(MedBridgeError, match="has no boxes of bright, wide"):
        localisation_table(model, part)
    table = localisation_table(model, replace(part, boxes=boxes), n_boot=50, progress=False)
    assert table["label"].tolist() == ["wide"] and table["films"][0] == len(boxes)
    assert table["hit_chance"][0] == pytest.approx(10 / 96, abs=0.02)
    assert 0 <= table["iou_lo"][0] <= table["iou"][0] <= table["iou_hi"][0] <= 1
    gain = table["iou"][0] - table["iou_chance"][0]
    assert table["iou_gain_lo"][0] <= gain <= table["iou_gain_hi"][0]
    far = replace(part, boxes=boxes.assign(x0=500, x1=600))
    with pytest.raises(MedBridgeError, match=r"box of wide lies outside the film of 128 x 96 pixels.*scale their boxes"):
        localisation_table(model, far, progress=False)


@pytest.mark.filterwarnings("ignore:.*cannot be learned")
def test_localisation_on_nih_as_distributed(vit):
    """The real code path on the miniature: 3 boxes, of which 2 are of labels that the model has."""
    nih = load_nih(Path(__file__).parents[2] / "data" / "fixtures" / "nih")
    model = with_bases(MedBridge([vit], ("Atelectasis", "Mass", "Cardiomegaly"), seed=0))
    table = localisation_table(model, nih, n_boot=20, progress=False)
    assert table["label"].tolist() == ["Atelectasis", "Mass"] and table["films"].tolist() == [1, 1]
    # boxes of 160 x 120 and 90 x 90 pixels on films of 1024 x 1024
    assert table["hit_chance"].tolist() == pytest.approx([160 * 120 / 1024**2, 90 * 90 / 1024**2], rel=0.1)
    assert table["hit_other"].isna().all()

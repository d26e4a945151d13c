"""The scores of one map against boxes, counted by hand."""

import numpy as np
import pytest

from medbridge.errors import MedBridgeError
from medbridge.explain.localisation import box_mask, localise_film


def test_localisation_by_hand():
    """A 4 x 4 map over a film of 40 x 80; the box holds 2 x 2 cells; 3 cells are predicted positive, 2 of them in the box."""
    heat = np.zeros((4, 4))
    heat[0, 0], heat[1, 0], heat[3, 3] = 1.0, 0.6, 0.5
    box = np.array([[0.0, 0.0, 40.0, 20.0]])
    assert box_mask(box, (40, 80), (4, 4)).sum() == 4 and box_mask(box, (40, 80), (4, 4))[:2, :2].all()
    scores = localise_film(heat, box, (40, 80))
    assert scores["hit"] == 1 and scores["hit_chance"] == 4 / 16 and scores["iou"] == pytest.approx(2 / 5)
    predicted, truth, ious = heat >= 0.5, box_mask(box, (40, 80), (4, 4)), []
    for dy in range(4):
        for dx in range(4):
            moved = np.roll(predicted, (dy, dx), (0, 1))
            ious.append((moved & truth).sum() / (moved | truth).sum())
    assert scores["iou_chance"] == pytest.approx(np.mean(ious))
    assert localise_film(heat, box, (40, 80), share=0.9)["iou"] == 1 / 4
    flat = localise_film(np.ones((4, 4)), box, (40, 80))
    assert flat["hit"] == flat["hit_chance"] == flat["iou"] == flat["iou_chance"] == 0.25, "a map of nothing is chance"


def test_boxes_smaller_than_a_cell_and_several_boxes():
    assert np.argwhere(box_mask([[41, 31, 43, 33]], (40, 80), (4, 4))).tolist() == [[3, 2]]
    assert box_mask([[0, 0, 20, 10], [60, 30, 80, 40], [0, 0, 20, 10]], (40, 80), (4, 4)).sum() == 2


@pytest.mark.parametrize("change, words", [({"share": 0}, "share=0"), ({"boxes": np.zeros((0, 4))}, "at least one box"),
                                           ({"heat": np.full((2, 2), np.nan)}, "finite")])
def test_maps_that_cannot_be_compared(change, words):
    arguments = {"heat": np.ones((2, 2)), "boxes": np.array([[0, 0, 1, 1]]), "film": (4, 4)} | change
    with pytest.raises(MedBridgeError, match=words):
        localise_film(**arguments)

"""Hiding what a map points at: cells and fills by hand, and a table that tells a map that matters from one that does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from samples import with_bases

from medbridge.errors import MedBridgeError
from medbridge.explain import occlusion
from medbridge.explain.occlusion import film_logits, hide_cells, move_cells, occlusion_table, top_cells
from medbridge.model import MedBridge
from medbridge.predict import predict_film


def test_top_cells_are_the_brightest_and_as_many_as_asked():
    heat = np.array([[0.1, 0.9], [0.5, 0.9]])
    assert top_cells(heat, 0.25).tolist() == [[False, True], [False, False]]
    assert top_cells(heat, 0.5).tolist() == [[False, True], [False, True]]
    assert top_cells(heat, 0.01).sum() == 1
    with pytest.raises(MedBridgeError, match="share=1.5"):
        top_cells(heat, 1.5)


def test_moved_cells_are_as_many_and_elsewhere():
    cells, rng = np.zeros((4, 6), dtype=bool), np.random.default_rng(0)
    cells[1, 2] = cells[2, 2] = True
    places = set()
    for _ in range(200):
        moved = move_cells(cells, rng)
        assert moved.sum() == 2 and (moved != cells).any()
        places.add(tuple(np.argwhere(moved).ravel()))
    assert len(places) == 23  # every shift of 4 x 6 but none at all


def test_hidden_cells_alone_change():
    film = np.random.default_rng(0).random((32, 64)).astype(np.float32)
    cells = np.zeros((2, 4), dtype=bool)
    cells[1, 3] = True
    for fill in occlusion.FILLS:
        hidden = hide_cells(film, cells, fill)
        here = np.zeros_like(film, dtype=bool)
        here[16:, 48:] = True
        np.testing.assert_array_equal(hidden[~here], film[~here])
        assert (hidden[here] != film[here]).all() and hidden.dtype == np.float32
    assert np.unique(hide_cells(film, cells, "mean")[here]) == pytest.approx(film.mean())
    flat = np.full((32, 64), 0.3, dtype=np.float32)
    np.testing.assert_allclose(hide_cells(flat, cells, "blur"), flat, atol=1e-6)
    with pytest.raises(MedBridgeError, match="fill='grey'"):
        hide_cells(film, cells, "grey")


def test_logits_of_films_are_those_of_one_at_a_time(experts, squares):
    model = with_bases(MedBridge(experts, squares.labels, seed=0))
    films = [squares.read(i) for i in range(2)]
    logits = film_logits(model, films)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[1])), predict_film(model, films[1]), atol=1e-5)


class _Seen:
    """Stands for an explanation whose map is the film itself, or its opposite: bright where the square is, or elsewhere."""

    def __init__(self, film, sign):
        self.film, self.sign = film, sign

    def heatmap(self, label):
        return self.sign * torch.nn.functional.avg_pool2d(torch.from_numpy(self.film)[None], 8)[0].numpy()


@pytest.mark.parametrize(("sign", "gains"), [(1, True), (-1, False)])
def test_a_map_on_what_the_score_needs_gains_and_another_does_not(monkeypatch, experts, squares, sign, gains):
    """The score is the brightest patch of the film: hiding it lowers the score, hiding the dark does not."""
    monkeypatch.setattr(occlusion, "explain", lambda model, film: _Seen(film, sign))
    monkeypatch.setattr(occlusion, "film_logits", lambda model, films: np.array(
        [[torch.nn.functional.avg_pool2d(torch.from_numpy(f)[None], 8).max().item(), 0] for f in films]))
    part = squares.take(squares.table["bright"].to_numpy() == 1)
    part = replace(part, table=part.table.assign(wide=0.0))
    model = with_bases(MedBridge(experts, squares.labels, seed=0))
    table = occlusion_table(model, part, share=0.15, fill="mean", n_boot=200, progress=False).set_index("label")
    assert table.index.tolist() == ["bright", "all"] and table.loc["all", "films"] == len(part)
    row = table.loc["bright"]
    assert row["gain_moved_lo"] <= row["gain_moved"] <= row["gain_moved_hi"]
    assert row["gain_moved"] == pytest.approx(row["drop"] - row["drop_moved"])
    assert row["gain_other"] == pytest.approx(row["drop"] - row["drop_other"])
    assert (row["gain_moved_lo"] > 0.1) == gains and (row["gain_other_lo"] > 0) == gains
    assert abs(row["drop"]) < 1e-6 or gains


def test_one_patient_has_no_other(experts, squares):
    rows = np.flatnonzero(squares.table["wide"].to_numpy() == 1)[:1]
    model = with_bases(MedBridge(experts, squares.labels))
    table = occlusion_table(model, squares.take(rows), ["wide"], n_boot=20, progress=False)
    assert table["films"].tolist() == [1, 1] and table["drop_other"].isna().all() and table["drop_moved"].notna().all()


def test_what_cannot_be_hidden(experts, squares):
    model, absent = with_bases(MedBridge(experts, squares.labels)), squares.take(squares.table["wide"].to_numpy() == 0)
    with pytest.raises(MedBridgeError, match="0 findings are present"):
        occlusion_table(model, absent, ["wide"], progress=False)
    with pytest.raises(MedBridgeError, match="draws=0"):
        occlusion_table(model, squares, draws=0, progress=False)

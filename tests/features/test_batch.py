import numpy as np
import pytest
import torch

from medbridge.features import batch as module
from medbridge.features.batch import collate, passes
from medbridge.features.films import FilmFeatures


def _film(views, fixed, shift=0.0):
    rows = torch.arange(views, dtype=torch.float32)[:, None] + shift
    maps = [[rows[:, :, None].expand(views, 3, 4).half()], [rows[:, :, None].expand(views, 2, 5).half()] * 2]
    return FilmFeatures(maps, [rows.expand(views, 6).half(), rows.expand(views, 7).half()], rows.expand(views, 4), fixed)


def test_films_of_different_numbers_of_views_are_padded():
    films = [_film(2, 2), _film(4, 4, 10.0)]
    batch = collate(films, np.array([[1, 0], [0, 1]]), np.array([[True, False], [True, True]]))
    assert batch.view_mask.tolist() == [[True, True, False, False], [True] * 4]
    assert [[m.shape for m in maps] for maps in batch.maps] == [[(2, 4, 3, 4)], [(2, 4, 2, 5)] * 2]
    assert batch.maps[0][0].dtype == torch.float16 and not batch.maps[0][0][0, 2:].any()
    assert torch.equal(batch.summary[1][1], films[1].summary[1]) and torch.equal(batch.boxes[0, :2], films[0].boxes)
    assert batch.targets.dtype == torch.float32 and batch.mask.dtype == torch.bool
    there = batch.to("cpu")
    assert torch.equal(there.boxes, batch.boxes) and collate(films).to("cpu").targets is None


def test_training_draws_the_whole_film_and_as_many_others_as_there_are_windows():
    film, seen = _film(9, 4), set()
    for seed in range(40):
        drawn = film.draw(np.random.default_rng(seed))
        views = drawn.boxes[:, 0].tolist()
        assert views[0] == 0 and len(views) == 4 == len(set(views)) and views == sorted(views)
        assert drawn.summary[0][:, 0].tolist() == views and drawn.maps[1][1][:, 0, 0].tolist() == views
        seen |= set(views)
    assert seen == set(range(9))
    assert film.draw().boxes[:, 0].tolist() == [0, 1, 2, 3]
    assert _film(4, 4).draw(np.random.default_rng(0)).boxes[:, 0].tolist() == [0, 1, 2, 3]


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    targets, mask = rng.integers(0, 2, (11, 3)).astype(np.float32), rng.random((11, 3)) < 0.7
    mask[[2, 5]] = False
    return targets, mask


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_parts_of_a_step_are_its_films_and_their_weights_add_up(labels, accumulate):
    targets, mask = labels
    order = np.random.default_rng(1).permutation(11)
    parts = list(passes(list, targets, mask, order, 4, accumulate))
    assert [row for p in parts for row in p.batch] == order.tolist()
    assert sum(p.last for p in parts) == 3 and sum(p.known for p in parts) == pytest.approx(3)
    assert sum(p.films for p in parts) == pytest.approx(3)
    for p in parts:
        assert p.count == len(p.batch) and np.array_equal(p.targets, targets[p.batch]) and np.array_equal(p.mask, mask[p.batch])
    later = list(passes(list, targets, mask, order, 4, accumulate, first=2))
    assert [p.batch for p in later] == [p.batch for p in parts][-len(later):] and sum(p.last for p in later) == 1


def test_a_step_of_which_nothing_is_known_weighs_its_parts_alike(labels):
    targets, mask = labels[0], np.zeros_like(labels[1])
    assert [p.known for p in passes(list, targets, mask, np.arange(8), 8, 2)] == [0.5, 0.5]


def test_processes_share_the_films_of_a_step(labels, monkeypatch):
    shares = []
    for rank in range(2):
        monkeypatch.setattr(module, "ranks", lambda rank=rank: (rank, 2))
        shares.append(list(passes(list, *labels, np.arange(11), 4, 4)))
    for a, b in zip(*shares, strict=True):  # parts of one film: the other process computes one that does not count
        assert (a.count, b.count) == (1, 0) and a.batch == b.batch
        assert torch.equal(a.targets, b.targets) and a.known == b.known

"""What this machine reaches, and which way of getting features it favours."""

import time

import pytest

from medbridge.features import budget
from medbridge.features.budget import Rates, choose, cost_of_run, measure_rates
from medbridge.features.cache import FeatureCache
from medbridge.features.cost import expert_cost
from medbridge.features.films import CachedFilms
from medbridge.features.stream import StreamedFilms
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge

DEPTHS = [[2, 3], [4, 5]]


def test_towers_decoding_and_disk_are_measured(experts, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "SECONDS", 0.2)
    towers = [expert_cost(e, d, repeats=1) for e, d in zip(experts, DEPTHS, strict=True)]
    found = measure_rates(towers, tmp_path, 1, 1000, lambda i: time.sleep(0.01))
    assert 10 < found.films < 101 and found.views == 1 / sum(c.seconds for c in towers)
    assert found.write > 1e5 and found.read > 1e5 and found.room > 1e6
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    assert measure_rates(towers, tmp_path / "file", 0, 3, lambda i: None).room == 0  # no folder: nothing can be cached


def test_the_way_that_takes_less_time_is_chosen(experts):
    cost = cost_of_run(experts, DEPTHS, 1000, 14, 5)
    slow = Rates(views=1e3, films=1e6, write=1e3, read=1e3)
    assert choose(cost, Rates(views=100, films=1e6)).startswith("cache: towers 100 views/s")
    assert choose(cost, slow).startswith("stream: ")
    assert "which do not fit" in choose(cost, Rates(views=100), fits=False) and choose(cost, Rates(100), False)[:6] == "stream"


def test_auto_measures_once_says_so_and_keeps_to_it(squares, experts, tmp_path, capsys, monkeypatch):
    model = MedBridge(experts, squares.labels, sampler=FocalSampler(crop=0.6, overlap=0.0, extra=1))
    parts = squares.split("train"), squares.split("val")

    def films(limit=None):
        cache = FeatureCache(tmp_path, progress=False, features="auto", limit=limit)
        return [cache.of(model, part, training=part is parts[0]) for part in parts]

    assert all(isinstance(part, StreamedFilms) for part in films(limit=1000))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("features of squares (synthetic) from stream: towers ") and "which do not fit" in line
    monkeypatch.setattr("medbridge.features.cache.measure_rates", lambda *_: pytest.fail("measured again"))
    assert all(isinstance(part, StreamedFilms) for part in films())
    [note] = (tmp_path / "auto").iterdir()
    assert note.read_text() in line
    note.unlink()
    for part in parts:
        FeatureCache(tmp_path, progress=False).of(model, part, training=part is parts[0])
    assert all(isinstance(part, CachedFilms) for part in films())  # there already
    assert not capsys.readouterr().err

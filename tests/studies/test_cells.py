"""Cells and the folder that keeps them: what shares an address, what does not, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medbridge.data.tasks import make_targets
from medbridge.errors import AdapterError, BenchmarkError
from medbridge.model import AdapterConfig
from medbridge.studies.cells import Cell, MethodSettings, ResultStore
from medbridge.train import TrainConfig


@pytest.fixture
def cell(squares, vit):
    return Cell("MedBridge", squares, make_targets(squares, [squares]), MethodSettings([vit], AdapterConfig(width=32)))


def test_an_address_holds_what_the_scores_depend_on_and_no_more(cell, squares, tmp_path):
    at = ResultStore(tmp_path).folder
    half, settings = squares.subset(0.5, "train"), cell.settings
    assert at(cell) == at(replace(cell, targets=[], fraction=0.5, settings=replace(settings, config=TrainConfig(seed=5))))
    others = [replace(cell, seed=1), replace(cell, source=half), replace(cell, settings=replace(settings, tries=2)),
              replace(cell, settings=replace(settings, adapter=AdapterConfig(width=16))), replace(cell, method="CoOp")]
    assert len({at(cell), *map(at, others)}) == 6
    probe, zero = replace(cell, method="linear probe"), replace(cell, method="zero-shot")
    assert at(probe) == at(replace(probe, seed=1)) != at(replace(probe, source=half))  # it has no chance, but learns
    assert at(zero) == at(replace(zero, source=half)) and at(zero).name.startswith("zero-shot-")
    assert at(cell).name.startswith("MedBridge-seed0-") and at(probe).name.startswith("linear-probe-")


def test_scores_are_finished_with_their_facts_and_damage_is_named(cell, tmp_path):
    store, target = ResultStore(tmp_path), cell.targets[0]
    scores = np.random.default_rng(0).random((len(target.test), 2))
    assert store.missing(cell) == [target]
    store.keep(cell, target, scores)
    assert store.missing(cell) == [target]  # not before its facts are written
    store.finish(cell, {"parameters": 3})
    assert store.missing(cell) == [] and store.facts(cell)["parameters"] == 3 and store.facts(cell)["method"] == "MedBridge"
    np.testing.assert_array_equal(store.scores(cell, target), scores)
    one = replace(target, columns=(1,))
    np.testing.assert_array_equal(store.scores(cell, one), scores[:, 1:])
    path = next(store.folder(cell).glob("scores-*.npz"))
    store.keep(cell, target, scores[:, :1])
    with pytest.raises(BenchmarkError, match="scores of other films"):
        store.scores(cell, target)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(AdapterError, match="damaged .* delete the file"):
        store.scores(cell, target)


def test_a_folder_of_other_settings_is_refused(cell, squares, tmp_path):
    ResultStore(tmp_path, cell)
    ResultStore(tmp_path, replace(cell, fraction=0.5))
    others = {"tries, train": replace(cell, settings=replace(cell.settings, config=TrainConfig(epochs=2), tries=1)),
              "films": replace(cell, source=squares.subset(0.5, "train")), "tests": replace(cell, targets=[])}
    for odd, other in others.items():
        with pytest.raises(BenchmarkError, match=rf"settings\.json: belongs to a run with other .* \(differs in: {odd}\)"):
            ResultStore(tmp_path, other)
    assert json.loads((tmp_path / "settings.json").read_text())["train"]["epochs"] == cell.settings.config.epochs

"""Checks of the exercises of notebook 09: right answers pass, typical mistakes get their own hint."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medbridge.course import check

SOURCE = Path(__file__).resolve().parents[2] / "notebooks" / "sources" / "09_adaptation_tasks.py"
FUNCTIONS = {"9.1": "shared_pairs", "9.2": "patients_needed", "9.3": "paired_gap"}


def _printed_solutions():
    """Code of the notebook's collapsed solutions."""
    blocks = re.findall(r"^# ```python\n(.*?)^# ```$", SOURCE.read_text(encoding="utf-8"), re.S | re.M)
    return ["\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines()) for block in blocks]


def test_printed_solutions_are_right_and_those_of_the_solution_notebook(capsys):
    scope = {"np": np, "math": math, "roc_auc_score": roc_auc_score}
    solved = (SOURCE.parent / "solutions" / SOURCE.name).read_text(encoding="utf-8")
    blocks = _printed_solutions()
    assert len(blocks) == 3
    for block in blocks:
        exec(block, scope)
        assert block in solved
    for number, name in FUNCTIONS.items():
        check(number, scope[name])
        assert capsys.readouterr().out == f"Exercise {number}: right\n"


@pytest.mark.parametrize("number", FUNCTIONS)
def test_stub_is_not_begun(number, capsys):
    def stub(*_):
        raise NotImplementedError

    check(number, stub)
    assert capsys.readouterr().out == f"Exercise {number}: not begun yet\n"


def _by_finding(train, test, same):
    return {same.get(name, name): name for name in train}, {same.get(name, name): name for name in test}


def _gap(y, home, away, patients, n_boot, rng, films=False, unpaired=False, keep_nan=False, ends=(2.5, 97.5), once=False):
    def score(rows, p):
        return roc_auc_score(y[rows], p[rows]) if len(set(y[rows])) == 2 else np.nan

    def draw():
        if films:
            return rng.integers(len(y), size=len(y))
        people = np.unique(patients)
        drawn = rng.choice(people, len(people))
        drawn = np.unique(drawn) if once else drawn
        return np.concatenate([np.flatnonzero(patients == p) for p in drawn])

    draws = []
    for _ in range(n_boot):
        rows = draw()
        draws.append(score(rows, home) - score(draw() if unpaired else rows, away))
    ends = (np.percentile if keep_nan else np.nanpercentile)(draws, ends)
    everything = np.arange(len(y))
    return score(everything, home) - score(everything, away), *ends


WRONG = [
    ("9.1", lambda a, b, s: [(x, x) for x in a if x in b], "look both names up"),
    ("9.1", lambda a, b, s: [(x, x) for x in a if x in {s.get(y, y) for y in b}], "the test benchmark itself uses"),
    ("9.1", lambda a, b, s: [(x, y) for y in b for x in a if s.get(x, x) == s.get(y, y)], "keep the order of train"),
    ("9.1", lambda a, b, s: [(y, x) for x in a for y in b if s.get(x, x) == s.get(y, y)], "the other way round"),
    ("9.1", lambda a, b, s: [(x, y) for x in a for y in b if x == s.get(y, y)], "on the training side too"),
    ("9.1", lambda a, b, s: list(zip(a, b, strict=True)), "no pair of one finding"),
    ("9.1", lambda a, b, s: None, "returns nothing"),
    ("9.1", lambda a, b, s: ["Effusion"], "give a list of pairs"),
    ("9.2", lambda p, c: math.floor(math.log(1 - c) / math.log(1 - p)), "round up"),
    ("9.2", lambda p, c: math.floor(math.log(1 - c) / math.log(1 - p)) + 1, "already sure enough"),
    ("9.2", lambda p, c: math.ceil(math.log(c) / math.log(1 - p)), "nobody has the finding"),
    ("9.2", lambda p, c: math.ceil(1 / p), "on average"),
    ("9.2", lambda p, c: math.log(1 - c) / math.log(1 - p), "whole number"),
    ("9.3", lambda y, h, a, *r: _gap(y, a, h, *r), "wrong sign"),
    ("9.3", lambda *a: _gap(*a, unpaired=True), "on the same resample"),
    ("9.3", lambda *a: _gap(*a, films=True), "draw patients"),
    ("9.3", lambda *a: _gap(*a, ends=(25, 75)), "too narrow"),
    ("9.3", lambda *a: _gap(*a, ends=(75, 97.5)), "does not hold the gap"),
    ("9.3", lambda *a: _gap(*a, keep_nan=True), "leave such resamples out"),
    ("9.3", lambda *a: _gap(*a)[0], "give three numbers"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_typical_mistakes_get_their_hint(number, answer, hint, capsys):
    check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"Exercise {number}: not yet right: ")
    assert re.search(hint, out), out

"""Checks of the exercises of notebooks 02 and 03: right answers pass, typical mistakes get their own hint."""

import re
from pathlib import Path

import numpy as np
import pytest

from medbridge.course import check

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "sources"
NAMES = ("02_films_labels_splits.py", "03_focal_sampling.py")
FUNCTIONS = (
    "masked_prevalence", "patients_in_two_splits", "auc_by_pairs", "number_of_windows", "relative_boxes",
    "largest_crop",
)  # fmt: skip
EXERCISES = ("2.1", "2.2", "2.3", "3.1", "3.2", "3.3")


def _printed_solutions(name):
    """Code of the notebook's collapsed solutions, one string an exercise."""
    blocks = re.findall(r"^# ```python\n(.*?)^# ```$", (SOURCES / name).read_text(encoding="utf-8"), re.S | re.M)
    return ["\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines()) for block in blocks]


def _answers():
    scope = {"np": np}
    exec("import math", scope)
    for name in NAMES:
        for block in _printed_solutions(name):
            exec(block, scope)
    return dict(zip(EXERCISES, (scope[name] for name in FUNCTIONS), strict=True))


@pytest.mark.parametrize("number", EXERCISES)
def test_printed_solution_is_right(number, capsys):
    check(number, _answers()[number])
    assert capsys.readouterr().out == f"Exercise {number}: right\n"


@pytest.mark.parametrize("name", NAMES)
def test_printed_solution_is_that_of_the_solution_notebook(name):
    solved = (SOURCES / "solutions" / name).read_text(encoding="utf-8")
    blocks = _printed_solutions(name)
    assert len(blocks) == 3
    for block in blocks:
        assert block in solved


@pytest.mark.parametrize("number", EXERCISES)
def test_stub_is_not_begun(number, capsys):
    def stub(*_):
        raise NotImplementedError

    check(number, stub)
    assert capsys.readouterr().out == f"Exercise {number}: not begun yet\n"


def _splits(table):
    return table.groupby("patient_id", sort=False)["split"].nunique()


def _pairs(y, scores, tie):
    difference = scores[y == 1][:, None] - scores[y == 0][None, :]
    return np.mean((difference > 0) + tie * (difference == 0)) if difference.size else np.nan


def _side(height, width, crop):
    return crop * min(height, width)


def _steps(length, side, overlap):
    return (length - side) / (side * (1 - overlap))


def _windows(height, width, crop, overlap, around=np.ceil, more=1, side=_side):
    n = [around(_steps(length, side(height, width, crop), overlap)) + more for length in (height, width)]
    return int(n[0] * n[1])


WRONG = [
    ("2.1", lambda v: np.nan_to_num(v).mean(axis=0), "counted as negative"),
    ("2.1", lambda v: v.mean(axis=0), "came out as NaN"),
    ("2.1", lambda v: np.nanmean(v), "one share a label"),
    ("2.1", lambda v: np.nan_to_num(v).sum(axis=0) / np.maximum(1, (v == v).sum(axis=0)), "nothing is known: return NaN"),
    ("2.1", lambda v: None, "returns nothing"),
    ("2.2", lambda t: sorted(t["patient_id"][t["patient_id"].duplicated()].unique()), "count different splits"),
    ("2.2", lambda t: list(_splits(t).loc[lambda n: n > 1].index), "not sorted"),
    ("2.2", lambda t: sorted(t["patient_id"][t["patient_id"].map(_splits(t)) > 1]), "more than once"),
    ("2.2", lambda t: list(_splits(t).loc[lambda n: n == 2].index), "look at all splits"),
    ("2.3", lambda y, s: _pairs(y, s, 0.0), "counted as lost"),
    ("2.3", lambda y, s: _pairs(y, s, 1.0), "counted as won"),
    ("2.3", lambda y, s: _pairs(1 - y, s, 0.5), "1 - AUC"),
    ("2.3", lambda y, s: _pairs(y, s, 0.5) if 0 < y.sum() < len(y) else 0.5, "there is no pair: return NaN"),
    ("3.1", lambda *a: _windows(*a, around=np.floor), "round the number of steps up"),
    ("3.1", lambda *a: _windows(*a, more=0), r"n steps make n \+ 1"),
    ("3.1", lambda *a: _windows(*a) + 1, "whole view is not a window"),
    ("3.1", lambda *a: _windows(*a, side=lambda h, w, c: c * h), "side \\* \\(1 - overlap\\)|short side"),
    ("3.2", lambda b, h, w: b / np.array([w, h, w, h]), "stretches"),
    ("3.2", lambda b, h, w: b / max(h, w), "subtract its corner"),
    ("3.2", lambda b, h, w: (b - np.array([(w - max(h, w)) / 2, (h - max(h, w)) / 2] * 2)) / min(h, w), "above 1"),
    ("3.2", lambda b, h, w: b[0], r"give \(N, 4\)"),
    ("3.3", lambda d, p, r, s: d * r / (p * s), "at most 1"),
    ("3.3", lambda d, p, r, s: min(1.0, p * s / (d * r)), "upside down"),
    ("3.3", lambda d, p, r, s: d * r / s, "divide by the width that is wanted"),
    ("3.3", lambda d, p, r, s: None, "give one number"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_typical_mistakes_get_their_hint(number, answer, hint, capsys):
    check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"Exercise {number}: not yet right: ")
    assert re.search(hint, out), out

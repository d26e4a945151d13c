"""Checks of the exercises of notebook 13: right answers pass, typical mistakes get their own hint."""

import re
from pathlib import Path

import numpy as np
import pytest

from medbridge.course import check

SOURCE = Path(__file__).resolve().parents[2] / "notebooks" / "sources" / "13_beyond_the_paper.py"
FUNCTIONS = {"13.1": "overlap", "13.2": "nearest", "13.3": "best_threshold"}


def _printed_solutions():
    """Code of the notebook's collapsed solutions."""
    blocks = re.findall(r"^# ```python\n(.*?)^# ```$", SOURCE.read_text(encoding="utf-8"), re.S | re.M)
    return ["\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines()) for block in blocks]


def test_printed_solutions_are_right_and_those_of_the_solution_notebook(capsys):
    scope = {"np": np}
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


def _both(a, b):
    known = ~np.isnan(a) & ~np.isnan(b)
    return a[known], b[known]


def _shared(a, b):
    a, b = _both(a, b)
    return (a * b).sum()


def _ignores_unknown(a, b):
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    return (a * b).sum() / (a + b > 0).sum() if (a + b).any() else 1.0


def _no_finding_is_zero(a, b):
    a, b = _both(a, b)
    return (a * b).sum() / max(1, (a + b > 0).sum())


def _cosine(q, v):
    return v @ q / np.linalg.norm(v, axis=1) / np.linalg.norm(q)


def _without(patient, patients, score):
    return np.where(patients == patient, -np.inf, score)


def _plain(d, change):
    tried = np.linspace(0, 4, 200)
    return tried[np.argmax([(np.where(np.abs(d) > t, np.sign(d), 0) == change).mean() for t in tried])]


WRONG = [
    ("13.1", _shared, "divide it by the number"),
    ("13.1", lambda a, b: np.mean(_both(a, b)[0] == _both(a, b)[1]), "shared absences are counted"),
    ("13.1", _ignores_unknown, "unknown"),
    ("13.1", _no_finding_is_zero, "wholly alike"),
    ("13.1", lambda a, b: None, "give one number"),
    ("13.1", lambda a, b: 0.7, "have the overlap 0.500"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_cosine(q, v))[:k], "the query's own patient"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_without(p, ps, _cosine(q, v)))[:k][::-1], "the nearest comes first"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_without(p, ps, v @ q))[:k], "lengths count"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_without(p, ps, -np.linalg.norm(v - q, axis=1)))[:k], "lengths count"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_cosine(q, v[ps != p]))[:k], "row numbers shifted"),
    ("13.2", lambda q, p, v, ps, k: np.argsort(-_without(p, ps, -_cosine(q, v)))[:k], "least alike"),
    ("13.2", lambda q, p, v, ps, k: None, "row numbers"),
    ("13.3", _plain, "nearly always right"),
    ("13.3", lambda d, c: 0.0, "has the recalls"),
    ("13.3", lambda d, c: -1.0, "not negative"),
    ("13.3", lambda d, c: [1.0], "one number"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_typical_mistakes_get_their_hint(number, answer, hint, capsys):
    check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"Exercise {number}: not yet right: ")
    assert re.search(hint, out), out

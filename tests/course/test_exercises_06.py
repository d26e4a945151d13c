"""Checks of the exercises of notebook 06: right answers pass, typical mistakes get their own hint."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from medbridge.course import check

SOURCE = Path(__file__).resolve().parents[2] / "notebooks" / "sources" / "06_assembling_and_training.py"
FUNCTIONS = {"6.1": "loss_gradient", "6.2": "rate", "6.3": "early_stopping"}


def _printed_solutions():
    """Code of the notebook's collapsed solutions."""
    blocks = re.findall(r"^# ```python\n(.*?)^# ```$", SOURCE.read_text(encoding="utf-8"), re.S | re.M)
    return ["\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines()) for block in blocks]


def test_printed_solutions_are_right_and_those_of_the_solution_notebook(capsys):
    scope = {"np": np, "math": math}
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


def _p(z):
    return 1 / (1 + np.exp(-z))


def _gradient(z, y, m, over=None):
    return np.where(m, _p(z) - y, 0) / (max(1, m.sum()) if over is None else over)


def _rate(t, s, u, first=1, floor=0.01, late=True):
    r = max(1, int(u * s))
    if t < r:
        return (t + first) / r
    along = (t - r) / max(1, s - r) if late else t / s
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along))


def _stop(aucs, patience, better=lambda a, b: a > b, extra=0, last=False, total=0):
    best = 0
    for epoch, value in enumerate(aucs):
        best = epoch if better(value, aucs[best]) else best
        if epoch - best >= patience + extra:
            break
    return (epoch if last else best), epoch + 1 + total


WRONG = [
    ("6.1", lambda z, y, m: -_gradient(z, y, m), "the sign is turned"),
    ("6.1", lambda z, y, m: (_p(z) - y) / m.sum(), "it must contribute nothing"),
    ("6.1", lambda z, y, m: _gradient(z, y, m, m.size), "not by that of all"),
    ("6.1", lambda z, y, m: _gradient(z, y, m, len(z)), "not by that of films"),
    ("6.1", lambda z, y, m: _gradient(z, y, m, 1), "the loss is a mean"),
    ("6.1", lambda z, y, m: np.where(m, z - y, 0) / m.sum(), "not the logit itself"),
    ("6.1", lambda z, y, m: _gradient(z, y, m) * _p(z) * (1 - _p(z)), r"factor p \(1 - p\)"),
    ("6.1", lambda z, y, m: np.where(m, _p(z) - y, np.nan), "set those of unknown labels to 0"),
    ("6.1", lambda z, y, m: np.where(m, _p(z) - y, 0.0) / np.float64(m.sum()), "do not divide by 0"),
    ("6.1", lambda z, y, m: _gradient(z, y, m) + 0.1 * m, "you give"),
    ("6.1", lambda z, y, m: 0.0, "one derivative for each logit"),
    ("6.2", lambda t, s, u: _rate(t, s, u, first=0), "be wasted"),
    ("6.2", lambda t, s, u: _rate(t, s, 0, late=False) if t else 1.0, "the warm-up is missing"),
    ("6.2", lambda t, s, u: _rate(t, s, u, floor=0), "ends near 0.01"),
    ("6.2", lambda t, s, u: _rate(t, s, u, late=False), "begins after the warm-up"),
    ("6.2", lambda t, s, u: 2 * _rate(t, s, u), "compare with the equation"),
    ("6.2", lambda t, s, u: None, "give one number"),
    ("6.3", lambda a, p: (int(np.argmax(a)), _stop(a, p)[1]), "never trained"),
    ("6.3", lambda a, p: _stop(a, p, last=True), "you keep the last epoch"),
    ("6.3", lambda a, p: _stop(a, p, better=lambda x, b: x >= b), "patience counts from the best|first is kept"),
    ("6.3", lambda a, p: _stop(a, p, extra=1), "one epoch too long"),
    ("6.3", lambda a, p: _stop(a, p, total=-1), "the last one included"),
    ("6.3", lambda a, p: (_stop(a, p)[0], len(a)), "it never stops"),
    ("6.3", lambda a, p: 3, "give two whole numbers"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_typical_mistakes_get_their_hint(number, answer, hint, capsys):
    check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"Exercise {number}: not yet right: ")
    assert re.search(hint, out), out

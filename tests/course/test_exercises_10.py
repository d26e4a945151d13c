"""Checks of the exercises of notebook 10: right answers pass, typical mistakes get their own hint."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medbridge.course import check

SOURCE = Path(__file__).resolve().parents[2] / "notebooks" / "sources" / "10_ablations.py"
FUNCTIONS = {"10.1": "trainings", "10.2": "holm_adjusted", "10.3": "interaction"}


def test_printed_solutions_are_right_and_those_of_the_solution_notebook(capsys):
    scope = {"np": np, "math": math, "roc_auc_score": roc_auc_score}
    solved = (SOURCE.parent / "solutions" / SOURCE.name).read_text(encoding="utf-8")
    blocks = re.findall(r"^# ```python\n(.*?)^# ```$", SOURCE.read_text(encoding="utf-8"), re.S | re.M)
    assert len(blocks) == 3
    for block in blocks:
        code = "\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines())
        exec(code, scope)
        assert code in solved
    for number, name in FUNCTIONS.items():
        check(number, scope[name])
        assert capsys.readouterr().out == f"Exercise {number}: right\n"


@pytest.mark.parametrize("number", FUNCTIONS)
def test_stub_is_not_begun(number, capsys):
    def stub(*_):
        raise NotImplementedError

    check(number, stub)
    assert capsys.readouterr().out == f"Exercise {number}: not begun yet\n"


def _steps(p, factor=lambda k: np.arange(k, 0, -1), back=True, monotone=True):
    order = np.argsort(p)
    steps = p[order] * factor(len(p))
    steps = np.maximum.accumulate(steps) if monotone else steps
    out = np.empty(len(p))
    out[order if back else slice(None)] = steps
    return np.minimum(1, out)


def _bh(p):
    order = np.argsort(p)
    out = np.empty(len(p))
    out[order] = np.minimum.accumulate((p[order] * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    return out


def _effect(y, scores, patients, n_boot, rng, films=False, unpaired=False, keep_nan=False, ends=(2.5, 97.5), once=False,
            of=lambda a: a[1][1] - a[0][1] - a[1][0] + a[0][0]):
    def score(rows, p):
        return roc_auc_score(y[rows], p[rows]) if len(set(y[rows])) == 2 else np.nan

    def draw():
        if films:
            return rng.integers(len(y), size=len(y))
        people = np.unique(patients)
        drawn = rng.choice(people, len(people))
        return np.concatenate([np.flatnonzero(patients == p) for p in (np.unique(drawn) if once else drawn)])

    draws = []
    for _ in range(n_boot):
        rows = draw()
        draws.append(of([[score(draw() if unpaired else rows, p) for p in row] for row in scores]))
    ends = (np.percentile if keep_nan else np.nanpercentile)(draws, ends)
    everything = np.arange(len(y))
    return of([[score(everything, p) for p in row] for row in scores]), *ends


WRONG = [
    ("10.1", lambda n, s: (s * math.prod(n), s * (1 + sum(n) - len(n))), "other way round"),
    ("10.1", lambda n, s: (1 + sum(n) - len(n), math.prod(n)), "for every seed"),
    ("10.1", lambda n, s: (s * sum(n), s * math.prod(n)), "share one default"),
    ("10.1", lambda n, s: (s * (sum(n) - len(n)), s * math.prod(n)), "trained too"),
    ("10.1", lambda n, s: (1 + s * (sum(n) - len(n)), s * math.prod(n)), "every seed too"),
    ("10.1", lambda n, s: (s * (1 + sum(n) - len(n)), s * sum(n)), "multiply in a factorial"),
    ("10.1", lambda n, s: (s * (1 + sum(n) - len(n)), s * 2 ** len(n)), "each combination"),
    ("10.1", lambda n, s: s * math.prod(n), "give two numbers"),
    ("10.2", lambda p: np.minimum(1, len(p) * p), "Bonferroni"),
    ("10.2", lambda p: _steps(p, monotone=False), "running maximum"),
    ("10.2", lambda p: _steps(p, back=False), "sorted; put each back"),
    ("10.2", lambda p: _steps(p, lambda k: np.arange(1, k + 1), monotone=False), "not by 1"),
    ("10.2", _bh, "Benjamini"),
    ("10.2", lambda p: p, "nothing was corrected"),
    ("10.2", lambda p: None, "returns nothing"),
    ("10.2", lambda p: p[:2], "one number a p-value"),
    ("10.2", lambda p: np.where(p > 0.5, p * 7, p), "Holm's are"),
    ("10.3", lambda *a: _effect(*a, of=lambda v: v[0][1] + v[1][0] - v[0][0] - v[1][1]), "sign is wrong"),
    ("10.3", lambda *a: _effect(*a, of=lambda v: v[1][1] - v[0][0]), "each brings alone"),
    ("10.3", lambda *a: _effect(*a, of=lambda v: v[1][1] - v[0][1]), "effect of the first factor"),
    ("10.3", lambda *a: _effect(*a, of=lambda v: v[1][1] - v[1][0]), "effect of the second factor"),
    ("10.3", lambda *a: _effect(*a, of=lambda v: v[1][1]), r"\(AUC11 - AUC01\)"),
    ("10.3", lambda *a: _effect(*a, unpaired=True), "on the same resample"),
    ("10.3", lambda *a: _effect(*a, films=True), "draw patients"),
    ("10.3", lambda *a: _effect(*a, ends=(25, 75)), "too narrow"),
    ("10.3", lambda *a: _effect(*a, ends=(75, 97.5)), "does not hold the value"),
    ("10.3", lambda *a: _effect(*a, keep_nan=True), "leave such resamples out"),
    ("10.3", lambda *a: _effect(*a)[0], "give three numbers"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_typical_mistakes_get_their_hint(number, answer, hint, capsys):
    check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"Exercise {number}: not yet right: ")
    assert re.search(hint, out), out


def test_holm_must_not_pass_one(capsys):
    def unclipped(p):
        order = np.argsort(p)
        out = np.empty(len(p))
        out[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
        return out

    check("10.2", unclipped)
    assert "at most 1" in capsys.readouterr().out

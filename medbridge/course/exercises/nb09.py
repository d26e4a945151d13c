"""Checks of notebook 09: shared labels, the patients that a rare finding asks for, a paired gap between two models. [ours]"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medbridge.course.exercises.register import AnswerError, exercise
from medbridge.metrics.evaluate import auc, paired_difference

_SAME = {"Pleural Effusion": "Effusion", "Pleural_Thickening": "Pleural Thickening"}


@exercise("9.1")
def pairs(answer: Callable[[Sequence[str], Sequence[str], Mapping[str, str]], list[tuple[str, str]]]) -> None:
    """``answer(train, test, same)``: (train name, test name) of each finding that both name, in the order of train."""
    train, test = ["Mass", "Effusion", "Pneumonia", "Nodule"], ["Pneumonia", "Lung Opacity", "Pleural Effusion", "Fracture"]
    want = [("Effusion", "Pleural Effusion"), ("Pneumonia", "Pneumonia")]
    got = _pairs(answer(list(train), list(test), dict(_SAME)))
    if set(got) == {("Effusion", "Effusion"), ("Pneumonia", "Pneumonia")}:
        raise AnswerError("the second name of a pair is the one that the test benchmark itself uses, here 'Pleural Effusion'")
    if got == [("Pneumonia", "Pneumonia")]:
        raise AnswerError("Effusion is missing: look both names up in `same` before you compare them")
    if {(b, a) for a, b in got} == set(want):
        raise AnswerError("each pair is the other way round; the training name comes first")
    if got != want and set(got) == set(want):
        raise AnswerError("the pairs are right but in the order of test; keep the order of train, as the model's columns have it")
    if len(got) > 2:
        raise AnswerError(f"{sorted(set(got) - set(want))[0]} is no pair of one finding; {train} and {test} share two findings")
    if got != want:
        raise AnswerError(f"{train} and {test} share {want}, and you give {got}")
    # the dictionary may be needed on the side of training, or on both
    back = _pairs(answer(list(test), list(train), dict(_SAME)))
    if back != [("Pneumonia", "Pneumonia"), ("Pleural Effusion", "Effusion")]:
        raise AnswerError("it fails with the two benchmarks exchanged: look names up on the training side too")
    if _pairs(answer(["Hernia"], ["Mass"], dict(_SAME))) != []:
        raise AnswerError("where nothing is shared, return an empty list")


def _pairs(got: object) -> list[tuple[str, str]]:
    if got is None:
        raise AnswerError("the function returns nothing; return a list of pairs of names")
    try:
        return [(str(a), str(b)) for a, b in got]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise AnswerError(f"give a list of pairs (training name, test name); you give {got!r}") from None


@exercise("9.2")
def patients_needed(answer: Callable[[float, float], int]) -> None:
    """``answer(prevalence, sure)``: fewest patients so that one with the finding is drawn with this probability."""
    for prevalence, sure in ((0.1, 0.8), (0.01, 0.95), (0.5, 0.9), (0.5, 0.75), (0.002, 0.99)):
        got = answer(prevalence, sure)
        if got is None or np.ndim(got) != 0:
            raise AnswerError("give one whole number: how many patients")
        exact = math.log(1 - sure) / math.log(1 - prevalence)
        want = math.ceil(exact - 1e-9)
        if got == want:
            continue
        rounded = {
            math.ceil(math.log(sure) / math.log(1 - prevalence)):
                "(1 - p)^n is the probability that nobody has the finding; it must be at most 1 - sure",
            math.ceil(1 / prevalence): "1 / p patients hold one positive on average, and often none; ask for a probability",
            math.ceil(sure / prevalence): "probabilities of many patients do not add up; multiply those of having nothing",
            want - 1: "round up: one patient fewer is not sure enough",
            want + 1: "one patient fewer is already sure enough; 'at least' includes equality",
        }
        hint = "give a whole number" if math.isclose(got, exact) else rounded.get(int(got), "solve (1 - p)^n <= 1 - sure for n")
        raise AnswerError(f"a finding of {100 * prevalence:g} %, {100 * sure:g} % sure: {want} patients, you say {got:g}; {hint}")


@exercise("9.3")
def paired_gap(answer: Callable[..., tuple[float, float, float]]) -> None:
    """``answer(y, home, away, patients, n_boot, rng)``: AUC of home minus away, and its 95 % interval, paired by patient."""
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(60), 4)
    y = np.repeat((rng.random(60) < 0.4).astype(int), 4)
    person = np.repeat(rng.standard_normal(60), 4)  # a hard patient is hard on every film, and for both models
    home = 1.2 * y + person + 0.3 * rng.standard_normal(240)
    away = 0.4 * y + person + 0.3 * rng.standard_normal(240)
    gap, lo, hi = _gap(answer(y.copy(), home.copy(), away.copy(), patients.copy(), 400, np.random.default_rng(0)))
    true = float(auc(y, home)[0] - auc(y, away)[0])
    if math.isclose(gap, -true, abs_tol=1e-9):
        raise AnswerError("the gap has the wrong sign: take home minus away, so that a loss by moving is positive")
    if not math.isclose(gap, true, abs_tol=1e-9):
        raise AnswerError(f"the gap itself is {true:.4f}, the AUC of home minus that of away on all films; you give {gap:.4f}")
    if not lo < gap < hi:
        raise AnswerError(f"your interval [{lo:.3f}, {hi:.3f}] does not hold the gap {gap:.3f}; take percentiles 2.5 and 97.5")
    same = _gap(answer(y.copy(), home.copy(), home.copy(), patients.copy(), 100, np.random.default_rng(0)))
    if abs(same[1]) > 1e-9 or abs(same[2]) > 1e-9:
        raise AnswerError(
            f"two equal models differ by nothing in every resample, but your interval is [{same[1]:.3f}, {same[2]:.3f}]; "
            "score both on the same resample")
    share = {kind: (hi - lo) / _width(y, home, away, patients if kind == "patients" else np.arange(240))
             for kind in ("patients", "films")}
    if abs(share["films"] - 1) < min(0.25, abs(share["patients"] - 1)):
        raise AnswerError("your interval is as narrow as if every film were a patient; draw patients, with all their films")
    if not 0.75 < share["patients"] < 1.35:
        wide = "wide" if share["patients"] > 1 else "narrow"
        raise AnswerError(
            f"your interval is {share['patients']:.2f} times as long as it should be, too {wide}; draw as many patients as "
            "there are, with replacement; a patient drawn twice brings its films twice; take percentiles 2.5 and 97.5")
    few = np.zeros(8, dtype=int)
    few[:2] = 1
    found = _gap(answer(few, np.arange(8.0), np.arange(8.0)[::-1].copy(), np.arange(8), 200, np.random.default_rng(1)))
    if not np.isfinite(found).all():
        raise AnswerError("a resample without a positive film has no AUC; leave such resamples out of the percentiles")


def _gap(got: object) -> tuple[float, float, float]:
    if got is None or np.shape(got) != (3,):
        raise AnswerError("give three numbers: the gap, and the lower and upper end of its interval")
    gap, lo, hi = (float(v) for v in got)  # type: ignore[attr-defined]
    return gap, lo, hi


def _width(y: np.ndarray, home: np.ndarray, away: np.ndarray, groups: np.ndarray) -> float:
    d = paired_difference(y, home, away, groups=groups, n_boot=1000, seed=3)
    return d.hi - d.lo

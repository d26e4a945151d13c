"""Checks of notebook 13: overlap of findings, nearest films of other patients, a threshold for change. [ours]"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medbridge.course.exercises.register import AnswerError, exercise
from medbridge.extras.change import balanced_accuracy, tell_change


@exercise("13.1")
def overlap(answer: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """``answer(a, b)``: Jaccard index of two films' labels, 1 / 0 / NaN, over the labels known of both."""
    nan = np.nan
    cases = [([1, 1, 0], [1, 0, 0], 1 / 2), ([1, 0, 0], [0, 1, 0], 0.0), ([0, 0, 0], [0, 0, 0], 1.0),
             ([1, 1, nan], [1, 0, 1], 1 / 2), ([1, nan, 0, 1], [1, 1, nan, 1], 1.0)]
    for a, b, want in cases:
        a, b = np.array(a, dtype=float), np.array(b, dtype=float)
        got = answer(a.copy(), b.copy())
        if got is None or np.ndim(got) != 0:
            raise AnswerError("give one number between 0 and 1")
        if np.isclose(got, want):
            continue
        if want == 1.0 and not a.any():
            raise AnswerError(f"two films without any finding are wholly alike: 1, you give {got}; mind the division of 0 by 0")
        known = ~np.isnan(a) & ~np.isnan(b)
        if np.isnan(got) or np.isclose(got, np.nansum(a * b) / max(1, ((np.nan_to_num(a) + np.nan_to_num(b)) > 0).sum())):
            raise AnswerError(f"{a} and {b}: a label that is unknown (NaN) of one of them counts nowhere; leave it out first")
        if np.isclose(got, (a == b)[known].mean()):
            raise AnswerError("shared absences are counted; most films lack most findings, so all films would be called alike")
        if np.isclose(got, (a * b)[known].sum()):
            raise AnswerError("that is the number of shared findings; divide it by the number of findings that either film has")
        raise AnswerError(f"{a} and {b} have the overlap {want:.3f}, and you give {got:.3f}")


@exercise("13.2")
def nearest(answer: Callable[[np.ndarray, str, np.ndarray, np.ndarray, int], np.ndarray]) -> None:
    """``answer(query, patient, vectors, patients, k)``: rows of other patients' k nearest films by cosine, nearest first."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(40, 6)) * rng.uniform(0.2, 5, (40, 1))
    patients = np.array([f"p{i // 2}" for i in range(40)])
    query = 3 * vectors[10] + 0.05 * rng.normal(size=6)  # the same film, taken brighter
    for patient, k in (("p5", 4), ("nobody", 3)):
        got = answer(query.copy(), patient, vectors.copy(), patients.copy(), k)
        if got is None or np.shape(got) != (k,):
            raise AnswerError(f"give {k} row numbers; you give {np.shape(got) if got is not None else None}")
        got = [int(i) for i in got]
        cosine = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        others = np.where(patients == patient, -np.inf, cosine)
        want = np.argsort(-others)[:k].tolist()
        if got == want:
            continue
        if patient == "p5" and {10, 11} & set(got):
            raise AnswerError("row 10 or 11 is a film of the query's own patient; leave all films of that patient out")
        if got == np.argsort(np.where(patients == patient, np.inf, others))[:k].tolist():
            raise AnswerError("these are the films that are least alike; sort by falling cosine")
        if got == want[::-1] or set(got) == set(want):
            raise AnswerError("the right films in another order; the nearest comes first")
        distance = np.where(patients == patient, np.inf, np.linalg.norm(vectors - query, axis=1))
        product = np.where(patients == patient, -np.inf, vectors @ query)
        if got in (np.argsort(distance)[:k].tolist(), np.argsort(-product)[:k].tolist()):
            raise AnswerError("lengths count in your answer; the cosine compares directions: divide by both lengths")
        if max(got) < 40 - 2 and got == np.argsort(-np.delete(cosine, [10, 11]))[:k].tolist():
            raise AnswerError("row numbers shifted: they must be rows of `vectors`, not of what is left of it")
        raise AnswerError(f"the nearest are the rows {want}, and you give {got}")


@exercise("13.3")
def threshold(answer: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """``answer(d, change)``: t for which |d| > t tells new (+1), resolved (-1), unchanged (0) with the best mean recall."""
    for seed, shift in ((0, 2.0), (1, 1.2)):
        rng = np.random.default_rng(seed)
        change = rng.choice([-1, 0, 1], size=600, p=[0.06, 0.88, 0.06])
        d = shift * change + rng.normal(size=600)
        got = answer(d.copy(), change.copy())
        if got is None or np.ndim(got) != 0 or not np.isfinite(got):
            raise AnswerError("give one number: the threshold")
        known = np.ones(600, dtype=bool)

        def merit(t: float) -> float:
            return balanced_accuracy(tell_change(d, t), change, known)  # noqa: B023

        tried = np.linspace(0, 4, 400)
        best = max(merit(t) for t in tried)
        if merit(float(got)) >= best - 0.01:
            continue
        if got < 0:
            raise AnswerError("the threshold is a size: |d| is compared with it, so it is not negative")
        plain = tried[int(np.argmax([(tell_change(d, t) == change).mean() for t in tried]))]
        if abs(got - plain) < 0.15 or got > np.abs(d).max():
            raise AnswerError("that is the best share of right answers, and 'unchanged' is nearly always right; "
                              "take the mean of the three recalls")
        found = {name: (tell_change(d, float(got)) == c)[change == c].mean()
                 for name, c in (("resolved", -1), ("unchanged", 0), ("new", 1))}
        said = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        raise AnswerError(f"t = {got:.2f} has the recalls {said}, mean {merit(float(got)):.2f}; {best:.2f} can be had")

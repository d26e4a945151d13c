"""Checks of notebook 13: overlap of findings, nearest films of other patients, a threshold for change."""

import numpy as np

from medbridge.course.exercises import Answer, close, exercise
from medbridge.extras.change import balanced_accuracy, tell_change


@exercise("13.1")
def overlap(answer: Answer) -> None:
    for a, b, want in (([1, 1, 0], [1, 0, 0], 1 / 2), ([1, 0, 0], [0, 1, 0], 0.0), ([0, 0, 0], [0, 0, 0], 1.0),
                       ([1, 1, np.nan], [1, 0, 1], 1 / 2), ([1, np.nan, 0, 1], [1, 1, np.nan, 1], 1.0)):
        a, b = np.array(a, dtype=float), np.array(b, dtype=float)
        got, known, shared = answer.ask(a, b), ~np.isnan(a) & ~np.isnan(b), np.nansum(a * b)
        either = max(1, ((np.nan_to_num(a) + np.nan_to_num(b)) > 0).sum())
        answer.compare(got, want, f"the overlap of {a} and {b}", no_finding=not a.any(),
                       unknown=np.isnan(got) or close(got, shared / either), absences=(a == b)[known].mean(), count=shared)


@exercise("13.2")
def nearest(answer: Answer) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(40, 6)) * rng.uniform(0.2, 5, (40, 1))
    patients = np.array([f"p{i // 2}" for i in range(40)])
    query = 3 * vectors[10] + 0.05 * rng.normal(size=6)  # the same film, taken brighter
    cosine = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    for patient, k in (("p5", 4), ("nobody", 3)):
        got = answer.ask(query, patient, vectors, patients, k, shape=(k,)).astype(int)
        own = patients == patient

        def first(score: np.ndarray) -> np.ndarray:
            return np.argsort(-np.where(own, -np.inf, score))[:k]  # noqa: B023

        want = first(cosine)
        answer.compare(got, want, "the rows of the nearest", rtol=0, own=own[got].any(), farthest=first(-cosine),
                       order=set(got) == set(want), distance=first(-np.linalg.norm(vectors - query, axis=1)),
                       lengths=first(vectors @ query), shifted=np.argsort(-np.delete(cosine, [10, 11]))[:k])


@exercise("13.3")
def threshold(answer: Answer) -> None:
    for seed, shift in ((0, 2.0), (1, 1.2)):
        rng = np.random.default_rng(seed)
        change = rng.choice([-1, 0, 1], size=600, p=[0.06, 0.88, 0.06])
        d = shift * change + rng.normal(size=600)
        got, tried = answer.ask(d, change), np.linspace(0, 4, 400)
        answer.refuse(infinite=not np.isfinite(got))
        merits = [balanced_accuracy(tell_change(d, t), change, np.ones(600, dtype=bool)) for t in (got, *tried)]
        if merits[0] >= max(merits) - 0.01:
            continue
        plain = tried[int(np.argmax([(tell_change(d, t) == change).mean() for t in tried]))]
        recalls = [(tell_change(d, got) == c)[change == c].mean() for c in (-1, 0, 1)]
        answer.refuse({"t": got, "recalls": recalls, "mean": merits[0], "best": max(merits)}, negative=got < 0,
                      accuracy=abs(got - plain) < 0.15 or got > np.abs(d).max(), otherwise=True)

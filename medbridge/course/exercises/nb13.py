"""Checks of notebook 13: overlap of findings, nearest films of other patients, a threshold for change. [ours]"""

import numpy as np

from medbridge.course.exercises.register import Answer, ask, close, compare, exercise, refuse
from medbridge.extras.change import balanced_accuracy, tell_change


@exercise("13.1")
def overlap(answer: Answer) -> None:
    for a, b, want in (([1, 1, 0], [1, 0, 0], 1 / 2), ([1, 0, 0], [0, 1, 0], 0.0), ([0, 0, 0], [0, 0, 0], 1.0),
                       ([1, 1, np.nan], [1, 0, 1], 1 / 2), ([1, np.nan, 0, 1], [1, 1, np.nan, 1], 1.0)):
        a, b = np.array(a, dtype=float), np.array(b, dtype=float)
        got = ask(answer, a, b, give="one number between 0 and 1")
        known, shared = ~np.isnan(a) & ~np.isnan(b), np.nansum(a * b)
        compare(got, want, [
            (not a.any(), "two films without any finding are wholly alike; mind the division of 0 by 0"),
            (np.isnan(got) or close(got, shared / max(1, ((np.nan_to_num(a) + np.nan_to_num(b)) > 0).sum())),
             "a label that is unknown (NaN) of one of them counts nowhere; leave it out first"),
            ((a == b)[known].mean(), "shared absences are counted; most films lack most findings, so all would be called alike"),
            (shared, "that is the number of shared findings; divide it by the number of findings that either film has"),
        ], case=f"the overlap of {a} and {b}")


@exercise("13.2")
def nearest(answer: Answer) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(40, 6)) * rng.uniform(0.2, 5, (40, 1))
    patients = np.array([f"p{i // 2}" for i in range(40)])
    query = 3 * vectors[10] + 0.05 * rng.normal(size=6)  # the same film, taken brighter
    cosine = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    for patient, k in (("p5", 4), ("nobody", 3)):
        got = ask(answer, query, patient, vectors, patients, k, shape=(k,), give=f"{k} row numbers").astype(int)
        own = patients == patient

        def first(score: np.ndarray) -> np.ndarray:
            return np.argsort(-np.where(own, -np.inf, score))[:k]  # noqa: B023

        want = first(cosine)
        compare(got, want, [
            (own[got].any(), "row 10 or 11 is a film of the query's own patient; leave all films of that patient out"),
            (first(-cosine), "these are the films that are least alike; sort by falling cosine"),
            (set(got) == set(want), "the right films in another order; the nearest comes first"),
            (first(-np.linalg.norm(vectors - query, axis=1)),
             "lengths count in your answer; the cosine compares directions: divide by both lengths"),
            (first(vectors @ query), "lengths count in your answer; the cosine compares directions: divide by both lengths"),
            (np.argsort(-np.delete(cosine, [10, 11]))[:k], "row numbers shifted: give rows of `vectors`, not of what is left"),
        ], case="the rows of the nearest", rtol=0)


@exercise("13.3")
def threshold(answer: Answer) -> None:
    for seed, shift in ((0, 2.0), (1, 1.2)):
        rng = np.random.default_rng(seed)
        change = rng.choice([-1, 0, 1], size=600, p=[0.06, 0.88, 0.06])
        d = shift * change + rng.normal(size=600)
        got, tried = ask(answer, d, change, give="one number: the threshold"), np.linspace(0, 4, 400)
        refuse((not np.isfinite(got), "give one number: the threshold"))
        merits = [balanced_accuracy(tell_change(d, t), change, np.ones(600, dtype=bool)) for t in (got, *tried)]
        if merits[0] >= max(merits) - 0.01:
            continue
        plain = tried[int(np.argmax([(tell_change(d, t) == change).mean() for t in tried]))]
        recalls = ", ".join(f"{name} {(tell_change(d, got) == c)[change == c].mean():.2f}"
                            for name, c in (("resolved", -1), ("unchanged", 0), ("new", 1)))
        refuse(
            (got < 0, "the threshold is a size: |d| is compared with it, so it is not negative"),
            (abs(got - plain) < 0.15 or got > np.abs(d).max(),
             "that is the best share of right answers, and 'unchanged' is nearly always right; take the mean of the recalls"),
            (True, f"t = {got:.2f} has the recalls {recalls}, mean {merits[0]:.2f}; {max(merits):.2f} can be had"),
        )

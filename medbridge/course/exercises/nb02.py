"""Checks of notebook 02: labels with holes, patients in two splits, AUC by pairs. [ours]"""

import numpy as np
import pandas as pd

from medbridge.course.exercises.register import Answer, ask, compare, exercise, judge, refuse
from medbridge.metrics.evaluate import auc


@exercise("2.1")
def masked_prevalence(answer: Answer) -> None:
    values = np.array([[1, 0, np.nan], [np.nan, 0, np.nan], [0, 1, np.nan], [1, 0, np.nan]], dtype=np.float32)
    got = ask(answer, values, shape=(3,), give="one share per label: here (3,) for 4 films and 3 labels")
    compare(got[:2], [2 / 3, 1 / 4], [
        (np.isnan(got[0]), "a label with one unknown film came out as NaN; leave unknown films out of the sum"),
        (np.isclose(got[0], 2 / 4), "unknown films were counted as negative; divide by the number of known films of the label"),
    ], "divide the positives of each label by its own known films", "labels with 2 of 3 and 1 of 4 known films positive")
    compare(got[2], np.nan, [], "nothing is known: return NaN", "a label of which nothing is known")


@exercise("2.2")
def patients_in_two_splits(answer: Answer) -> None:
    # Eve has two films in one split and is fine; Di comes before Bo, and lies in all three splits.
    rows = [("Di", "train"), ("Eve", "val"), ("Bo", "train"), ("Di", "test"), ("Eve", "val"), ("Ann", "test"),
            ("Di", "val"), ("Bo", "val"), ("Cem", "train")]  # fmt: skip
    table = pd.DataFrame(rows, columns=["patient_id", "split"])
    got = answer(table.copy())
    refuse((got is None, "your function returns nothing; give a list of patients"))
    got = list(got)
    refuse(
        ("Eve" in got, "Eve has two films, but both in one split; count different splits, not films"),
        (set(got) != {"Bo", "Di"}, f"Bo and Di lie in more than one split, you give {got}; look at all splits of each patient"),
        (len(got) != 2, f"{got} names a patient more than once; give each patient one time"),
        (got != ["Bo", "Di"], f"{got} is not sorted; return the patients in order"),
    )
    clean = answer(table[table["patient_id"].isin(["Ann", "Eve"])].copy())
    refuse((clean is None or len(clean), f"for a table without such a patient you return {clean!r}; return an empty list"))


@exercise("2.3")
def auc_by_pairs(answer: Answer) -> None:
    y, scores = np.array([1, 0, 1, 0, 0]), np.array([0.7, 0.7, 0.9, 0.1, 0.8])  # 6 pairs: 4 won, 1 lost, 1 tied
    judge(answer, (y, scores), 4.5 / 6, [
        (4 / 6, "a tied pair was counted as lost; it counts one half"),
        (5 / 6, "a tied pair was counted as won; it counts one half"),
        (1 - 4.5 / 6, "this is 1 - AUC; a pair is in order where the positive film has the higher score"),
        (4 / 5, "tied pairs were left out; they count one half, and stay in the number of pairs"),
        (4.5, "divide by the number of pairs"),
        (4.5 / 25, "divide by the number of pairs of a positive and a negative film, not by all pairs"),
    ], case=f"the AUC of y={y.tolist()}, scores={scores.tolist()}", give="one number for one label")
    rng = np.random.default_rng(0)
    for _ in range(5):
        y, scores = rng.permutation(np.arange(40) % 3 == 0).astype(int), rng.integers(0, 6, 40) / 5
        judge(answer, (y, scores), auc(y, scores)[0], case="the AUC of 40 films with many ties")
    judge(answer, (np.ones(3, dtype=int), np.array([0.1, 0.2, 0.3])), np.nan, [], "there is no pair: return NaN",
          "three positive films and no negative one")

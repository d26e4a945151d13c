"""Checks of notebook 02: labels with holes, patients in two splits, AUC by pairs."""

import numpy as np
import pandas as pd

from medbridge.course.exercises import Answer, exercise
from medbridge.metrics.evaluate import auc


@exercise("2.1")
def masked_prevalence(answer: Answer) -> None:
    values = np.array([[1, 0, np.nan], [np.nan, 0, np.nan], [0, 1, np.nan], [1, 0, np.nan]], dtype=np.float32)
    got = answer.ask(values, shape=(3,))
    answer.compare(got[:2], [2 / 3, 1 / 4], "labels with 2 of 3 and 1 of 4 known films positive",
                   undefined=np.isnan(got[0]), unknown_is_negative=np.isclose(got[0], 2 / 4))
    answer.compare(got[2], np.nan, "a label of which nothing is known", otherwise="nothing_known")


@exercise("2.2")
def patients_in_two_splits(answer: Answer) -> None:
    # Eve has two films in one split and is fine; Di comes before Bo, and lies in all three splits.
    rows = [("Di", "train"), ("Eve", "val"), ("Bo", "train"), ("Di", "test"), ("Eve", "val"), ("Ann", "test"),
            ("Di", "val"), ("Bo", "val"), ("Cem", "train")]  # fmt: skip
    table = pd.DataFrame(rows, columns=["patient_id", "split"])
    got = answer(table)
    answer.refuse(nothing=got is None)
    got = list(got)
    answer.refuse({"got": got}, films="Eve" in got, others=set(got) != {"Bo", "Di"}, repeated=len(got) != 2,
                  unsorted=got != ["Bo", "Di"])
    clean = answer(table[table["patient_id"].isin(["Ann", "Eve"])])
    answer.refuse({"got": clean}, not_empty=clean is None or len(clean))


@exercise("2.3")
def auc_by_pairs(answer: Answer) -> None:
    y, scores = np.array([1, 0, 1, 0, 0]), np.array([0.7, 0.7, 0.9, 0.1, 0.8])  # 6 pairs: 4 won, 1 lost, 1 tied
    answer.judge((y, scores), 4.5 / 6, f"the AUC of y={y.tolist()}, scores={scores.tolist()}", tie_lost=4 / 6, tie_won=5 / 6,
                 reverse=1 - 4.5 / 6, ties_left_out=4 / 5, count=4.5, of_all_pairs=4.5 / 25)
    rng = np.random.default_rng(0)
    for _ in range(5):
        y, scores = rng.permutation(np.arange(40) % 3 == 0).astype(int), rng.integers(0, 6, 40) / 5
        answer.judge((y, scores), auc(y, scores)[0], "the AUC of 40 films with many ties")
    answer.judge((np.ones(3, dtype=int), np.array([0.1, 0.2, 0.3])), np.nan, "three positive films and no negative one",
                 otherwise="no_pair")

"""Checks of notebook 09: shared labels, the patients that a rare finding asks for, a paired gap between two models."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from medbridge.course.exercises import Answer, close, exercise
from medbridge.metrics.bootstrap import bootstrap_aucs
from medbridge.metrics.evaluate import auc


@exercise("9.1")
def pairs(answer: Answer) -> None:
    train, test = ["Mass", "Effusion", "Pneumonia", "Nodule"], ["Pneumonia", "Lung Opacity", "Pleural Effusion", "Fracture"]
    want = [("Effusion", "Pleural Effusion"), ("Pneumonia", "Pneumonia")]

    def shared(train: list[str], test: list[str]) -> list[tuple[str, str]]:
        got = answer(train, test, {"Pleural Effusion": "Effusion", "Pleural_Thickening": "Pleural Thickening"})
        answer.refuse(nothing=got is None)
        try:
            return [(str(a), str(b)) for a, b in got]
        except (TypeError, ValueError):
            return answer.refuse({"got": got}, no_pairs=True)

    got = shared(train, test)
    extra = sorted(set(got) - set(want))
    answer.refuse(
        {"train": train, "test": test, "want": want, "got": got, "extra": extra},
        training_name=set(got) == {("Effusion", "Effusion"), ("Pneumonia", "Pneumonia")},
        not_looked_up=got == [("Pneumonia", "Pneumonia")], reverse={(b, a) for a, b in got} == set(want),
        order=got != want and set(got) == set(want), no_pair=len(got) > 2 and extra, others=got != want,
        # the dictionary may be needed on the side of training, or on both
        one_side=got == want and shared(test, train) != [("Pneumonia", "Pneumonia"), ("Pleural Effusion", "Effusion")],
        not_empty=got == want and shared(["Hernia"], ["Mass"]))


@exercise("9.2")
def patients_needed(answer: Answer) -> None:
    for prevalence, sure in ((0.1, 0.8), (0.01, 0.95), (0.5, 0.9), (0.5, 0.75), (0.002, 0.99)):
        exact = math.log(1 - sure) / math.log(1 - prevalence)
        want = math.ceil(exact - 1e-9)
        answer.judge((prevalence, sure), want, f"a finding of {100 * prevalence:g} %, {100 * sure:g} % sure", rtol=0,
                     not_whole=exact, one_more=want + 1, one_less=want - 1, added=math.ceil(sure / prevalence),
                     on_average=math.ceil(1 / prevalence), nobody=math.ceil(math.log(sure) / math.log(1 - prevalence)))


@exercise("9.3")
def paired_gap(answer: Answer) -> None:
    judge_interval(answer, 5, np.array([1.2, 0.4]), lambda a: a[0] - a[1], lambda a: {"sign": a[1] - a[0]},
                   "the AUC of home minus that of away")


def judge_interval(
    answer: Answer, seed: int, gain: np.ndarray, effect: Callable, mistakes: Callable[..., dict[str, Any]], formula: str
) -> None:
    """Check ``answer(y, scores, patients, n_boot, rng) -> (value, lo, hi)``, an effect on AUC with a paired bootstrap by patient.

    ``gain`` ``(...)``: how well each model sees the finding; ``effect``: AUCs ``(..., k)`` -> ``(k,)``, ``formula`` in words.
    Where ``gain`` is ``(m,)``, each model's scores are an argument of their own.
    """
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(60), 4)
    y, person = np.repeat((rng.random(60) < 0.4).astype(int), 4), np.repeat(rng.standard_normal(60), 4)
    # a hard patient is hard on every film, and for all models
    scores = gain[..., None] * y + person + 0.3 * rng.standard_normal((*gain.shape, 240))

    def interval(y: np.ndarray, scores: np.ndarray, patients: np.ndarray, n_boot: int, seed: int = 0) -> np.ndarray:
        models = scores if gain.ndim == 1 else [scores]
        return answer.ask(y, *models, patients, n_boot, np.random.default_rng(seed), shape=(3,))

    def width(groups: np.ndarray) -> float:
        runs = [s[:, None] for s in scores.reshape(-1, 240)]
        draws = bootstrap_aucs(y[:, None].astype(float), runs, np.ones((240, 1), dtype=bool), groups, 1000, 3)[:, :, 0]
        return float(np.diff(np.nanpercentile(effect(draws.reshape(*gain.shape, -1)), [2.5, 97.5]))[0])

    value, lo, hi = interval(y, scores, patients, 250)
    a = np.array([auc(y, s)[0] for s in scores.reshape(-1, 240)]).reshape(gain.shape)
    answer.compare(value, effect(a), f"on all films, {formula}", rtol=0, atol=1e-9, **mistakes(a))
    answer.refuse({"lo": lo, "hi": hi, "value": value}, outside=not lo < value < hi)
    equal = interval(y, np.broadcast_to(scores.reshape(-1, 240)[0], scores.shape), patients, 20)
    by_patient, by_film = ((hi - lo) / width(groups) for groups in (patients, np.arange(240)))
    few = interval(np.array([1, 1, 0, 0, 0, 0, 0, 0]), np.broadcast_to(np.arange(8.0), (*gain.shape, 8)), np.arange(8), 60, 1)
    answer.refuse({"equal": equal, "times": by_patient}, unpaired=not close(equal[1:], np.zeros(2), atol=1e-9),
                  films=abs(by_film - 1) < min(0.25, abs(by_patient - 1)), wide=by_patient >= 1.35, narrow=not by_patient > 0.75,
                  undefined=not np.isfinite(few).all())

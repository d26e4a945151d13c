"""Checks of notebook 09: shared labels, the patients that a rare finding asks for, a paired gap between two models. [ours]"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from medbridge.course.exercises.register import Answer, AnswerError, ask, close, compare, exercise, judge, refuse
from medbridge.metrics.bootstrap import bootstrap_aucs
from medbridge.metrics.evaluate import auc


@exercise("9.1")
def pairs(answer: Answer) -> None:
    train, test = ["Mass", "Effusion", "Pneumonia", "Nodule"], ["Pneumonia", "Lung Opacity", "Pleural Effusion", "Fracture"]
    want = [("Effusion", "Pleural Effusion"), ("Pneumonia", "Pneumonia")]

    def shared(train: list[str], test: list[str]) -> list[tuple[str, str]]:
        got = answer(list(train), list(test), {"Pleural Effusion": "Effusion", "Pleural_Thickening": "Pleural Thickening"})
        refuse((got is None, "your function returns nothing; give a list of pairs of names"))
        try:
            return [(str(a), str(b)) for a, b in got]
        except (TypeError, ValueError):
            raise AnswerError(f"give a list of pairs (training name, test name); you give {got!r}") from None

    got = shared(train, test)
    refuse(
        (set(got) == {("Effusion", "Effusion"), ("Pneumonia", "Pneumonia")},
         "the second name of a pair is the one that the test benchmark itself uses, here 'Pleural Effusion'"),
        (got == [("Pneumonia", "Pneumonia")], "Effusion is missing: look both names up in `same` before you compare them"),
        ({(b, a) for a, b in got} == set(want), "each pair is the other way round; the training name comes first"),
        (got != want and set(got) == set(want),
         "the pairs are right but in the order of test; keep the order of train, as the model's columns have it"),
        *((len(got) > 2, f"{pair} is no pair of one finding; {train} and {test} share two findings")
          for pair in sorted(set(got) - set(want))),
        (got != want, f"{train} and {test} share {want}, and you give {got}"),
        # the dictionary may be needed on the side of training, or on both
        (shared(test, train) != [("Pneumonia", "Pneumonia"), ("Pleural Effusion", "Effusion")],
         "it fails with the two benchmarks exchanged: look names up on the training side too"),
        (shared(["Hernia"], ["Mass"]), "where nothing is shared, return an empty list"),
    )


@exercise("9.2")
def patients_needed(answer: Answer) -> None:
    for prevalence, sure in ((0.1, 0.8), (0.01, 0.95), (0.5, 0.9), (0.5, 0.75), (0.002, 0.99)):
        exact = math.log(1 - sure) / math.log(1 - prevalence)
        want = math.ceil(exact - 1e-9)
        judge(answer, (prevalence, sure), want, [
            (exact, "give a whole number"),
            (want + 1, "one patient fewer is already sure enough; 'at least' includes equality"),
            (want - 1, "round up: one patient fewer is not sure enough"),
            (math.ceil(sure / prevalence), "probabilities of many patients do not add up; multiply those of having nothing"),
            (math.ceil(1 / prevalence), "1 / p patients hold one positive on average, and often none; ask for a probability"),
            (math.ceil(math.log(sure) / math.log(1 - prevalence)),
             "(1 - p)^n is the probability that nobody has the finding; it must be at most 1 - sure"),
        ], "solve (1 - p)^n <= 1 - sure for n", f"a finding of {100 * prevalence:g} %, {100 * sure:g} % sure",
            "one whole number: how many patients", rtol=0)


@exercise("9.3")
def paired_gap(answer: Answer) -> None:
    judge_interval(lambda y, scores, *rest: answer(y, *scores, *rest), "gap", 5, np.array([1.2, 0.4]), lambda a: a[0] - a[1],
                   lambda a: [(a[1] - a[0], "the wrong sign: take home minus away, so that a loss by moving is positive")],
                   "the AUC of home minus that of away")


def judge_interval(
    answer: Callable, name: str, seed: int, gain: np.ndarray, effect: Callable, mistakes: Callable[..., Iterable], formula: str
) -> None:
    """Check ``answer(y, scores, patients, n_boot, rng) -> (value, lo, hi)``, an effect on AUC with a paired bootstrap by patient.

    ``gain`` ``(...)``: how well each model sees the finding; ``effect``: AUCs ``(..., k)`` -> ``(k,)``, ``formula`` in words.
    """
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(60), 4)
    y, person = np.repeat((rng.random(60) < 0.4).astype(int), 4), np.repeat(rng.standard_normal(60), 4)
    # a hard patient is hard on every film, and for all models
    scores = gain[..., None] * y + person + 0.3 * rng.standard_normal((*gain.shape, 240))

    def interval(y: np.ndarray, scores: np.ndarray, patients: np.ndarray, n_boot: int, seed: int = 0) -> np.ndarray:
        return ask(answer, y, scores.copy(), patients, n_boot, np.random.default_rng(seed), shape=(3,),
                   give=f"three numbers: the {name}, and the lower and upper end of its interval")

    def width(groups: np.ndarray) -> float:
        runs = [s[:, None] for s in scores.reshape(-1, 240)]
        draws = bootstrap_aucs(y[:, None].astype(float), runs, np.ones((240, 1), dtype=bool), groups, 1000, 3)[:, :, 0]
        return float(np.diff(np.nanpercentile(effect(draws.reshape(*gain.shape, -1)), [2.5, 97.5]))[0])

    value, lo, hi = interval(y, scores, patients, 250)
    a = np.array([auc(y, s)[0] for s in scores.reshape(-1, 240)]).reshape(gain.shape)
    compare(value, effect(a), mistakes(a), case=f"on all films, {formula}", rtol=0, atol=1e-9)
    refuse((not lo < value < hi,
            f"your interval [{lo:.3f}, {hi:.3f}] does not hold the {name} {value:.3f}; take percentiles 2.5 and 97.5"))
    equal = interval(y, np.broadcast_to(scores.reshape(-1, 240)[0], scores.shape), patients, 20)
    by_patient, by_film = ((hi - lo) / width(groups) for groups in (patients, np.arange(240)))
    few = interval(np.array([1, 1, 0, 0, 0, 0, 0, 0]), np.broadcast_to(np.arange(8.0), (*gain.shape, 8)), np.arange(8), 60, 1)
    refuse(
        (not close(equal[1:], np.zeros(2), atol=1e-9), f"between equal models there is no {name} in any resample, but your "
         f"interval is [{equal[1]:.3f}, {equal[2]:.3f}]; score all models on the same resample"),
        (abs(by_film - 1) < min(0.25, abs(by_patient - 1)),
         "your interval is as narrow as if every film were a patient; draw patients, with all their films"),
        (not 0.75 < by_patient < 1.35,
         f"your interval is {by_patient:.2f} times as long as it should be, too {'wide' if by_patient > 1 else 'narrow'}; "
         "draw as many patients as there are, with replacement, one drawn twice with its films twice; percentiles 2.5 and 97.5"),
        (not np.isfinite(few).all(), "a resample without a positive film has no AUC; leave such resamples out"),
    )

"""Checks of notebook 08: Tip-Adapter for many labels, LoRA's parameters, choices that leak test films, an honest score. [ours]"""

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F

from medbridge.baselines.tip_adapter import KeyValueCache, cache_values
from medbridge.course.exercises.register import Answer, AnswerError, ask, exercise, judge, refuse


@exercise("8.1")
def tip_logits(answer: Answer) -> None:
    generator = torch.Generator().manual_seed(3)
    keys, f = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (40, 5))
    y = (torch.rand(40, 3, generator=generator) < torch.tensor([0.5, 0.1, 0.3])).float()
    mask = torch.rand(40, 3, generator=generator) < 0.8
    y, zero = torch.where(mask, y, 0.0), torch.randn(5, 3, generator=generator)
    alpha, beta = 3.0, 2.0
    want = KeyValueCache(keys, cache_values(y, mask), torch.zeros(3, 6), 1.0, alpha, beta, False)(f).detach() + zero
    known = mask.float()
    positive, negative = y * known, (1 - y) * known
    shares = positive / positive.sum(0) - negative / negative.sum(0)
    affinity = torch.exp(-beta * (1 - f @ keys.T))
    ignoring = (2 * y - 1) / torch.where(y > 0, y.sum(0), (1 - y).sum(0))
    judge(answer, (f, keys, y, mask, zero, alpha, beta), want, [
        (alpha * affinity @ shares, "the zero-shot scores are missing: the cache is added to them"),
        (affinity @ shares + zero, "alpha weighs the cache; multiply by it"),
        (alpha * affinity @ (positive - negative) + zero,
         "a rare label is always predicted absent: divide by how many films are present, and by how many are absent"),
        (alpha * affinity @ (positive - negative) / known.sum(0) + zero,
         "divide present by how many are present and absent by how many are absent, not both by all known"),
        (alpha * affinity @ (positive / positive.sum(0)) + zero, "absent films speak against the label; subtract their share"),
        (alpha * affinity @ ignoring + zero, "an unknown label counts as absent; use `mask`, so that it counts as nothing"),
        (alpha / affinity @ shares + zero, "the sign in the exponent is wrong: a film that is alike must weigh more, not less"),
        (alpha * (f @ keys.T) @ shares + zero, "the affinity is exp(-beta (1 - similarity)), not the similarity"),
        (-alpha * affinity @ shares + zero, "the sign of the cache is wrong: present speaks for the label"),
    ], "affinity is exp(-beta (1 - f keys^T)), values present / number present - absent / number absent, 0 where unknown; "
       f"times alpha, plus zero_shot: the first logit is {want[0, 0]:.4f}", give="logits of shape (5, 3)", atol=1e-4)
    blank = mask & torch.tensor([True, False, False])  # a label with no known positive must not divide by zero
    refuse((not np.isfinite(ask(answer, f, keys, y, blank, zero, alpha, beta, shape=(5, 3))).all(),
            "a label that no film knows gives NaN; divide by at least 1: the cache is silent about it"))


@exercise("8.2")
def lora_parameters(answer: Answer) -> None:
    for shape, rank in (((12, 5), 2), ((768, 768), 8), ((64, 16, 3, 3), 4), ((32, 32, 1, 1), 1)):
        rows, columns = shape[0], math.prod(shape[1:])
        want = rank * (rows + columns)
        judge(answer, (shape, rank), want, [
            (math.prod(shape[2:]) * rank * (rows + shape[1]), "the kernel belongs to A; B after it is 1 x 1"),
            (rank * (rows + shape[1]), "a convolution's A looks at the whole window: channels times height times width"),
            (rank * rank * (rows + columns), "the rank is a side of A and a side of B, once each"),
            (rows * columns + want, "W stays frozen; count A and B alone"),
            (rank * columns, "that is A alone; B is trained too"),
            (rank * rows, "that is B alone; A is trained too"),
            (rank * rows * columns, "A and B are thin: neither has both sides of W; count each alone and add"),
            (rows * columns, "that is the frozen weight itself, whatever the rank; A and B are what is trained"),
        ], "A is rank x inputs, B is outputs x rank", f"a weight of shape {shape} at rank {rank}",
            "one whole number: how many numbers A and B hold together", rtol=0)


_LEAKS = {"B": "epoch by epoch", "D": "before any training", "E": "in a table of results", "G": "by who is on the films"}
_CLEAN = {
    "A": "A chooses on validation and looks at test once: nothing of the test films was used",
    "C": "C uses the text of the labels, which is known before any film is seen",
    "F": "F spends its tries on validation films; more tries are unfair to the others, but no test film is used",
    "H": "H resamples test films after everything was chosen; an interval chooses nothing",
}


@exercise("8.3")
def leaks(answer: Iterable[str]) -> None:
    try:
        letters = sorted({str(letter).strip().upper() for letter in answer})
    except TypeError:
        raise AnswerError("give a set of letters, such as {'A', 'B'}") from None
    missing = [how for letter, how in _LEAKS.items() if letter not in letters]
    refuse(
        *((letter not in _LEAKS | _CLEAN, f"{letter!r} is none of the procedures; give letters A to H") for letter in letters),
        *((letter in _CLEAN, f"{_CLEAN.get(letter)}; take {letter} out") for letter in letters),
        *((True, f"{len(missing)} more let test films in; look for one that does it {how}") for how in missing),
    )


@exercise("8.4")
def honest_score(answer: Answer) -> None:
    val = np.array([[0.70, 0.74, 0.72], [0.69, 0.66, 0.71], [0.73, 0.73, 0.60]])
    test = np.array([[0.68, 0.65, 0.75], [0.71, 0.70, 0.62], [0.64, 0.72, 0.73]])
    seeds = np.arange(3)
    judge(answer, (val, test), test[seeds, val.argmax(axis=1)].mean(), [
        (test.max(axis=1).mean(), "that is the best test AUC of each seed: the test films chose the setting"),
        (test.mean(axis=0).max(), "that is the setting of the best mean test AUC: the test films chose it"),
        (test.max(), "that is the best test AUC of all; choose by val"),
        (test.mean(), "that is the mean over all settings; each seed reports the one setting that val chose"),
        (test[:, val.mean(axis=0).argmax()].mean(), "one setting for all seeds; here each seed chooses its own"),
        (val.max(axis=1).mean(), "that is the validation AUC of what was chosen by it, which is too good"),
        (test[seeds, val.argmin(axis=1)].mean(), "you take the worst setting on val"),
        (test[seeds, 2 - val[:, ::-1].argmax(axis=1)].mean(), "where two tie on val, keep the first, whatever test says"),
    ], "in each row take the column where val is largest, read test there, and average over the rows")

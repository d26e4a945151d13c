"""Checks of notebook 08: Tip-Adapter for many labels, LoRA's parameters, choices that leak test films, an honest score."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from medbridge.baselines.tip_adapter import KeyValueCache, cache_values
from medbridge.course.exercises import Answer, exercise


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
    answer.judge((f, keys, y, mask, zero, alpha, beta), want, "", {"first": want[0, 0]}, atol=1e-4,
                 no_zero_shot=alpha * affinity @ shares, no_alpha=affinity @ shares + zero,
                 no_shares=alpha * affinity @ (positive - negative) + zero,
                 of_all_known=alpha * affinity @ (positive - negative) / known.sum(0) + zero,
                 no_absent=alpha * affinity @ (positive / positive.sum(0)) + zero,
                 unknown_absent=alpha * affinity @ ignoring + zero, exponent=alpha / affinity @ shares + zero,
                 similarity=alpha * (f @ keys.T) @ shares + zero, sign=-alpha * affinity @ shares + zero)
    blank = mask & torch.tensor([True, False, False])  # a label with no known positive must not divide by zero
    answer.refuse(undefined=not np.isfinite(answer.ask(f, keys, y, blank, zero, alpha, beta, shape=(5, 3))).all())


@exercise("8.2")
def lora_parameters(answer: Answer) -> None:
    for shape, rank in (((12, 5), 2), ((768, 768), 8), ((64, 16, 3, 3), 4), ((32, 32, 1, 1), 1)):
        rows, columns = shape[0], math.prod(shape[1:])
        want = rank * (rows + columns)
        answer.judge((shape, rank), want, f"a weight of shape {shape} at rank {rank}", rtol=0,
                     kernel_of_b=math.prod(shape[2:]) * rank * (rows + shape[1]), no_kernel=rank * (rows + shape[1]),
                     rank_twice=rank * rank * (rows + columns), with_frozen=rows * columns + want, only_a=rank * columns,
                     only_b=rank * rows, product=rank * rows * columns, frozen=rows * columns)


@exercise("8.3")
def leaks(answer: Answer) -> None:
    try:
        letters = sorted({str(letter).strip().upper() for letter in answer.given})
    except TypeError:
        letters = []
        answer.refuse(no_letters=True)
    missing = [letter for letter in "BDEG" if letter not in letters]
    for letter in letters:
        answer.refuse({"letter": letter}, unknown=letter not in "ABCDEFGH")
    answer.refuse({"missing": len(missing)}, **dict.fromkeys([letter for letter in letters if letter in "ACFH"] + missing, True))


@exercise("8.4")
def honest_score(answer: Answer) -> None:
    val = np.array([[0.70, 0.74, 0.72], [0.69, 0.66, 0.71], [0.73, 0.73, 0.60]])
    test = np.array([[0.68, 0.65, 0.75], [0.71, 0.70, 0.62], [0.64, 0.72, 0.73]])
    seeds = np.arange(3)
    answer.judge((val, test), test[seeds, val.argmax(axis=1)].mean(), best_of_seeds=test.max(axis=1).mean(),
                 best_mean=test.mean(axis=0).max(), best=test.max(), mean=test.mean(),
                 one_setting=test[:, val.mean(axis=0).argmax()].mean(), val_score=val.max(axis=1).mean(),
                 worst=test[seeds, val.argmin(axis=1)].mean(), last_tie=test[seeds, 2 - val[:, ::-1].argmax(axis=1)].mean())

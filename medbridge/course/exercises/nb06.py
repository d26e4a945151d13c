"""Checks of notebook 06: gradient of the masked loss, schedule of the learning rate, early stopping. [ours]"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from medbridge.course.exercises.register import AnswerError, exercise
from medbridge.losses import masked_bce
from medbridge.train import cosine_schedule


@exercise("6.1")
def gradient(answer: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> None:
    """``answer(z, y, mask)``: derivative of the masked cross-entropy by each logit."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 1.5, (5, 4)), (rng.random((5, 4)) < 0.4).astype(float)
    mask = rng.random((5, 4)) < 0.6
    logits = torch.tensor(z, requires_grad=True)
    masked_bce(logits, torch.tensor(y), torch.tensor(mask)).backward()
    want = logits.grad.numpy()
    got = _array(answer(z.copy(), y.copy(), mask.copy()), z.shape)
    p = 1 / (1 + np.exp(-z))
    if np.isnan(got).any():
        raise AnswerError("some of your gradients are NaN; set those of unknown labels to 0")
    if (got[~mask] != 0).any():
        raise AnswerError("an unknown label has a gradient that is not 0; it must contribute nothing")
    wrong = {
        "the sign is turned: the derivative of -log p grows with p - y, not with y - p": -want,
        "divide by the number of known labels, not by that of all": want * mask.sum() / mask.size,
        "divide by the number of known labels, not by that of films": want * mask.sum() / len(z),
        "the loss is a mean: divide by the number of known labels": want * mask.sum(),
        "use the probability sigmoid(z), not the logit itself": np.where(mask, z - y, 0) / mask.sum(),
        "the factor p (1 - p) of the sigmoid cancels against 1 / p and 1 / (1 - p)": want * p * (1 - p),
    }
    for hint, value in wrong.items():
        if np.allclose(got, value, atol=1e-9) and not np.allclose(got, want, atol=1e-9):
            raise AnswerError(hint)
    if not np.allclose(got, want, atol=1e-6):
        i, c = np.argwhere(mask & ~np.isclose(got, want, atol=1e-6))[0]
        raise AnswerError(f"z = {z[i, c]:.2f}, y = {y[i, c]:.0f}, {mask.sum()} known labels: the gradient is {want[i, c]:.4f}, "
                          f"you give {got[i, c]:.4f}; it is (sigmoid(z) - y) over the number of known labels")
    with np.errstate(all="ignore"):
        none = _array(answer(z.copy(), y.copy(), np.zeros_like(mask)), z.shape)
    if not (none == 0).all():
        raise AnswerError("where nothing is known the gradient is 0 everywhere; do not divide by 0")


@exercise("6.2")
def schedule(answer: Callable[[int, int, float], float]) -> None:
    """``answer(t, S, u)``: the factor of the learning rate in step t of S, with warm-up share u."""
    for steps, share in ((100, 0.1), (57, 0.25), (40, 0.0), (8, 1.0)):
        rise = max(1, int(share * steps))
        for t in sorted({0, rise // 2, rise - 1, rise, (rise + steps) // 2, steps - 1} - {steps}):
            got = answer(t, steps, share)
            if got is None or np.ndim(got) != 0:
                raise AnswerError("give one number: the factor of the learning rate")
            want = cosine_schedule(t, steps, share)
            if math.isclose(got, want, abs_tol=1e-9):
                continue
            along = math.pi * (t - rise) / max(1, steps - rise)
            early = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * t / steps))
            wrong = {
                "the first step would have the rate 0 and be wasted; use (t + 1) / r": t / rise,
                "the warm-up is missing: the first steps rise linearly": early,
                "it ends at 0; the factor ends near 0.01": 0.5 * (1 + math.cos(along)),
                "half a cosine goes from 1 down: (1 + cos) / 2, where you have the cosine itself": 0.01 + 0.99 * math.cos(along),
                "the cosine begins after the warm-up: use t - r and S - r": early,
            }
            order = sorted(wrong, key=lambda hint: hint.startswith("the warm-up") and t >= rise)
            told = [h for h in order if math.isclose(got, wrong[h], abs_tol=1e-9)]
            hint = told[0] if told else "compare with the equation, case by case"
            raise AnswerError(f"step {t} of {steps}, warm-up {share:g}: {want:.4f}, you give {got:.4f}; {hint}")


@exercise("6.3")
def stopping(answer: Callable[[Sequence[float], int], tuple[int, int]]) -> None:
    """``answer(aucs, patience)``: the epoch that is kept, and how many were run."""
    cases = [
        ([0.6, 0.7, 0.65, 0.66, 0.6, 0.6], 2),  # a plain stop
        ([0.6, 0.7, 0.65, 0.66, 0.9, 0.91], 2),  # better epochs that are never reached
        ([0.5, 0.7, 0.7, 0.6, 0.6], 3),  # a tie
        ([0.5, 0.6, 0.55], 5),  # no stop
        ([0.5, 0.6, 0.7], 2),  # the best at the end
        ([0.8, 0.7, 0.9], 1),
        ([0.6, 0.5, 0.7, 0.6, 0.6, 0.6, 0.9], 3),  # patience starts again
    ]
    for aucs, patience in cases:
        kept, run = _two(answer(list(aucs), patience))
        want_kept, want_run = _stop(aucs, patience)
        if (kept, run) == (want_kept, want_run):
            continue
        if kept == int(np.argmax(aucs)) != want_kept:
            hint = "you look at epochs that are never trained: training had stopped before"
        elif run == want_run and kept == run - 1:
            hint = "you keep the last epoch; keep the best"
        elif run == want_run and kept > want_kept and aucs[kept] == aucs[want_kept]:
            hint = "of equal AUCs the first is kept; only a strictly larger one is better"
        elif kept == want_kept and run == want_run + 1:
            hint = "it runs one epoch too long: stop as soon as the best lies `patience` epochs back"
        elif kept == want_kept and run == want_run - 1:
            hint = "one epoch is missing: return how many were run, the last one included"
        elif run == len(aucs):
            hint = "it never stops; compare the epoch with the best one so far"
        else:
            hint = "patience counts from the best epoch so far, and starts again with each better one"
        raise AnswerError(f"AUCs {aucs}, patience {patience}: epoch {want_kept} is kept and {want_run} are run, "
                          f"you say {kept} and {run}; {hint}")


def _stop(aucs: Sequence[float], patience: int) -> tuple[int, int]:
    best = 0
    for epoch, value in enumerate(aucs):
        best = epoch if value > aucs[best] else best
        if epoch - best >= patience:
            return best, epoch + 1
    return best, len(aucs)


def _array(got: object, shape: tuple[int, ...]) -> np.ndarray:
    if got is None or np.shape(got) != shape:
        raise AnswerError(f"for logits {shape} the result has shape {np.shape(got)}; give one derivative for each logit")
    return np.asarray(got, dtype=np.float64)


def _two(got: object) -> tuple[int, int]:
    if got is None or np.shape(got) != (2,):
        raise AnswerError("give two whole numbers: the epoch that is kept, and how many were run")
    return int(got[0]), int(got[1])  # type: ignore[index]

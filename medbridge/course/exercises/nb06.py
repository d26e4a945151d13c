"""Checks of notebook 06: gradient of the masked loss, schedule of the learning rate, early stopping."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from medbridge.course.exercises import Answer, exercise
from medbridge.losses import masked_bce
from medbridge.train import cosine_schedule


@exercise("6.1")
def gradient(answer: Answer) -> None:
    rng = np.random.default_rng(0)
    z, y, mask = rng.normal(0, 1.5, (5, 4)), (rng.random((5, 4)) < 0.4).astype(float), rng.random((5, 4)) < 0.6
    logits = torch.tensor(z, requires_grad=True)
    masked_bce(logits, torch.tensor(y), torch.tensor(mask)).backward()
    got, want, p, known = answer.ask(z, y, mask, shape=z.shape), logits.grad.numpy(), 1 / (1 + np.exp(-z)), mask.sum()
    i, c = np.unravel_index(np.abs(got - want).argmax(), z.shape)
    answer.compare(got, want, f"z = {z[i, c]:.2f}, y = {y[i, c]:.0f}, {known} known labels: the gradient is {want[i, c]:.4f}, "
                   f"you give {got[i, c]:.4f}", atol=1e-6, undefined=np.isnan(got).any(), unknown=(got[~mask] != 0).any(),
                   sign=-want, over_all=want * known / mask.size, over_films=want * known / len(z), summed=want * known,
                   logit=np.where(mask, z - y, 0) / known, sigmoid_twice=want * p * (1 - p))
    answer.judge((z, y, np.zeros_like(mask)), np.zeros_like(z), otherwise="nothing_known", atol=0)


@exercise("6.2")
def schedule(answer: Answer) -> None:
    for steps, share in ((100, 0.1), (57, 0.25), (40, 0.0), (8, 1.0)):
        rise = max(1, int(share * steps))
        for t in sorted({0, rise // 2, rise - 1, rise, (rise + steps) // 2, steps - 1} - {steps}):
            cosine = math.cos(math.pi * (t - rise) / max(1, steps - rise))
            early = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * t / steps))
            answer.judge((t, steps, share), cosine_schedule(t, steps, share), f"step {t} of {steps}, warm-up {share:g}", rtol=0,
                         atol=1e-9, from_zero=t / rise, no_warm_up=early if t < rise else math.inf, to_zero=0.5 * (1 + cosine),
                         whole_cosine=0.01 + 0.99 * cosine, early=early)


def _stop(aucs: Sequence[float], patience: int) -> tuple[int, int]:
    best = 0
    for epoch, value in enumerate(aucs):
        best = epoch if value > aucs[best] else best
        if epoch - best >= patience:
            return best, epoch + 1
    return best, len(aucs)


@exercise("6.3")
def stopping(answer: Answer) -> None:
    for aucs, patience in (
        ([0.6, 0.7, 0.65, 0.66, 0.6, 0.6], 2),  # a plain stop
        ([0.6, 0.7, 0.65, 0.66, 0.9, 0.91], 2),  # better epochs that are never reached
        ([0.5, 0.7, 0.7, 0.6, 0.6], 3),  # a tie
        ([0.5, 0.6, 0.55], 5),  # no stop
        ([0.5, 0.6, 0.7], 2),  # the best at the end
        ([0.8, 0.7, 0.9], 1),
        ([0.6, 0.5, 0.7, 0.6, 0.6, 0.6, 0.9], 3),  # patience starts again
    ):
        kept, run = (int(v) for v in answer.ask(aucs, patience, shape=(2,)))
        want_kept, want_run = _stop(aucs, patience)
        answer.compare((kept, run), (want_kept, want_run),
                       f"AUCs {aucs}, patience {patience}, the epoch that is kept and the number of epochs",
                       beyond=kept == int(np.argmax(aucs)) != want_kept, last=run == want_run and kept == run - 1,
                       later_tie=run == want_run and kept > want_kept and aucs[kept] == aucs[want_kept],
                       too_long=kept == want_kept and run == want_run + 1, one_less=kept == want_kept and run == want_run - 1,
                       no_stop=run == len(aucs))

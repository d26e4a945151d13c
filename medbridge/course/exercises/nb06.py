"""Checks of notebook 06: gradient of the masked loss, schedule of the learning rate, early stopping. [ours]"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from medbridge.course.exercises.register import Answer, ask, compare, exercise, judge
from medbridge.losses import masked_bce
from medbridge.train import cosine_schedule


@exercise("6.1")
def gradient(answer: Answer) -> None:
    rng = np.random.default_rng(0)
    z, y, mask = rng.normal(0, 1.5, (5, 4)), (rng.random((5, 4)) < 0.4).astype(float), rng.random((5, 4)) < 0.6
    logits, give = torch.tensor(z, requires_grad=True), "one derivative for each logit, (5, 4)"
    masked_bce(logits, torch.tensor(y), torch.tensor(mask)).backward()
    got, want, p, known = ask(answer, z, y, mask, shape=z.shape, give=give), logits.grad.numpy(), 1 / (1 + np.exp(-z)), mask.sum()
    i, c = np.unravel_index(np.abs(got - want).argmax(), z.shape)
    compare(got, want, [
        (np.isnan(got).any(), "some of your gradients are NaN; set those of unknown labels to 0"),
        ((got[~mask] != 0).any(), "an unknown label has a gradient that is not 0; it must contribute nothing"),
        (-want, "the sign is turned: the derivative of -log p grows with p - y, not with y - p"),
        (want * known / mask.size, "divide by the number of known labels, not by that of all"),
        (want * known / len(z), "divide by the number of known labels, not by that of films"),
        (want * known, "the loss is a mean: divide by the number of known labels"),
        (np.where(mask, z - y, 0) / known, "use the probability sigmoid(z), not the logit itself"),
        (want * p * (1 - p), "the factor p (1 - p) of the sigmoid cancels against 1 / p and 1 / (1 - p)"),
    ], "it is (sigmoid(z) - y) over the number of known labels", f"z = {z[i, c]:.2f}, y = {y[i, c]:.0f}, {known} known labels: "
       f"the gradient is {want[i, c]:.4f}, you give {got[i, c]:.4f}", atol=1e-6)
    judge(answer, (z, y, np.zeros_like(mask)), np.zeros_like(z), [],
          "where nothing is known the gradient is 0 everywhere; do not divide by 0", give=give, atol=0)


@exercise("6.2")
def schedule(answer: Answer) -> None:
    for steps, share in ((100, 0.1), (57, 0.25), (40, 0.0), (8, 1.0)):
        rise = max(1, int(share * steps))
        for t in sorted({0, rise // 2, rise - 1, rise, (rise + steps) // 2, steps - 1} - {steps}):
            cosine = math.cos(math.pi * (t - rise) / max(1, steps - rise))
            early = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * t / steps))
            judge(answer, (t, steps, share), cosine_schedule(t, steps, share), [
                (t / rise, "the first step would have the rate 0 and be wasted; use (t + 1) / r"),
                (early if t < rise else math.inf, "the warm-up is missing: the first steps rise linearly"),
                (0.5 * (1 + cosine), "it ends at 0; the factor ends near 0.01"),
                (0.01 + 0.99 * cosine, "half a cosine goes from 1 down: (1 + cos) / 2, where you have the cosine itself"),
                (early, "the cosine begins after the warm-up: use t - r and S - r"),
            ], "compare with the equation, case by case", f"step {t} of {steps}, warm-up {share:g}",
                "one number: the factor of the learning rate", rtol=0, atol=1e-9)


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
        give = "two whole numbers: the epoch that is kept, and how many were run"
        kept, run = (int(v) for v in ask(answer, aucs, patience, shape=(2,), give=give))
        want_kept, want_run = _stop(aucs, patience)
        compare((kept, run), (want_kept, want_run), [
            (kept == int(np.argmax(aucs)) != want_kept, "you look at epochs that are never trained: training had stopped before"),
            (run == want_run and kept == run - 1, "you keep the last epoch; keep the best"),
            (run == want_run and kept > want_kept and aucs[kept] == aucs[want_kept], "of equal AUCs the first is kept"),
            (kept == want_kept and run == want_run + 1, "it runs one epoch too long: stop `patience` epochs after the best"),
            (kept == want_kept and run == want_run - 1, "one epoch is missing: return how many were run, the last one included"),
            (run == len(aucs), "it never stops; compare the epoch with the best one so far"),
        ], "patience counts from the best epoch so far, and starts again with each better one",
            f"AUCs {aucs}, patience {patience}, the epoch that is kept and the number of epochs")

r"""Linear read-out: what a linear probe sees in the frozen summaries, calibrated, as a part of the model. [ours]

    logit_c = a s_c + b r_c + o_c,      r_c = W_c [whole film; mean over views; maximum over views] + v_c

s are the logits of the queries' mixture, r of a logistic regression on the standardised summaries of the same views. The weights
a, b >= 0 and the offsets o_c come from logits of films that neither part has learned from: if the queries say nothing new about
them, a is small and the model is a linear probe.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from medbridge.metrics.evaluate import merit
from medbridge.support.logistic import fit_logistic

STRENGTHS = (1e-2, 1e-3, 1e-1)
"""Values of scikit-learn's C that are tried: as many as every method may try."""


def pool_summary(summary: Sequence[Tensor], view_mask: Tensor) -> Tensor:
    """Per expert summaries ``(B, N, d_k)`` -> ``(B, 3 sum d_k)``: of each expert the whole film, mean and maximum over views."""
    real = view_mask.unsqueeze(-1)
    count = real.sum(dim=1)
    return torch.cat([torch.cat([s[:, 0], (s * real).sum(dim=1) / count, s.masked_fill(~real, float("-inf")).amax(dim=1)], dim=1)
                      for s in summary], dim=1)


class ReadOut(nn.Module):
    """The read-outs of M members and how much they count; before :meth:`fit` the queries alone count.

    Args:
        members, classes, size: numbers M, C and length of the pooled summaries.
    """

    weight: Tensor
    bias: Tensor
    blend: Tensor
    offset: Tensor

    def __init__(self, members: int, classes: int, size: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(members, classes, size))
        self.register_buffer("bias", torch.zeros(members, classes))
        self.register_buffer("blend", torch.tensor([1.0, 0.0]))
        self.register_buffer("offset", torch.zeros(classes))

    def forward(self, logits: Tensor, pooled: Tensor) -> Tensor:
        """The queries' logits ``(B, C)`` and pooled summaries ``(B, size)`` -> final logits ``(B, C)``."""
        read = pooled @ self.weight.mean(dim=0).T + self.bias.mean(dim=0)
        return self.blend[0] * logits + self.blend[1] * read + self.offset

    def fit(self, logits: np.ndarray, pooled: np.ndarray, targets: np.ndarray, mask: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Fit the members' regressions, then the blend on the films of the folds; the final logits of those films.

        Args:
            logits: ``(n, C)``, the queries' of each film, by the member that did not learn from it; films outside the folds: any.
            pooled: ``(n, size)``. targets, mask: ``(n, C)``.
            fold: int ``(n,)``: the member that may not learn from a film; -1: all of them learn from it.
        """
        held, best = fold >= 0, -np.inf
        for strength in STRENGTHS:
            learn = [fold != m for m in range(len(self.weight))]
            made = [fit_logistic(pooled[rows], targets[rows], mask[rows], strength) for rows in learn]
            read = np.zeros(targets.shape)
            for m, (weight, bias) in enumerate(made):
                read[fold == m] = pooled[fold == m] @ weight.T + bias
            read = align_folds(read, fold)
            value = merit(targets[held], expit(read[held]), mask[held])
            if value > best:
                best, kept, kept_read = value, made, read
        for m, (weight, bias) in enumerate(kept):
            self.weight[m], self.bias[m] = torch.from_numpy(weight), torch.from_numpy(bias)
        blend, offset = fit_blend(logits[held], kept_read[held], targets[held], mask[held])
        self.blend[:], self.offset[:] = torch.from_numpy(blend), torch.from_numpy(offset)
        return blend[0] * logits[held] + blend[1] * kept_read[held] + offset


def align_folds(logits: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Logits ``(n, C)`` of the films of each fold, moved so that the folds have about the same mean.

    The more positives a fold holds, the fewer its member learned from, and the lower it scores them all: put together as they
    are, out-of-fold scores rank films against their labels. A fold of few films is moved less, since their mean says little.
    """
    logits, overall = logits.copy(), logits[fold >= 0].mean(axis=0)
    for m in np.unique(fold[fold >= 0]):
        rows = fold == m
        logits[rows] += (overall - logits[rows].mean(axis=0)) * rows.sum() / (rows.sum() + 5)
    return logits


def fit_blend(q: np.ndarray, r: np.ndarray, y: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``(2,)`` of two sets of logits ``(n, C)``, the same for all labels, and offsets ``(C,)`` of labels."""
    spread = np.array([max(float(z[mask].std()), 1e-6) for z in (q, r)])
    films, labels = np.nonzero(mask)
    if len(np.unique(y[mask])) < 2:
        return np.array([1.0, 0.0]), np.zeros(y.shape[1])
    z = np.stack([q / spread[0], r / spread[1]])
    x = np.column_stack([*z[:, films, labels], np.eye(y.shape[1])[labels]])
    model = LogisticRegression(C=1.0, max_iter=2000).fit(x, y[films, labels])
    weights, offset = model.coef_[0, :2].clip(min=0), model.coef_[0, 2:] + model.intercept_[0]
    if not weights.any():  # folds of few films may rank good scores against their labels; without weights all films score alike
        weights[:] = 0.1
        odds = ((y * mask).sum(axis=0) + 0.5) / (((1 - y) * mask).sum(axis=0) + 0.5)
        offset = np.log(odds) - weights @ ((z * mask).sum(axis=1) / np.maximum(mask.sum(axis=0), 1))
    return weights / spread, offset

r"""k nearest neighbours on frozen features, weighted as in the evaluation of Wu et al., "Unsupervised feature learning via
non-parametric instance discrimination", CVPR 2018."""

from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medbridge.baselines.base import Baseline, check_known
from medbridge.features.films import FrozenFilms
from medbridge.metrics.evaluate import merit

_ROWS = 512  # test films compared at a time: 512 x 86,524 similarities are 180 MB


def neighbour_scores(x: Tensor, keys: Tensor, y: Tensor, mask: Tensor, k: int, temperature: float = 0.07) -> Tensor:
    """Probabilities float32 ``(n, C)`` by k neighbours of L2-normalised features x ``(n, d)``; 0.5 for a label that no key knows.

    Keys are ``(m, d)``, their targets y and mask ``(m, C)``; ``temperature`` is tau, 0.07 as in the authors' code.
    """
    out = torch.full((len(x), y.shape[1]), 0.5)
    for start in range(0, len(x), _ROWS):
        similarity = x[start : start + _ROWS] @ keys.T
        for c in range(y.shape[1]):
            known = mask[:, c]
            if known.any():
                near, which = similarity[:, known].topk(min(k, int(known.sum())), dim=1)
                # w_i = exp(cos(f(x), f_i) / tau), divided by their sum over the neighbours N_k(x)
                weight = (near / temperature).softmax(dim=1)
                # p_c(x) = sum_{i in N_k(x)} w_i y_ic
                out[start : start + _ROWS, c] = (weight * y[known, c][which]).sum(dim=1)
    return out


class KNN(Baseline):
    """Neighbours in each expert's summary space (``views`` as the linear probe); the experts' probabilities are averaged.

    [ours] The authors take k = 200 of 1.3 million pictures; here it is chosen among ``counts`` on the validation split, as label
    budgets leave few films. For multi-label data a label's neighbours are the training films where it is known.
    """

    name = "k-NN"
    seeded = False
    need = ""
    trainable_parameters = 0
    counts = (20, 5, 50, 10, 100)

    def _features(self, films: FrozenFilms) -> list[Tensor]:
        return [F.normalize(torch.from_numpy(films.pooled("summary", k, self.views)), dim=1) for k in range(len(films.depths))]

    def fit(self, train: FrozenFilms, val: FrozenFilms) -> Self:
        """Keep the training films; choose k by the mean AUC on val."""
        check_known(train, val)
        self.modules = self._features(train)
        self.y, self.mask = map(torch.from_numpy, train.benchmark.targets())
        x, (y, mask) = self._features(val), val.benchmark.targets()
        self.k = max(self.counts[: self.tries], key=lambda k: merit(y, self._scores(x, k), mask))
        return self

    def _scores(self, x: list[Tensor], k: int) -> np.ndarray:
        parts = [neighbour_scores(a, keys, self.y, self.mask, k) for a, keys in zip(x, self.fitted(), strict=True)]
        return torch.stack(parts).double().mean(dim=0).numpy()

    def predict_proba(self, films: FrozenFilms) -> np.ndarray:
        self.fitted()
        return self._scores(self._features(films), self.k)

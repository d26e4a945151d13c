r"""k nearest neighbours on frozen features, weighted as in the evaluation of Wu et al., "Unsupervised feature learning via
non-parametric instance discrimination", CVPR 2018.

tau is 0.07 as in the authors' code. [ours] They take k = 200 of 1.3 million films; here k is chosen on the validation split,
as label budgets leave few films. [ours, for multi-label data] A label's neighbours are training films where it is known.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medbridge.baselines.base import check_known, check_tries
from medbridge.experts import Expert
from medbridge.features.cache import CachedFilms
from medbridge.method import TRIES, Method
from medbridge.metrics.evaluate import merit
from medbridge.train import TrainConfig

_ROWS = 512  # test films compared at a time: 512 x 86,524 similarities are 180 MB


def neighbour_scores(x: Tensor, keys: Tensor, y: Tensor, mask: Tensor, k: int, temperature: float = 0.07) -> Tensor:
    """Probabilities float32 ``(n, C)`` by k neighbours, ``temperature`` being tau; 0.5 for a label that no key knows.

    Of L2-normalised features x ``(n, d)`` and keys ``(m, d)``, float32, and the keys' targets y and mask ``(m, C)``.
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


class KNN(Method):
    """Neighbours in each expert's summary space; the experts' probabilities are averaged. Nothing is trained.

    Args:
        experts, labels, prompts, config, progress: here so that all methods are built alike.
        views: 'whole' or 'all' (whole film, mean and maximum over all views, as the linear probe).
        tries: how many of :attr:`counts`, values of k in order of preference, are tried.
    """

    name = "k-NN"
    seeded = False
    trainable_parameters = 0
    counts = (20, 5, 50, 10, 100)

    def __init__(self, experts: Sequence[Expert] = (), labels: Sequence[str] = (), views: str = "whole", prompts: Any = None,
                 config: TrainConfig | None = None, tries: int = TRIES, progress: bool = True) -> None:
        check_tries(tries, views)
        self.views, self.counts = views, self.counts[:tries]

    def _features(self, films: CachedFilms) -> list[Tensor]:
        return [F.normalize(torch.from_numpy(films.pooled("summary", k, self.views)), dim=1) for k in range(len(films.located))]

    def fit(self, train: CachedFilms, val: CachedFilms) -> Self:
        """Keep the training films; choose k by the mean AUC on val."""
        check_known(train, val)
        self.keys = self._features(train)
        self.y, self.mask = map(torch.from_numpy, train.benchmark.targets())
        x, (y, mask) = self._features(val), val.benchmark.targets()
        self.k = max(self.counts, key=lambda k: merit(y, self._scores(x, k), mask))
        return self

    def _scores(self, x: list[Tensor], k: int) -> np.ndarray:
        parts = [neighbour_scores(a, keys, self.y, self.mask, k) for a, keys in zip(x, self.keys, strict=True)]
        return torch.stack(parts).double().mean(dim=0).numpy()

    def predict_proba(self, films: CachedFilms) -> np.ndarray:
        """Probabilities float64 ``(n, C)``."""
        return self._scores(self._features(films), self.k)

r"""Tip-Adapter and Tip-Adapter-F (Zhang et al., "Tip-Adapter: training-free adaption of CLIP for few-shot classification",
ECCV 2022, arXiv 2207.09519): the training films are a cache of keys and values, added to the zero-shot scores."""

from typing import Any

import torch
from torch import Tensor, nn

from medbridge.baselines.base import TrainedBaseline, film_embeddings, prompt_sides, temperature
from medbridge.baselines.inputs import FilmInputs, score_module
from medbridge.features.films import FrozenFilms
from medbridge.metrics.evaluate import merit


def cache_values(y: Tensor, mask: Tensor) -> Tensor:
    """L: targets and mask ``(n, C)`` -> float32 ``(n, C)``. [ours]

    The published L is one-hot, with as many films of every class. Here a column is the difference of two, present and absent,
    each divided by its known films; else a label of two positives in a hundred would always be predicted absent.
    """
    positive, negative = y * mask, (1 - y) * mask
    # L_ic = y_ic / n_c^+ - (1 - y_ic) / n_c^-    (0 where unknown)
    return positive / positive.sum(0).clamp(min=1) - negative / negative.sum(0).clamp(min=1)


class KeyValueCache(nn.Module):
    """Image embeddings ``(B, d)``, L2-normalised -> logits ``(B, C)``.

    ``keys`` F ``(n, d)`` are the training embeddings, ``values`` L ``(n, C)``, ``direction`` positive minus negative prompt
    ``(C, d)``, ``scale`` s; ``train_keys`` makes it Tip-Adapter-F."""

    def __init__(self, keys: Tensor, values: Tensor, direction: Tensor, scale: float, alpha: float, beta: float,
                 train_keys: bool) -> None:
        super().__init__()
        self.keys = nn.Parameter(keys.clone(), requires_grad=train_keys)
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("direction", direction, persistent=False)
        self.scale, self.alpha, self.beta = scale, alpha, beta

    def forward(self, f: Tensor) -> Tensor:
        # A(f) = exp(-beta (1 - f F^T))
        affinity = torch.exp(-self.beta * (1 - f @ self.keys.T))
        # score = alpha A(f) L + s f (t^+ - t^-)^T
        return self.alpha * affinity @ self.values + self.scale * f @ self.direction.T


class TipAdapterF(TrainedBaseline):
    """The keys are trained, from the training embeddings, by AdamW at rate 0.001 as in the authors' code.

    [ours] Present against absent, not class against class. Epoch, alpha and beta are chosen on the validation split; that code
    keeps the epoch with the best *test* accuracy. Keys are the films' embeddings, not means over ten augmented copies. alpha is
    larger than there (0.1 to 30), since :func:`cache_values` divides. Epochs, eps and decay are those of all baselines.
    """

    name = "Tip-Adapter-F"
    grid = ({"rate": 1e-3, "alpha": 100.0, "beta": 5.5}, {"rate": 1e-3, "alpha": 1000.0, "beta": 5.5},
            {"rate": 1e-3, "alpha": 100.0, "beta": 1.0})
    train_keys = True

    def build(self, k: int, train: FrozenFilms, **setting: Any) -> KeyValueCache:
        positive, negative = prompt_sides(self.experts[k], self.labels, self.prompts)
        keys, values = film_embeddings(train, k, self.views), cache_values(*map(torch.from_numpy, train.benchmark.targets()))
        scale = temperature(self.experts[k])
        return KeyValueCache(keys, values, positive - negative, scale, train_keys=self.train_keys, **setting)


class TipAdapter(TipAdapterF):
    """Nothing is trained; alpha and beta are chosen on the validation split."""

    name = "Tip-Adapter"
    seeded = train_keys = biased = False

    def train(self, module: nn.Module, train: FilmInputs, val: FilmInputs, rate: float, k: int) -> float:
        return merit(val.targets, score_module(module, val, self.config.batch_size), val.mask)

"""What the modules of the baselines are fed, and how they are trained and scored on it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from medbridge.features.batch import Pass
from medbridge.features.films import FrozenFilms
from medbridge.focal import extract_views
from medbridge.losses import LOSSES
from medbridge.support.threads import ahead, decode_threads, prefetch
from medbridge.train import Loop, TrainConfig

_KEEP_BYTES = 2**31  # views of more films than fit here are decoded again in every epoch


class EmbeddingInputs:
    """One frozen vector ``(d,)`` per film, beside ``targets`` and ``mask``, float32 and bool ``(n, C)``."""

    def __init__(self, films: FrozenFilms, embeddings: Tensor) -> None:
        self.targets, self.mask = films.benchmark.targets()
        self.embeddings = embeddings

    def batch(self, rows: list[int]) -> list[Tensor]:
        """The module's inputs for these films."""
        return [self.embeddings[rows]]


class ViewInputs:
    """The views of a film as pictures, those that its frozen features were made of: the whole film, or with its windows ('all').

    A batch pads them to the same number: ``(B, N, R, R)`` in [0, 1], real ``(B, N)``.
    """

    def __init__(self, films: FrozenFilms, size: int, views: str = "whole", progress: bool = True) -> None:
        self.targets, self.mask = films.benchmark.targets()
        self.films, self.size = films, size
        self.counts = [1 if views == "whole" else fixed for fixed in films.fixed]
        self.kept: list[Tensor] | None = None
        if 2 * size**2 * sum(self.counts) <= _KEEP_BYTES:
            bar = tqdm(range(len(films)), f"views of {films.benchmark.name}", leave=False, disable=not progress)
            self.kept = [self._cut(i).half() for i in bar]

    def _cut(self, i: int) -> Tensor:
        return extract_views(self.films.benchmark.read(i), self.films.boxes[i][: self.counts[i]], self.size)

    def batch(self, rows: list[int]) -> list[Tensor]:
        cut = ahead(self._cut, rows, decode_threads()) if self.kept is None else (self.kept[i].float() for i in rows)
        padded = torch.zeros(len(rows), max(self.counts[i] for i in rows), self.size, self.size)
        real = torch.zeros(padded.shape[:2], dtype=torch.bool)
        for n, views in enumerate(cut):
            padded[n, : len(views)], real[n, : len(views)] = views, True
        return [padded, real]


FilmInputs = EmbeddingInputs | ViewInputs


class _Module:
    """A module and its inputs as :class:`medbridge.train.Trainee`."""

    def __init__(self, module: nn.Module, train: FilmInputs, val: FilmInputs, config: TrainConfig, title: str) -> None:
        self.module, self.learners, self.config, self.title = module, [module], config, title
        self.train, self.val = train, val
        self.known, self.held_out = (train.targets, train.mask), (val.targets, val.mask)

    def batch(self, epoch: int, rows: list[int]) -> list[Tensor]:
        return self.train.batch(rows)

    def losses(self, forward: Callable[..., Tensor], part: Pass, device: torch.device) -> list[Tensor]:
        logits = forward(*(x.to(device) for x in part.batch))
        return [LOSSES[self.config.loss](logits, part.targets.to(device), part.mask.to(device))]

    def scores(self) -> np.ndarray:
        return score_module(self.module, self.val, self.config.batch_size)

    def state(self) -> dict[str, Tensor]:
        # buffers such as the statistics of a batch norm are trained too
        trained = {name: p.detach() for name, p in self.module.named_parameters() if p.requires_grad}
        return trained | dict(self.module.named_buffers())


def train_module(
    module: nn.Module, train: FilmInputs, val: FilmInputs, config: TrainConfig, rate: float, title: str = "training",
    progress: bool = True,
) -> float:
    """Train what requires a gradient in ``module`` (inputs of a batch -> logits ``(B, C)``), in place, by the loop of all; the
    best validation :func:`medbridge.metrics.evaluate.merit`, whose epoch it ends with."""
    # the average, passes and precision belong to MedBridge: published methods have none
    config = replace(config, lr=rate, ema=0.0, accumulate=1, mixed_precision="no")
    return Loop(_Module(module, train, val, config, title), config, progress=progress).run().best_auc


def score_module(module: nn.Module, films: FilmInputs, batch_size: int) -> np.ndarray:
    """Probabilities float64 ``(n, C)`` of a module, in eval mode."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    chunks = (rows.tolist() for rows in torch.arange(len(films.targets)).split(batch_size))
    module.eval()
    with torch.inference_mode():
        parts = [module(*(x.to(device) for x in inputs)).sigmoid().double().cpu()
                 for inputs in prefetch(map(films.batch, chunks))]
    return torch.cat(parts).numpy()

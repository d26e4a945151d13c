"""The training loop that all trained baselines share, so that none gets more than another. [ours]

As :mod:`medbridge.train` does it: AdamW, a cosine schedule with warm-up, BCE with unknown labels masked, clipped gradients,
the epoch with the best validation mean AUC kept, the run ended when patience is spent. One seed fixes the order of the films.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from medbridge.features.cache import CachedFilms
from medbridge.focal import extract_views
from medbridge.losses import LOSSES
from medbridge.metrics.evaluate import auc
from medbridge.train import TrainConfig, cosine_schedule

__all__ = ["EmbeddingInputs", "FilmInputs", "ViewInputs", "merit", "score_module", "train_module"]

_KEEP_BYTES = 2**31  # views of more films than fit here are decoded again in every epoch


class FilmInputs(Dataset):
    """What a module is fed: item i is the tuple of tensors of film i; ``collate`` makes a batch of them.

    Attributes:
        targets, mask: float32 and bool ``(n, C)``.
        workers: processes that the items are read in.
    """

    workers: int = 0

    def __init__(self, films: CachedFilms) -> None:
        y, mask = films.benchmark.targets()
        self.targets, self.mask = torch.from_numpy(y), torch.from_numpy(mask)

    def __len__(self) -> int:
        return len(self.targets)

    def collate(self, items: list[tuple]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Items -> inputs of the module, targets, mask."""
        rows = torch.tensor([item[0] for item in items])
        return [torch.stack(parts) for parts in zip(*(item[1:] for item in items), strict=True)], self.targets[rows], \
            self.mask[rows]

    def loader(self, batch_size: int, order: list[int] | range) -> DataLoader:
        """Batches of the films in this order."""
        return DataLoader(self, batch_size, sampler=order, collate_fn=self.collate, num_workers=self.workers)


class EmbeddingInputs(FilmInputs):
    """One frozen vector ``(d,)`` a film."""

    def __init__(self, films: CachedFilms, embeddings: Tensor) -> None:
        super().__init__(films)
        self.embeddings = embeddings

    def __getitem__(self, i: int) -> tuple[int, Tensor]:
        return i, self.embeddings[i]


class ViewInputs(FilmInputs):
    """The views of a film as pictures, padded to the same number in a batch: ``(B, N, R, R)`` in [0, 1], real ``(B, N)``.

    Args:
        films: the boxes of their views are used, so that a method sees what the frozen features were made of.
        size: input size R.
        views: 'whole' (the whole film) or 'all' (whole film and sliding windows).
        progress: show a bar while films are decoded.
    """

    def __init__(self, films: CachedFilms, size: int, views: str = "whole", progress: bool = True) -> None:
        super().__init__(films)
        self.films, self.size = films, size
        self.counts = [1 if views == "whole" else fixed for fixed in films.fixed]
        self.kept: list[Tensor] | None = None
        if 2 * size**2 * sum(self.counts) <= _KEEP_BYTES:
            bar = tqdm(range(len(self)), f"views of {films.benchmark.name}", leave=False, disable=not progress)
            self.kept = [self._cut(i).half() for i in bar]
        elif torch.cuda.is_available():
            self.workers = 8

    def _cut(self, i: int) -> Tensor:
        return extract_views(self.films.benchmark.read(i), self.films.boxes[i][: self.counts[i]], self.size)

    def __getitem__(self, i: int) -> tuple[int, Tensor]:
        return i, self._cut(i) if self.kept is None else self.kept[i].float()

    def collate(self, items: list[tuple]) -> tuple[list[Tensor], Tensor, Tensor]:
        most = max(len(views) for _, views in items)
        padded = torch.zeros(len(items), most, self.size, self.size)
        real = torch.zeros(len(items), most, dtype=torch.bool)
        for row, (_, views) in enumerate(items):
            padded[row, : len(views)], real[row, : len(views)] = views, True
        rows = torch.tensor([i for i, _ in items])
        return [padded, real], self.targets[rows], self.mask[rows]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_module(
    module: nn.Module, train: FilmInputs, val: FilmInputs, config: TrainConfig, rate: float, title: str = "training",
    progress: bool = True,
) -> float:
    """Train what requires a gradient in ``module``, in place; it ends with the weights of its best epoch.

    Args:
        module: inputs of a batch -> logits ``(B, C)``.
        rate: learning rate; the other settings are those of ``config``.

    Returns:
        The best validation mean AUC (minus the log-loss where no label has both classes).

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    device = _device()
    module.to(device)
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    # prompts, keys, biases and norms are not decayed, as in medbridge.train
    decayed = {name for name, p in named.items() if p.dim() > 1 and name.endswith("weight")}
    groups = [{"params": [named[n] for n in named if n in decayed], "weight_decay": config.weight_decay},
              {"params": [named[n] for n in named if n not in decayed], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=rate)
    steps, step = math.ceil(len(train) / config.batch_size) * config.epochs, 0
    criterion, best, best_epoch, kept = LOSSES[config.loss], -math.inf, -1, {}
    bar = tqdm(range(config.epochs), title, unit="epoch", leave=False, disable=not progress)
    for epoch in bar:
        module.train()
        order = np.random.default_rng([config.seed, epoch]).permutation(len(train)).tolist()
        for inputs, targets, mask in train.loader(config.batch_size, order):
            for group in optimizer.param_groups:
                group["lr"] = rate * cosine_schedule(step, steps, config.warmup)
            loss = criterion(module(*(x.to(device) for x in inputs)), targets.to(device), mask.to(device))
            if not torch.isfinite(loss):
                raise FloatingPointError(f"{title}: the loss is {loss.item()} in epoch {epoch}; try a lower rate")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(list(named.values()), 1.0)
            optimizer.step()
            step += 1
        found = merit(val.targets.numpy(), score_module(module, val, config.batch_size), val.mask.numpy())
        if found > best:
            best, best_epoch, kept = found, epoch, _snapshot(module)
        bar.set_postfix(best=f"{best:.3f}")
        if epoch - best_epoch >= config.patience:
            break
    with torch.no_grad():
        now = _snapshot(module, copy=False)
        for name, value in kept.items():
            now[name].copy_(value)
    module.eval()
    return best


def _snapshot(module: nn.Module, copy: bool = True) -> dict[str, Tensor]:
    """What training may change: trained parameters, and buffers such as the statistics of a batch norm."""
    state = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad} | dict(module.named_buffers())
    return {name: value.clone() for name, value in state.items()} if copy else state


def merit(y: np.ndarray, p: np.ndarray, mask: np.ndarray) -> float:
    """What settings and epochs are chosen by: the mean AUC over the labels that have one; minus the log-loss where none has."""
    scores = auc(y, p, mask)
    if not np.isnan(scores).all():
        return float(np.nanmean(scores))
    p = p.clip(1e-7, 1 - 1e-7)
    return float((y * np.log(p) + (1 - y) * np.log(1 - p))[mask].mean()) if mask.any() else -math.inf


def score_module(module: nn.Module, films: FilmInputs, batch_size: int) -> np.ndarray:
    """Probabilities float64 ``(n, C)`` of a module, in eval mode."""
    device = next((p.device for p in module.parameters()), _device())
    module.eval()
    with torch.inference_mode():
        parts = [module(*(x.to(device) for x in inputs)).sigmoid().double().cpu()
                 for inputs, _, _ in films.loader(batch_size, range(len(films)))]
    return torch.cat(parts).numpy()

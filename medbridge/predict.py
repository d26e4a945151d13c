"""Scores of films: of a benchmark through the cache, or of one film at a time without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from medbridge.batch import collate, draw_views
from medbridge.benchmarks import Benchmark
from medbridge.cache import CachedFilms, FilmFeatures, compute_features, encode_views
from medbridge.focal import extract_views, relative_boxes
from medbridge.model import MedBridge, Output

__all__ = ["Prediction", "film_features", "outputs", "predict", "predict_film"]


@dataclass
class Prediction:
    """Scores of n films.

    Attributes:
        probabilities: float64 ``(n, C)``, the sigmoid of the mixture's logits.
        expert_logits: float64 ``(n, K, C)``.
        weights: float64 ``(n, K, C)``, the router's.
    """

    probabilities: np.ndarray
    expert_logits: np.ndarray
    weights: np.ndarray

    def select(self, columns: Sequence[int]) -> Prediction:
        """The scores of these labels alone, in this order."""
        at = list(columns)
        return Prediction(self.probabilities[:, at], self.expert_logits[:, :, at], self.weights[:, :, at])


def predict(
    model: MedBridge, films: Benchmark | CachedFilms, batch_size: int = 32, cache: str | Path | None = None,
    workers: int | None = None, progress: bool = True,
) -> Prediction:
    """Score every film of a benchmark (all its splits) with its sliding windows.

    Args:
        model: the model.
        films: a benchmark, or its frozen features where they are at hand.
        batch_size: films at a time.
        cache, workers, progress: as in :func:`medbridge.cache.compute_features`.

    Raises:
        ImageError: a film cannot be read.
    """
    if isinstance(films, Benchmark):
        films = compute_features(films, list(model.experts), model.depths, model.sampler, False, cache, workers, progress)
    found = list(outputs(model, films, batch_size, progress))
    return Prediction(
        _numpy([o.logits.sigmoid() for o in found]), _numpy([o.expert_logits for o in found]), _numpy([o.weights for o in found]))


def outputs(model: MedBridge, films: CachedFilms, batch_size: int = 32, progress: bool = False) -> Iterator[Output]:
    """All that the model says of the films and their sliding windows, ``batch_size`` films at a time, in their order."""
    starts = tqdm(range(0, len(films), batch_size), "scoring", leave=False, disable=not progress)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in starts:
                rows = range(start, min(start + batch_size, len(films)))
                yield model(collate([draw_views(films[i]) for i in rows]).to(model.device))
    finally:
        model.train(training)


def _numpy(parts: list[Tensor]) -> np.ndarray:
    return torch.cat(parts).double().cpu().numpy()


def film_features(model: MedBridge, film: np.ndarray) -> tuple[FilmFeatures, np.ndarray]:
    """Frozen features of one decoded film ``(H, W)`` in [0, 1], without the cache; and its boxes ``(N, 4)`` in pixels."""
    boxes = model.sampler.inference_boxes(*film.shape)
    views = {kind: extract_views(film, boxes, *kind) for kind in {e.view_kind for e in model.experts}}
    outs = [encode_views(e, views[e.view_kind], d) for e, d in zip(model.experts, model.depths, strict=True)]
    maps = [[o.maps[d] for d in depths] for o, depths in zip(outs, model.depths, strict=True)]
    relative = torch.from_numpy(relative_boxes(boxes, *film.shape))
    return FilmFeatures(maps, [o.summary for o in outs], relative, len(boxes)), boxes


def predict_film(model: MedBridge, film: np.ndarray) -> np.ndarray:
    """Probabilities ``(C,)`` float64 of one decoded film ``(H, W)`` in [0, 1]."""
    features, _ = film_features(model, film)
    with torch.inference_mode():
        output = model.eval()(collate([features]).to(model.device))
    return output.logits[0].sigmoid().double().cpu().numpy()

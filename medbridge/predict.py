"""Scores of films, of a benchmark through the cache, or of one film without it. Files: :mod:`medbridge.cli.predict`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from tqdm.auto import tqdm

from medbridge.features.batch import collate, encode_films
from medbridge.features.encode import film_views
from medbridge.features.films import FilmFeatures, FrozenFilms
from medbridge.focal import relative_boxes
from medbridge.model import MedBridge, Output
from medbridge.support.processes import gather_rows, ranks
from medbridge.support.threads import prefetch


@dataclass
class Prediction:
    """Scores of n films.

    Attributes:
        probabilities: float64 ``(n, C)``, the sigmoid of the mixture's logits.
        expert_logits, weights: float64 ``(n, K, C)``, the experts' own and the router's.
    """

    probabilities: np.ndarray
    expert_logits: np.ndarray
    weights: np.ndarray

    def select(self, columns: Sequence[int]) -> Self:
        """The scores of these labels alone, in this order."""
        at = list(columns)
        return Prediction(self.probabilities[:, at], self.expert_logits[:, :, at], self.weights[:, :, at])


def predict(model: MedBridge, films: FrozenFilms, batch_size: int = 32, progress: bool = True) -> Prediction:
    """Score every film with its sliding windows, ``batch_size`` films at a time.

    Under ``accelerate launch`` each process scores its share, and all get all scores; all of them must call it.
    """
    rank, world = ranks()
    mine = range(rank, len(films), world)
    parts = [[x.double().cpu().numpy() for x in (o.logits.sigmoid(), o.expert_logits, o.weights)]
             for o in outputs(model, films, batch_size, progress and rank == 0, mine)]
    k, c = len(model.experts), len(model.labels)
    empty = [np.empty((0, c)), np.empty((0, k, c)), np.empty((0, k, c))]
    return Prediction(*(gather_rows(np.concatenate(x)) for x in zip(empty, *parts, strict=True)))


def outputs(
    model: MedBridge, films: Sequence[FilmFeatures], batch_size: int = 32, progress: bool = False,
    rows: Sequence[int] | None = None, member: int | None = None,
) -> Iterator[Output]:
    """All that the model, or one ``member``, says of the films (or of these ``rows``) and their sliding windows, ``batch_size``
    films at a time, in their order; a thread reads ahead."""
    rows = range(len(films)) if rows is None else rows
    starts = tqdm(range(0, len(rows), batch_size), "scoring", leave=False, disable=not progress)
    batches = (rows[start : start + batch_size] for start in starts)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in prefetch(collate([films[i].draw() for i in batch]) for batch in batches):
                yield model(batch.to(model.device), member)
    finally:
        model.train(training)


def film_features(model: MedBridge, film: np.ndarray) -> tuple[FilmFeatures, np.ndarray]:
    """Frozen features of one decoded film ``(H, W)`` in [0, 1], without the cache; and its boxes ``(N, 4)`` in pixels."""
    boxes = model.sampler.inference_boxes(*film.shape)
    views = film_views(lambda: film, boxes, {e.view_kind for e in model.experts})
    return encode_films(model, [(relative_boxes(boxes, *film.shape), views)])[0], boxes


def predict_film(model: MedBridge, film: np.ndarray) -> np.ndarray:
    """Probabilities ``(C,)`` float64 of one decoded film ``(H, W)`` in [0, 1]."""
    features, _ = film_features(model, film)
    with torch.inference_mode():
        output = model.eval()(collate([features]).to(model.device))
    return output.logits[0].sigmoid().double().cpu().numpy()

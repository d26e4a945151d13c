"""Linear probe: logistic regression on frozen features, its strength of regularisation chosen on the validation split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from medbridge.cache import CachedFilms
from medbridge.evaluate import auc

__all__ = ["LinearProbe"]


class LinearProbe:
    """One logistic regression a label on the experts' summaries, concatenated.

    Args:
        experts: which of the cached experts; ``None`` takes all.
        views: 'whole' (the whole film, as usual) or 'all' (whole film, mean and maximum over all views: the same
            pictures that MedBridge sees).
        strengths: values of scikit-learn's C that are tried; the best mean validation AUC wins.

    A label with one class in training gets its prevalence for every film.
    """

    name = "linear probe"

    def __init__(
        self, experts: Sequence[int] | None = None, views: str = "whole",
        strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    ) -> None:
        if views not in ("whole", "all"):
            raise ValueError(f"views={views!r} is unknown; use 'whole' or 'all'")
        self.experts, self.views, self.strengths = experts, views, tuple(strengths)

    def _features(self, films: CachedFilms) -> np.ndarray:
        chosen = range(len(films.files)) if self.experts is None else self.experts
        return np.concatenate([films.pooled("summary", k, self.views) for k in chosen], axis=1)

    def fit(self, train: CachedFilms, val: CachedFilms) -> LinearProbe:
        """Fit on train; choose C on val."""
        x, (y, mask) = self._features(train), train.benchmark.targets()
        x_val, (y_val, mask_val) = self._features(val), val.benchmark.targets()
        best = -np.inf
        for strength in self.strengths:
            with threadpool_limits(1):  # thousands of small products: starting threads costs more than they bring
                models = [_fit_label(x, y[:, c], mask[:, c], strength) for c in range(y.shape[1])]
            scores = auc(y_val, _scores(models, x_val), mask_val)
            merit = float(np.nanmean(scores)) if not np.isnan(scores).all() else -abs(np.log10(strength) + 2)
            if merit > best:
                best, self.models, self.strength = merit, models, strength
        return self

    def predict_proba(self, films: CachedFilms) -> np.ndarray:
        """Probabilities float64 ``(n, C)``."""
        return _scores(self.models, self._features(films))


def _fit_label(x: np.ndarray, y: np.ndarray, mask: np.ndarray, strength: float) -> Pipeline | float:
    known = y[mask]
    if len(np.unique(known)) < 2:
        return float(known.mean()) if len(known) else 0.5
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(x[mask], known)


def _scores(models: list[Pipeline | float], x: np.ndarray) -> np.ndarray:
    return np.stack(
        [np.full(len(x), m) if isinstance(m, float) else m.predict_proba(x)[:, 1] for m in models], axis=1)

"""Linear probe: logistic regression on frozen features, its strength of regularisation chosen on the validation split."""

from typing import Self

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from medbridge.baselines.base import Baseline
from medbridge.features.cache import CachedFilms
from medbridge.metrics.evaluate import merit


class LinearProbe(Baseline):
    """One logistic regression per label on the experts' summaries, concatenated ('all' views: whole film, mean and maximum); a
    label with one class in training gets its prevalence. ``strengths``: values of scikit-learn's C in order of preference."""

    name = "linear probe"
    seeded = False
    need = ""
    options = (("strengths", (1e-2, 1e-3, 1e-1, 1e-4, 1.0)),)

    def _features(self, films: CachedFilms) -> np.ndarray:
        return np.concatenate([films.pooled("summary", k, self.views) for k in range(len(films.located))], axis=1)

    def fit(self, train: CachedFilms, val: CachedFilms) -> Self:
        """Fit on train; choose C by the mean AUC on val."""
        x, (y, mask) = self._features(train), train.benchmark.targets()
        x_val, (y_val, mask_val) = self._features(val), val.benchmark.targets()
        best, self.modules = -np.inf, []
        for strength in self.strengths[: self.tries]:
            with threadpool_limits(1):  # thousands of small products: starting threads costs more than they bring
                models = [_fit_label(x, y[:, c], mask[:, c], strength) for c in range(y.shape[1])]
            value = merit(y_val, _scores(models, x_val), mask_val)
            if value > best or not self.modules:
                best, self.modules, self.strength = value, models, strength
        return self

    def predict_proba(self, films: CachedFilms) -> np.ndarray:
        """Probabilities float64 ``(n, C)``."""
        return _scores(self.fitted(), self._features(films))

    @property
    def trainable_parameters(self) -> int:
        """Weights and intercepts of all labels; after ``fit``."""
        return sum(1 if isinstance(m, float) else m[-1].coef_.size + 1 for m in self.fitted())


def _fit_label(x: np.ndarray, y: np.ndarray, mask: np.ndarray, strength: float) -> Pipeline | float:
    known = y[mask]
    if len(np.unique(known)) < 2:
        return float(known.mean()) if len(known) else 0.5
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(x[mask], known)


def _scores(models: list[Pipeline | float], x: np.ndarray) -> np.ndarray:
    columns = [np.full(len(x), m) if isinstance(m, float) else m.predict_proba(x)[:, 1] for m in models]
    return np.stack(columns, axis=1).astype(np.float64)

"""Linear probe: logistic regression on frozen features, its strength of regularisation chosen on the validation split."""

from typing import Self

import numpy as np
from scipy.special import expit

from medbridge.baselines.base import Baseline
from medbridge.features.films import FrozenFilms
from medbridge.metrics.evaluate import merit
from medbridge.support.logistic import fit_logistic


class LinearProbe(Baseline):
    """One logistic regression per label on the experts' summaries, concatenated ('all' views: whole film, mean and maximum); a
    label with one class in training gets its prevalence. ``strengths``: values of scikit-learn's C in order of preference. The
    best on val is fitted again to train and val together: MedBridge's members learn from both as well."""

    name = "linear probe"
    seeded = False
    need = ""
    options = (("strengths", (1e-2, 1e-3, 1e-1, 1e-4, 1.0)),)

    def _features(self, films: FrozenFilms) -> np.ndarray:
        return np.concatenate([films.pooled("summary", k, self.views) for k in range(len(films.depths))], axis=1)

    def fit(self, train: FrozenFilms, val: FrozenFilms) -> Self:
        """Choose C by the mean AUC on val; fit on both."""
        x, (y, mask) = self._features(train), train.benchmark.targets()
        x_val, (y_val, mask_val) = self._features(val), val.benchmark.targets()
        scores = {strength: _scores(fit_logistic(x, y, mask, strength), x_val) for strength in self.strengths[: self.tries]}
        self.strength = max(scores, key=lambda strength: merit(y_val, scores[strength], mask_val))
        self.val_scores = scores[self.strength]
        both = [np.concatenate(parts) for parts in ((x, x_val), (y, y_val), (mask, mask_val))]
        self.modules = fit_logistic(*both, self.strength)
        return self

    def predict_proba(self, films: FrozenFilms) -> np.ndarray:
        return _scores(self.fitted(), self._features(films))

    @property
    def trainable_parameters(self) -> int:
        weights, biases = self.fitted()
        return weights.size + biases.size


def _scores(fitted: tuple[np.ndarray, np.ndarray], x: np.ndarray) -> np.ndarray:
    weights, biases = fitted
    return expit(x.astype(np.float64) @ weights.T + biases)

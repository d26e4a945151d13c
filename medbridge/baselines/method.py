"""One interface for MedBridge and all that it is compared with: ``fit``, ``predict_proba``, and how much was trained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from medbridge.experts import Expert
from medbridge.features.films import FrozenFilms
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge
from medbridge.predict import predict
from medbridge.prompts import ClassPrompts
from medbridge.train import History, TrainConfig, fit

TRIES = 3  # settings that each method may try on the validation split: the tuning budget that all share


class Method(ABC):
    """What can be fitted to cached films and scores others.

    Attributes:
        name: of the method, in tables and for :func:`medbridge.baselines.create_method`.
        seeded: whether another seed gives other scores.
        learns: whether the training films matter: zero-shot's do not.
        val_scores: after ``fit``, probabilities ``(n, C)`` of the validation films by what did not learn from them; None where
            ``predict_proba`` gives those.
    """

    name: ClassVar[str]
    seeded: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    val_scores: np.ndarray | None = None

    @abstractmethod
    def fit(self, train: FrozenFilms, val: FrozenFilms) -> Self:
        """Learn from train; choose settings on val."""

    @abstractmethod
    def predict_proba(self, films: FrozenFilms) -> np.ndarray:
        """Probabilities float64 ``(n, C)``."""

    @property
    @abstractmethod
    def trainable_parameters(self) -> int:
        """Numbers that training changed, over all experts; after ``fit``."""


class MedBridgeMethod(Method):
    """MedBridge among the methods: the network trained at ``tries`` learning rates, of which the best on val is kept.

    Args:
        experts, labels, prompts, adapter, sampler: as :class:`medbridge.model.MedBridge`.
        views: here so that all methods are built alike; MedBridge sees what the sampler cuts.
        config: of training. Its ``lr`` is read where ``tries`` is 1; else the first of :attr:`rates` are tried.
        out: folder of checkpoints: the same call goes on where it stopped. More than one rate: a folder each in it.
        tensorboard, progress: as in :func:`medbridge.train.fit`.

    Attributes: ``model``, the network, before ``fit`` an untrained one that says what features it reads; ``history``.
    """

    name = "MedBridge"
    rates: ClassVar[tuple[float, ...]] = (1e-3, 3e-4, 3e-3)

    def __init__(
        self, experts: Sequence[Expert | str], labels: Sequence[str], views: str = "all",
        prompts: Mapping[str, ClassPrompts] | None = None, config: TrainConfig | None = None, tries: int = 1,
        progress: bool = True, adapter: AdapterConfig | None = None, sampler: FocalSampler | None = None,
        out: str | Path | None = None, tensorboard: bool = False,
    ) -> None:
        if tries < 1:
            raise ValueError(f"tries={tries} must be at least 1")
        self.config, self.tries, self.progress = config or TrainConfig(), tries, progress
        self.out, self.tensorboard = out, tensorboard
        self.model = MedBridge(experts, labels, adapter, sampler, prompts, self.config.seed)
        self.history = History()

    def fit(self, train: FrozenFilms, val: FrozenFilms) -> Self:
        """Train at every rate of the budget; keep the best on val."""
        start, self.history = self.model, History()
        for rate in [self.config.lr] if self.tries == 1 else self.rates[: self.tries]:
            model = MedBridge(start.experts, start.labels, start.config, start.sampler, start.prompts, self.config.seed)
            folder = self.out if self.out is None or self.tries == 1 else Path(self.out) / f"rate{rate:g}"
            history = fit(model, train, val, replace(self.config, lr=rate), folder, self.progress, tensorboard=self.tensorboard)
            if not self.history.rows or history.best_auc > self.history.best_auc:
                self.model, self.history, self.val_scores = model, history, history.val_scores
        return self

    def predict_proba(self, films: FrozenFilms) -> np.ndarray:
        return predict(self.model, films, self.config.batch_size, self.progress).probabilities

    @property
    def trainable_parameters(self) -> int:
        return sum(p.numel() for p in self.model.trainable().values())

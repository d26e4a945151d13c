"""Zero-shot: cosine with the class prompts, nothing trained (Radford et al., CLIP, 2021, section on zero-shot transfer)."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch

from medbridge.baselines.base import check_tries, film_embeddings
from medbridge.errors import ExpertError
from medbridge.experts import Expert
from medbridge.features.cache import CachedFilms
from medbridge.method import Method
from medbridge.prompts import ClassPrompts, encode_prompts
from medbridge.train import TrainConfig


class ZeroShot(Method):
    """Positive against negative prompt of each label, mean over the experts whose images and texts share a space.

    Args:
        experts: K experts, the same as in the cached features; vision-only ones are left out. labels: C labels.
        views, prompts: as in :func:`medbridge.baselines.base.film_embeddings` and :func:`medbridge.prompts.encode_prompts`.
        config, tries, progress: here so that all methods are built alike.
        scale: factor of the cosine difference before the sigmoid; 100 as in CLIP.

    Raises:
        ExpertError: no expert is aligned with text.
    """

    name = "zero-shot"
    seeded = learns = False
    trainable_parameters = 0

    def __init__(self, experts: Sequence[Expert], labels: Sequence[str], views: str = "whole",
                 prompts: Mapping[str, ClassPrompts] | None = None, config: TrainConfig | None = None, tries: int = 1,
                 progress: bool = True, scale: float = 100.0) -> None:
        check_tries(1, views)
        self.scale, self.views, self.directions = scale, views, {}
        for k, expert in enumerate(experts):
            if expert.aligned:
                positive, negative = encode_prompts(expert, labels, prompts)
                self.directions[k] = (positive - negative).cpu().numpy()
        if not self.directions:
            names = ", ".join(e.name for e in experts)
            raise ExpertError(f"zero-shot needs an expert whose images and texts share a space; {names} has no such space")

    def fit(self, train: CachedFilms, val: CachedFilms) -> Self:
        """Nothing to learn."""
        return self

    def predict_proba(self, films: CachedFilms) -> np.ndarray:
        """Probabilities float64 ``(n, C)``: softmax of positive against negative prompt."""
        # score_c = s cos(f, t_c^+) - s cos(f, t_c^-)
        logits = [self.scale * film_embeddings(films, k, self.views).numpy() @ t.T for k, t in self.directions.items()]
        return torch.sigmoid(torch.from_numpy(np.mean(logits, axis=0)).double()).numpy()

"""Zero-shot: cosine with the class prompts, nothing trained (Radford et al., CLIP, 2021, section on zero-shot transfer)."""

from typing import Self

import numpy as np
import torch

from medbridge.baselines.base import Baseline, film_embeddings, prompt_sides
from medbridge.features.films import FrozenFilms


class ZeroShot(Baseline):
    """Positive against negative prompt of each label, mean over the experts whose images and texts share a space.

    The tiny experts know no finding's name: on 1,200 synthetic films (seeds 1 and 2) a label's own prompts had a mean AUC of 0.49
    (tiny-resnet) and 0.54 (tiny-vit), the prompts of *other* labels 0.47 and 0.54. An AUC far below 0.5 is such an accident.
    """

    name = "zero-shot"
    seeded = learns = False
    trainable_parameters = 0
    scale = 100.0  # as CLIP's, for all experts

    def fit(self, train: FrozenFilms, val: FrozenFilms) -> Self:
        return self

    def predict_proba(self, films: FrozenFilms) -> np.ndarray:
        """Probabilities float64 ``(n, C)``: softmax of positive against negative prompt."""
        logits = []
        for k in self.used:
            positive, negative = prompt_sides(self.experts[k], self.labels, self.prompts)
            # score_c = s cos(f, t_c^+) - s cos(f, t_c^-)
            logits.append(self.scale * film_embeddings(films, k, self.views).numpy() @ (positive - negative).numpy().T)
        return torch.sigmoid(torch.from_numpy(np.mean(logits, axis=0)).double()).numpy()

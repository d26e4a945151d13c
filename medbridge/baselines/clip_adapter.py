r"""CLIP-Adapter (Gao et al., "CLIP-Adapter: better vision-language models with feature adapters", IJCV 2024, arXiv
2110.04544): a bottleneck after the frozen image encoder, mixed with its output."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.baselines.base import TrainedBaseline, prompt_sides, temperature
from medbridge.features.films import FrozenFilms


class FeatureAdapter(nn.Module):
    """Image embeddings ``(B, d)``, of any length, -> logits ``(B, C)``, with frozen prompts ``(C, d)`` and ``scale`` s.

    ``alpha`` is the share of the adapted feature, ``reduction`` the width d over the bottleneck's.
    """

    def __init__(self, positive: Tensor, negative: Tensor, scale: float, alpha: float = 0.2, reduction: int = 4) -> None:
        super().__init__()
        width, narrow = positive.shape[1], max(1, positive.shape[1] // reduction)
        self.register_buffer("direction", positive - negative, persistent=False)
        self.scale, self.alpha = scale, alpha
        self.down, self.up = nn.Linear(width, narrow, bias=False), nn.Linear(narrow, width, bias=False)

    def forward(self, f: Tensor) -> Tensor:
        # A(f) = ReLU(ReLU(f W_1) W_2)
        adapted = torch.relu(self.up(torch.relu(self.down(f))))
        # f* = alpha A(f) + (1 - alpha) f
        mixed = self.alpha * adapted + (1 - self.alpha) * f
        # score_c = s cos(f*, t_c^+) - s cos(f*, t_c^-)
        return self.scale * F.normalize(mixed, dim=-1) @ self.direction.T


class CLIPAdapter(TrainedBaseline):
    """The visual adapter alone, with the residual ratio 0.2, the reduction 4 and the ReLU after W_2 of the authors' code (the
    paper's equation has none there). [ours] Present against absent, not class against class; the rates reach higher; AdamW."""

    name = "CLIP-Adapter"
    grid = ({"rate": 1e-2}, {"rate": 1e-1}, {"rate": 1e-3})

    def build(self, k: int, train: FrozenFilms) -> FeatureAdapter:
        expert = self.experts[k]
        return FeatureAdapter(*prompt_sides(expert, self.labels, self.prompts), temperature(expert))

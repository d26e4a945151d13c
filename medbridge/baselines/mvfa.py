r"""Multi-level residual adapters, after MVFA (Huang et al., "Adapting visual-language models for generalizable anomaly
detection in medical images", CVPR 2024): at some depths of the frozen tower an adapter of two layers is mixed into the tokens,
and its bottleneck, as wide as the text space, is what meets the prompts.

gamma 0.1, four depths at equal distances (6, 12, 18, 24 of ViT-L) and the rate 0.001 that is tried first, as in the authors'
code. It is MVFA-style and no more: the published method tells one anomaly from normal, this one C labels (positive minus
negative prompt); its second branch of adapters, which takes another 0.1, needs pixel masks, and its memory of normal films has
no multi-label form, so both are left out; that code takes the mean of probabilities, this one of logits, to share the loss of
all baselines. In a ResNet the tokens are the positions of a stage's map [ours]. Vision-only experts can be used: the
bottleneck learns the way into their borrowed text space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.baselines.base import prompt_sides, temperature
from medbridge.baselines.towers import Tower, TowerBaseline, film_mean
from medbridge.experts import Expert
from medbridge.features.cache import CachedFilms

__all__ = ["MVFA", "AdaptedTower", "ResidualAdapter", "spread_levels"]


def spread_levels(blocks: int, count: int) -> list[int]:
    """``count`` depths at equal distances, the last block included: 24 and 4 give 6, 12, 18, 24."""
    count = min(count, blocks)
    return sorted({round((i + 1) * blocks / count) for i in range(count)})


class ResidualAdapter(nn.Module):
    """Tokens ``(B, P, w)`` -> bottleneck ``(B, P, d)`` and mixed tokens ``(B, P, w)``."""

    def __init__(self, width: int, bottleneck: int, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.down, self.up = nn.Linear(width, bottleneck, bias=False), nn.Linear(bottleneck, width, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        # H_l = LeakyReLU(F_l W_1)
        hidden = F.leaky_relu(self.down(tokens))
        # A_l = LeakyReLU(H_l W_2),    F_l* = gamma A_l + (1 - gamma) F_l
        return hidden, self.gamma * F.leaky_relu(self.up(hidden)) + (1 - self.gamma) * tokens


class AdaptedTower(nn.Module):
    """Views ``(B, N, R, R)`` and real ``(B, N)`` -> logits ``(B, C)``.

    Args:
        expert: whose tower. positive, negative: prompts ``(C, d)``, frozen. scale: s.
        levels: how many depths. gamma: share of the adapter.
    """

    def __init__(self, expert: Expert, positive: Tensor, negative: Tensor, scale: float, levels: int, gamma: float) -> None:
        super().__init__()
        self.tower, self.scale = Tower(expert), scale
        self.register_buffer("direction", positive - negative, persistent=False)
        blocks = self.tower.blocks
        self.levels = spread_levels(len(blocks), levels)
        self.adapters = nn.ModuleList(ResidualAdapter(self.tower.widths[i - 1], positive.shape[1], gamma) for i in self.levels)
        self._hidden: list[Tensor] = []
        for i, adapter in zip(self.levels, self.adapters, strict=True):
            blocks[i - 1].register_forward_hook(self._hook(adapter))

    def _hook(self, adapter: ResidualAdapter) -> Callable:
        def hook(_: nn.Module, args: tuple, x: Tensor) -> Tensor:
            hidden, mixed = adapter(x.flatten(2).transpose(1, 2) if x.dim() == 4 else x)
            self._hidden.append(hidden if x.dim() == 4 else hidden[:, self.tower.prefix :])
            return mixed.transpose(1, 2).reshape(x.shape) if x.dim() == 4 else mixed

        return hook

    def forward(self, views: Tensor, real: Tensor) -> Tensor:
        self._hidden = []
        self.tower(views[real])
        # score_c = sum over l of mean over patches p of  s (cos(H_lp, t_c^+) - cos(H_lp, t_c^-))  /  number of depths
        scores = [(F.normalize(h.float(), dim=-1) @ self.direction.T).mean(dim=1) for h in self._hidden]
        self._hidden = []
        return self.scale * film_mean(torch.stack(scores).mean(dim=0), real)


class MVFA(TowerBaseline):
    """MVFA-style residual adapters at ``levels`` depths, each with the share ``gamma``; the other arguments as
    :class:`medbridge.baselines.base.TrainedBaseline`."""

    name = "MVFA-style adapters"
    grid = ({"rate": 1e-3}, {"rate": 3e-3}, {"rate": 3e-4})

    def __init__(self, *args: Any, levels: int = 4, gamma: float = 0.1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if levels < 1 or not 0 <= gamma <= 1:
            raise ValueError(f"levels={levels} must be at least 1, gamma={gamma} in [0, 1]")
        self.levels, self.gamma = levels, gamma

    def build(self, k: int, train: CachedFilms, **setting: Any) -> AdaptedTower:
        expert = self.experts[k]
        prompts = prompt_sides(expert, self.labels, self.prompts)
        return AdaptedTower(expert, *prompts, temperature(expert), self.levels, self.gamma)

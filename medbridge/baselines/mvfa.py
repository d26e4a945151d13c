r"""Multi-level residual adapters, after MVFA (Huang et al., "Adapting visual-language models for generalizable anomaly
detection in medical images", CVPR 2024), whose bottlenecks, as wide as the text space, meet the prompts."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.baselines.base import prompt_sides, temperature
from medbridge.baselines.towers import Tower, TowerBaseline, film_mean
from medbridge.experts import Expert
from medbridge.features.films import FrozenFilms


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
    """Views ``(B, N, R, R)`` and real ``(B, N)`` -> logits ``(B, C)``, with frozen prompts ``(C, d)`` and ``scale`` s."""

    def __init__(self, expert: Expert, positive: Tensor, negative: Tensor, scale: float, levels: int, gamma: float) -> None:
        super().__init__()
        self.tower, self.scale = Tower(expert), scale
        self.register_buffer("direction", positive - negative, persistent=False)
        self.levels = spread_levels(len(self.tower.blocks), levels)
        self.adapters = nn.ModuleList(ResidualAdapter(self.tower.widths[i - 1], positive.shape[1], gamma) for i in self.levels)
        self.adapters[-1].up.requires_grad_(False)  # the last mixed tokens score nothing: it is neither trained nor counted
        self._hidden: list[Tensor] = []
        for i, adapter in zip(self.levels, self.adapters, strict=True):
            self.tower.blocks[i - 1].register_forward_hook(partial(self._adapt, adapter))

    def _adapt(self, adapter: ResidualAdapter, _: nn.Module, args: tuple, x: Tensor) -> Tensor:
        hidden, mixed = adapter(x.flatten(2).transpose(1, 2) if x.dim() == 4 else x)
        self._hidden.append(hidden[:, self.tower.prefix :])
        return mixed.transpose(1, 2).reshape(x.shape) if x.dim() == 4 else mixed

    def forward(self, views: Tensor, real: Tensor) -> Tensor:
        self._hidden.clear()
        self.tower(views[real])
        # score_c = sum over l of mean over patches p of  s (cos(H_lp, t_c^+) - cos(H_lp, t_c^-))  /  number of depths
        scores = [(F.normalize(h.float(), dim=-1) @ self.direction.T).mean(dim=1) for h in self._hidden]
        return self.scale * film_mean(torch.stack(scores).mean(dim=0), real)


class MVFA(TowerBaseline):
    """MVFA-style residual adapters at ``levels`` depths at equal distances, each with the share ``gamma``; 4 (6, 12, 18, 24 of
    ViT-L), 0.1 and the rate that is tried first are those of the authors' code.

    [ours] C labels, not one anomaly; no second branch of adapters, which needs pixel masks, and no memory of normal films, which
    has no multi-label form; the mean of logits, not of probabilities, to share the loss of all baselines. In a ResNet the tokens
    are the positions of a stage's map. A vision-only expert's bottleneck learns the way into its borrowed text space.
    """

    name = "MVFA-style adapters"
    grid = ({"rate": 1e-3}, {"rate": 3e-3}, {"rate": 3e-4})
    options = (("levels", 4), ("gamma", 0.1))

    def build(self, k: int, train: FrozenFilms) -> AdaptedTower:
        expert = self.experts[k]
        sides = prompt_sides(expert, self.labels, self.prompts)
        return AdaptedTower(expert, *sides, temperature(expert), self.levels, self.gamma)

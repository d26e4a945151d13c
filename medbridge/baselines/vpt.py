r"""VPT (Jia et al., "Visual prompt tuning", ECCV 2022): learned tokens beside the patches of a frozen tower, a linear head."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.baselines.towers import FilmScores, Tower, TowerBaseline, attach_prompts, is_plain_vit
from medbridge.features.films import FrozenFilms


class PromptedTower(nn.Module):
    """A plain ViT with ``count`` (p) prompts in each block: views ``(B, R, R)`` -> features; ``patch`` in pixels."""

    def __init__(self, tower: Tower, count: int, patch: int) -> None:
        super().__init__()
        self.tower, width = tower, tower.widths[0]
        bound = math.sqrt(6 / (3 * patch**2 + width))
        self.prompts = nn.Parameter(torch.empty(len(tower.blocks), count, width).uniform_(-bound, bound))
        # [x_i, _, E_i] = L_i([x_{i-1}, P_{i-1}, E_{i-1}]),    i = 1 ... T
        attach_prompts(tower, lambda: self.prompts.unbind(0))

    def forward(self, views: Tensor) -> Tensor:
        return self.tower(views)


class BorderedTower(nn.Module):
    """A tower behind a learned border of ``pad`` pixels in three colours around the shrunken view; 12 pad (R - pad) numbers."""

    inside: Tensor

    def __init__(self, tower: Tower, pad: int) -> None:
        super().__init__()
        self.tower, self.pad = tower, pad
        inside = torch.zeros(3, tower.size, tower.size, dtype=torch.bool)
        inside[:, pad:-pad, pad:-pad] = True
        self.register_buffer("inside", inside, persistent=False)
        self.border = nn.Parameter(torch.rand(int((~inside).sum())))

    def forward(self, views: Tensor) -> Tensor:
        small = F.interpolate(views[:, None], self.tower.size - 2 * self.pad, mode="bilinear", antialias=True)
        frame = torch.zeros_like(self.inside, dtype=views.dtype).masked_scatter(~self.inside, self.border)
        return self.tower(F.pad(small, (self.pad,) * 4) + frame)


class VPT(TowerBaseline):
    """VPT-deep on ViTs with ``count`` prompts in each block; on other towers the published variant for them ("prompts as
    padding"), a border of a sixteenth of the view. Both start as in the authors' code, where number and rate are tuned for each
    data set over dozens of runs."""

    name = "VPT"
    grid = ({"rate": 1e-2}, {"rate": 1e-3}, {"rate": 3e-2})
    options = (("count", 8),)

    def build(self, k: int, train: FrozenFilms) -> FilmScores:
        expert, tower = self.experts[k], Tower(self.experts[k])
        patch, pad = expert.size // expert.grids[0][0], max(1, tower.size // 16)
        module = PromptedTower(tower, self.count, patch) if is_plain_vit(expert) else BorderedTower(tower, pad)
        return self.scored(k, module, tower.dim)

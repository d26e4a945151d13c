r"""VPT (Jia et al., "Visual prompt tuning", ECCV 2022): learned tokens beside the patches of a frozen tower, and a linear
head.

A convolutional tower gets the published variant for them ("prompts as padding", location 'pad' in the authors' code). Prompts
and borders start as in that code. There the number of prompts and the rate of SGD are tuned for each data set over dozens of
runs; [ours] here it is 8 for all, and the rate is one of three of AdamW, as every baseline has it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.baselines.base import Option
from medbridge.baselines.towers import FilmScores, Tower, TowerBaseline, attach_prompts, is_plain_vit
from medbridge.features.cache import CachedFilms


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
        pictures = F.pad(small, (self.pad,) * 4) + frame
        return self.tower.encode((pictures - self.tower.mean) / self.tower.std)


class VPT(TowerBaseline):
    """VPT-deep on ViTs with ``count`` prompts in each block; on other towers a learned border, ``pad`` pixels wide (default a
    sixteenth of the view)."""

    name = "VPT"
    grid = ({"rate": 1e-2}, {"rate": 1e-3}, {"rate": 3e-2})
    options = (Option("count", 8), Option("pad", None))

    def build(self, k: int, train: CachedFilms) -> FilmScores:
        expert, tower = self.experts[k], Tower(self.experts[k])
        if is_plain_vit(expert):
            return FilmScores(PromptedTower(tower, self.count, expert.size // expert.grids[0][0]), self.head(k, tower))
        pad = self.pad or max(1, tower.size // 16)
        if 2 * pad >= tower.size:
            raise ValueError(f"pad={pad} leaves nothing of a view of {tower.size} pixels; make it smaller")
        return FilmScores(BorderedTower(tower, pad), self.head(k, tower))

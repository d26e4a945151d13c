r"""LoRA (Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022) on the vision tower.

    W = W_0 + (alpha / r) B A,    B = 0 at the start

A starts as a linear layer does, as in the authors' code. [ours] In a transformer block the attention is adapted (queries, keys,
values and output), with r = 8 and alpha = 2 r; in a ResNet, which has no attention before its pool, every convolution of its four
stages, whose kernel is a matrix of outputs by (inputs x height x width). The linear head is trained too.

The update is a parametrisation of the weight (:mod:`torch.nn.utils.parametrize`). peft 0.21 was used before: on
``nn.MultiheadAttention``, which open_clip's ViTs are made of, it adds B A of the output projection twice (its pull request 3774).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from medbridge.baselines.towers import FilmScores, Tower, TowerBaseline
from medbridge.cache import CachedFilms
from medbridge.errors import ExpertError
from medbridge.experts import Expert

__all__ = ["LoRA", "LowRank", "add_lora"]

# open_clip's ViT (queries, keys, values are one stacked matrix); its output, timm's ViT (also inside open_clip), ModifiedResNet
_TARGETS = re.compile(
    r"(.*transformer\.resblocks\.\d+\.attn)\.(in_proj_weight)"
    r"|(.*transformer\.resblocks\.\d+\.attn\.out_proj|(?:trunk\.)?blocks\.\d+\.attn\.(?:qkv|proj)|layer\d+\.\d+\.conv\d)"
    r"\.(weight)")


class LowRank(nn.Module):
    """A frozen weight ``(out, ...)`` -> the weight of the equation, of the same shape.

    Args:
        weight: W_0. rank: r. alpha: of the equation.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.A = nn.Linear(weight[0].numel(), rank, bias=False)
        self.B = nn.Linear(rank, len(weight), bias=False)
        nn.init.zeros_(self.B.weight)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.B.weight @ self.A.weight).reshape(weight.shape)


def add_lora(tower: Tower, rank: int, alpha: float) -> None:
    """Low-rank updates in the tower, in place; they alone require gradients.

    Raises:
        ExpertError: the tower holds nothing that is adapted.
    """
    found = [m for name, _ in list(tower.net.named_parameters()) if (m := _TARGETS.fullmatch(name))]
    if not found:
        raise ExpertError(f"{tower.name}: LoRA finds no layer to adapt here; choose a ViT or a ResNet")
    tower.net.requires_grad_(False)
    for m in found:
        layer, name = tower.net.get_submodule(m[1] or m[3]), m[2] or m[4]
        parametrize.register_parametrization(layer, name, LowRank(getattr(layer, name), rank, alpha))


class LoRA(TowerBaseline):
    """LoRA.

    Args:
        rank: r. alpha: of the equation.
        The others: as :class:`medbridge.baselines.base.TrainedBaseline`.
    """

    name = "LoRA"
    grid = ({"rate": 1e-3}, {"rate": 3e-3}, {"rate": 3e-4})

    def __init__(
        self, experts: Sequence[Expert], labels: Sequence[str], *args: Any, rank: int = 8, alpha: float = 16.0, **kwargs: Any
    ) -> None:
        super().__init__(experts, labels, *args, **kwargs)
        if rank < 1:
            raise ValueError(f"rank={rank} must be at least 1")
        self.rank, self.alpha = rank, alpha

    def build(self, k: int, train: CachedFilms, **setting: Any) -> nn.Module:
        tower = Tower(self.experts[k])
        add_lora(tower, self.rank, self.alpha)
        return FilmScores(tower, self.head(k, tower))

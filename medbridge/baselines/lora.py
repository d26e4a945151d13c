r"""LoRA (Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022) on the vision tower, by peft.

    h = W_0 x + (alpha / r) B A x,    B = 0 at the start

A starts as a linear layer does, as in the authors' code. [ours] In a transformer block the attention is adapted (queries, keys,
values and output), with r = 8 and alpha = 2 r; in a ResNet, which has no attention before its pool, every convolution of its four
stages. The linear head is trained too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from medbridge.baselines.towers import FilmScores, Tower, TowerBaseline
from medbridge.cache import CachedFilms
from medbridge.errors import ExpertError
from medbridge.experts import Expert

__all__ = ["LoRA", "add_lora"]

# one pattern a tower: open_clip's ViT, timm's ViT (also inside open_clip), ModifiedResNet
_TARGETS = r"transformer\.resblocks\.\d+\.attn|(trunk\.)?blocks\.\d+\.attn\.(qkv|proj)|layer\d+\.\d+\.conv\d"


def add_lora(tower: Tower, rank: int, alpha: float) -> None:
    """Low-rank updates in the tower, in place; they alone require gradients.

    Raises:
        ExpertError: peft is not installed, or the tower holds nothing that is adapted.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ExpertError("the LoRA baseline needs peft: pip install 'medbridge[baselines]'") from error
    try:
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=_TARGETS), tower.net)
    except ValueError as error:
        raise ExpertError(f"{tower.name}: LoRA finds no layer to adapt here ({error}); choose a ViT or a ResNet") from error
    for name, p in tower.net.named_parameters():
        p.requires_grad_("lora_" in name)


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

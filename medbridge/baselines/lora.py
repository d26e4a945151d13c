r"""LoRA (Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022) on the vision tower, by peft."""

import re

import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.baselines.towers import FilmScores, Tower, TowerBaseline
from medbridge.errors import ExpertError
from medbridge.features.films import FrozenFilms

# blocks of open_clip's ViT and of timm's (also inside open_clip), stages of a ModifiedResNet; peft matches whole names
_TARGETS = r"(transformer\.res|trunk\.)?blocks\.\d+\.attn\.(qkv|proj)|layer\d+\.\d+\.conv\d"


class LinearAttention(nn.Module):
    """The self-attention of a batch-first ``nn.MultiheadAttention``, its parameters in two linear layers, qkv and proj.

    Query, key and value are the same ``(B, L, d)``; no weights are returned. ExpertError: more than plain self-attention.
    """

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        if packed.in_proj_weight is None or packed.bias_k is not None or packed.add_zero_attn or packed.dropout:
            raise ExpertError("LoRA adapts plain self-attention; here it has dropout, a bias of keys, or keys of another width")
        self.heads = packed.num_heads
        self.qkv = nn.Linear(packed.embed_dim, 3 * packed.embed_dim, device="meta")  # nothing is drawn
        self.qkv.weight, self.qkv.bias = packed.in_proj_weight, packed.in_proj_bias
        self.proj = packed.out_proj

    def forward(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False,
                attn_mask: Tensor | None = None) -> tuple[Tensor, None]:
        if key is not query or value is not query or need_weights:
            raise ValueError("LinearAttention is self-attention and returns no weights")
        q, k, v = self.qkv(query).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask).transpose(1, 2).flatten(2)), None


def add_lora(tower: Tower, rank: int, alpha: float) -> None:
    """Low-rank updates in the tower, in place; they alone require gradients. ExpertError: it has no layer for them."""
    from peft import LoraConfig, inject_adapter_in_model  # seconds of import, which nothing else here needs

    # on nn.MultiheadAttention peft 0.21 adds B A of the output projection twice (its pull request 3774)
    for block in tower.blocks:
        if isinstance(getattr(block, "attn", None), nn.MultiheadAttention):
            block.attn = LinearAttention(block.attn)
    if not any(re.fullmatch(_TARGETS, name) for name, _ in tower.net.named_modules()):
        raise ExpertError(f"{tower.name}: LoRA finds no layer to adapt here; choose a ViT or a ResNet")
    # h = W_0 x + (alpha / r) B A x,    B = 0 at the start
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=_TARGETS), tower.net)
    for name, p in tower.net.named_parameters():
        p.requires_grad_("lora_" in name)


class LoRA(TowerBaseline):
    """LoRA with ``rank`` r and ``alpha``; A starts as a linear layer does, as in the authors' code. [ours] It adapts attention in
    transformer blocks (queries, keys, values and output), and in a ResNet, which has none before its pool, every convolution of
    its four stages, A with the same window and B of 1 x 1. A linear head is trained too."""

    name = "LoRA"
    grid = ({"rate": 1e-3}, {"rate": 3e-3}, {"rate": 3e-4})
    options = (("rank", 8), ("alpha", 16.0))

    def build(self, k: int, train: FrozenFilms) -> FilmScores:
        tower = Tower(self.experts[k])
        add_lora(tower, self.rank, self.alpha)
        return self.scored(k, tower, tower.dim)

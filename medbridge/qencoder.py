r"""Query Encoder: a few learnable queries read the frozen feature maps of one expert.

[abstract] A small set of learnable query tokens is injected into intermediate layers and attends to the frozen feature maps; the
backbone is not retrained. [summary] The queries enter after the first T1 layers. [ours] T2 = T - T1 query layers follow. Frozen
tokens never see the queries, so the maps are computed once and cached. A query layer is one of

- ``cross`` (default): a fresh narrow block of width w; layer i reads the map *after* block T1 + i;
- ``copy``: a trainable copy of the frozen block T1 + i, which reads that block's *input*;
- ``lora``: the frozen block itself with low-rank updates.

In every kind one softmax runs over the other queries and the frozen tokens together:

    A = softmax([q' K_q^T ; q' K_x^T] / sqrt(d_h)),   q <- q + A [V_q ; V_x] W_o,   q <- q + MLP(LN(q)).

with q' = q W_q. Since Q is small, keys and values of frozen tokens are never formed: q' K_x^T = (q' W_k^T) X^T and A_x V_x =
(A_x X) W_v. The same numbers come out, at a fraction of the cost, and X needs no gradient. Measured (earlier form,
docs/results.md): one query for eight -0.018 [-0.032, -0.003] of validation AUC, one layer for two -0.018 [-0.031, -0.004].
"""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medbridge.experts import BlockWeights, Expert

KINDS = ("cross", "copy", "lora")


def query_depths(depth: int, layers: int, kind: str, step: int = 1) -> list[int]:
    """Depths of the maps that ``layers`` query layers, ``step`` blocks apart, read in a tower of ``depth`` blocks. [ours]

    ValueError: unknown kind, or more layers or larger steps than the tower has blocks for.
    """
    if kind not in KINDS:
        raise ValueError(f"query_kind={kind!r} is unknown; use one of {', '.join(KINDS)}")
    last = depth if kind == "cross" else depth - 1
    first = last - step * (layers - 1)
    if layers < 1 or step < 1 or first < 1:
        apart = f", {step} blocks apart," if step != 1 else ""
        raise ValueError(f"query_layers={layers}{apart} does not fit a tower of {depth} blocks; use 1 to "
                         f"{1 + (last - 1) // max(step, 1)} for {kind!r}")
    return list(range(first, last + 1, step))


class _LowRank(nn.Module):
    """W -> W + B A with B = 0 at the start (Hu et al., LoRA, 2021)."""

    def __init__(self, rows: int, columns: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(rank, columns) * columns**-0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


class QueryLayer(nn.Module):
    """One pre-norm block whose queries attend to themselves and to frozen tokens.

    Args:
        width, map_dim: width w of the queries, d of the frozen tokens. heads: attention heads; divides ``width``.
        mlp_ratio: hidden width of the MLP relative to ``width``. dropout: on the attention and MLP outputs.
    """

    def __init__(self, width: int, map_dim: int, heads: int = 4, mlp_ratio: float = 2.0, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"query width {width} is not divisible by heads={heads}")
        self.heads, self.map_eps = heads, 1e-6
        self.norm1 = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.k_map, self.v_map = nn.Linear(map_dim, width), nn.Linear(map_dim, width)
        self.out = nn.Linear(width, width)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width)
        hidden = int(width * mlp_ratio)
        self.fc1, self.activation, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        self.scale2 = nn.Parameter(torch.ones(width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, q: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries ``(B, Q, w)`` and frozen tokens ``(B, P, d)`` -> new queries ``(B, Q, w)``, attention ``(B, heads, Q, P)``."""
        batch, count, width = q.shape
        head_dim = width // self.heads
        x = F.layer_norm(x, x.shape[-1:], eps=self.map_eps)  # affine-free: its scale and shift live in k_map, v_map
        n = self.norm1(q)

        def split(t: Tensor) -> Tensor:
            return t.view(batch, count, self.heads, head_dim).transpose(1, 2)

        qh = split(self.q(n)) * head_dim**-0.5  # (B, H, Q, e)
        k_map = self.k_map.weight.view(self.heads, head_dim, -1)
        v_map = self.v_map.weight.view(self.heads, head_dim, -1)
        own = qh @ split(self.k(n)).transpose(-1, -2)  # (B, H, Q, Q)
        folded = torch.einsum("bhqe,hed->bhqd", qh, k_map).flatten(1, 2)  # (B, H Q, d): W_k moved to the query
        cross = (folded @ x.transpose(1, 2)).view(batch, self.heads, count, -1)
        cross = cross + torch.einsum("bhqe,he->bhq", qh, self.k_map.bias.view(self.heads, head_dim)).unsqueeze(-1)
        attention = torch.cat([own, cross], dim=-1).softmax(dim=-1)
        a_own, a_map = attention[..., :count], attention[..., count:]
        context = (a_map.flatten(1, 2) @ x).view(batch, self.heads, count, -1)  # (B, H, Q, d): values come last
        value = torch.einsum("bhqd,hed->bhqe", context, v_map)
        value = value + a_map.sum(-1, keepdim=True) * self.v_map.bias.view(self.heads, 1, head_dim)
        value = (value + a_own @ split(self.v(n))).transpose(1, 2).reshape(batch, count, width)
        q = q + self.dropout(self.scale1 * self.out(value))
        q = q + self.dropout(self.scale2 * self.fc2(self.activation(self.fc1(self.norm2(q)))))
        return q, a_map

    @classmethod
    def from_block(cls, block: BlockWeights, dropout: float = 0.0, rank: int | None = None) -> Self:
        """A layer that computes what the frozen block computes; trainable, or with ``rank`` frozen plus low-rank updates."""
        w = block.tensors
        width = w["norm1.weight"].numel()
        layer = cls(width, width, block.heads, w["fc1.weight"].shape[0] / width, dropout)
        layer.map_eps = block.eps
        layer.norm1.eps = layer.norm2.eps = block.eps
        layer.activation = block.activation
        scale, shift = w["norm1.weight"], w["norm1.bias"]
        with torch.no_grad():
            parts = ((layer.q, None), (layer.k, layer.k_map), (layer.v, layer.v_map))
            for (own, mapped), weight, bias in zip(parts, w["qkv.weight"].chunk(3), w["qkv.bias"].chunk(3), strict=True):
                own.weight.copy_(weight)
                own.bias.copy_(bias)
                if mapped is not None:  # W (scale * x + shift) + b, folded, as the tokens come without an affine
                    mapped.weight.copy_(weight * scale)
                    mapped.bias.copy_(bias + weight @ shift)
            for name, own in {"norm1": "norm1", "proj": "out", "norm2": "norm2", "fc1": "fc1", "fc2": "fc2"}.items():
                getattr(layer, own).weight.copy_(w[f"{name}.weight"])
                getattr(layer, own).bias.copy_(w[f"{name}.bias"])
            layer.scale1.copy_(w["scale1"])
            layer.scale2.copy_(w["scale2"])
        if rank is not None:
            layer.requires_grad_(False)
            for name in ("q", "k", "v", "k_map", "v_map", "out"):
                linear = getattr(layer, name)
                parametrize.register_parametrization(linear, "weight", _LowRank(*linear.weight.shape, rank))
        return layer


class QueryEncoder(nn.Module):
    """Q learnable queries and T2 query layers over one expert's maps.

    Args:
        expert: the frozen expert (read for its shapes, and its blocks where ``kind`` asks; not kept).
        queries, layers: numbers Q and T2. step: blocks from one layer's map to the next. dropout: in the query layers.
        kind: 'cross', 'copy' or 'lora'. rank: of the updates for 'lora'.
        width, heads: for 'cross'; the other kinds use the expert's own.
    """

    def __init__(
        self, expert: Expert, queries: int = 8, layers: int = 2, kind: str = "cross", width: int = 128,
        heads: int = 4, dropout: float = 0.0, rank: int = 8, step: int = 1,
    ) -> None:
        super().__init__()
        self.depths = query_depths(expert.depth, layers, kind, step)
        dims = [expert.widths[d - 1] for d in self.depths]
        if kind == "cross":
            self.layers = nn.ModuleList(QueryLayer(width, d, heads, dropout=dropout) for d in dims)
        else:
            rank = rank if kind == "lora" else None  # the map after d blocks is the input of block number d (0-based)
            self.layers = nn.ModuleList(QueryLayer.from_block(expert.block_weights(d), dropout, rank) for d in self.depths)
        self.width = self.layers[0].norm1.normalized_shape[0]
        self.queries = nn.Parameter(torch.randn(queries, self.width) * (1.0 if kind == "cross" else 0.02))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps of ``self.depths``, each ``(B, P_l, d_l)`` -> queries ``(B, Q, w)``, last layer's attention ``(B, Q, P)``."""
        q = self.queries.expand(len(maps[0]), -1, -1)
        attention = maps[0]
        for layer, x in zip(self.layers, maps, strict=True):
            q, attention = layer(q, x)
        return self.norm(q), attention.mean(dim=1)

r"""Across views: self-attention relates the N views of a film, max-pooling keeps the strongest evidence.

Paper, section 3: "self-attention over the N views relates them, then max-pooling over views gives for each expert frozen
tokens m_k and query tokens q_k".

[ours] Attention runs over the views for each token index apart: query j of one view sees query j of the other views, so the
cost is N^2 per query, not (N Q)^2. Each view's token also carries where its box lies and how large it is; a view that is only
padding (films of different shape have different numbers of windows) is never attended to, and never wins the pool.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CrossView"]


class CrossView(nn.Module):
    """Relate and pool the views of a film, for one expert.

    Args:
        width: query width w.
        image_dim: length of the expert's frozen view summary, projected to one further token (the paper's m).
        heads: attention heads; divides ``width``.
        attend: ``False`` leaves out the self-attention and pools the views as they are (an ablation).
        dropout: on the attention output, the MLP output and the frozen summary.
    """

    def __init__(
        self, width: int, image_dim: int, heads: int = 4, attend: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"query width {width} is not divisible by heads={heads}")
        self.heads, self.attend = heads, attend
        self.project = nn.Sequential(
            nn.LayerNorm(image_dim), nn.Dropout(dropout), nn.Linear(image_dim, width), nn.LayerNorm(width))
        if attend:
            self.place = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, width))
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for last in (self.out, self.mlp[2], self.place[2]):  # starts as plain max-pooling, and learns from there
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, summary: Tensor, boxes: Tensor, view_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the views.

        Args:
            queries: ``(B, N, Q, w)``.
            summary: ``(B, N, image_dim)`` frozen summaries of the views.
            boxes: ``(B, N, 4)`` in units of the whole view (:func:`medbridge.focal.relative_boxes`).
            view_mask: bool ``(B, N)``, False for padding; every film has at least one view.

        Returns:
            tokens ``(B, Q + 1, w)``, the frozen token m last; and int64 ``(B, Q + 1, w)``: the view each number came from.
        """
        tokens = torch.cat([queries, self.project(summary).unsqueeze(2)], dim=2)  # (B, N, Q + 1, w)
        if self.attend:
            tokens = tokens + self.place(boxes).unsqueeze(2)
            batch, views, count, width = tokens.shape
            x = tokens.transpose(1, 2).reshape(batch * count, views, width)
            q, k, v = (
                t.view(-1, views, self.heads, width // self.heads).transpose(1, 2)
                for t in self.qkv(self.norm1(x)).chunk(3, dim=-1)
            )
            mask = view_mask.repeat_interleave(count, dim=0)[:, None, None, :]
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x = x + self.dropout(self.out(attended.transpose(1, 2).reshape(-1, views, width)))
            x = x + self.dropout(self.mlp(self.norm2(x)))
            tokens = x.view(batch, count, views, width).transpose(1, 2)
        tokens = tokens.masked_fill(~view_mask[:, :, None, None], float("-inf"))
        pooled, winner = tokens.max(dim=1)
        return self.norm(pooled), winner

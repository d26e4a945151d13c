r"""Across views: self-attention relates the N views of a film, pooling makes one of them.

[summary] Self-attention over the N views relates them, then max-pooling over the views gives frozen tokens m_k and query tokens
q_k for each expert.

[ours] Attention runs over the views for each token index apart: query j of one view sees query j of the other views, so the
cost is N^2 per query, not (N Q)^2. m_k is one summary token. Each token also carries where its view's box lies and how large it
is; a view that is only padding (films of different shape have different numbers of windows) is never attended to or pooled.
Options for the pool: ``max``, each number's largest value over the views; ``mean``; ``lse``, log sum_n exp x_n, a soft maximum;
``attention``, a weighted mean whose weights a = softmax_n(v . tanh(V x_n)) come from the tokens (Ilse et al., "Attention-based
deep multiple instance learning", ICML 2018, equation 8). Measured (earlier form, docs/results.md): ``mean`` minus ``max`` +0.001
[-0.013, +0.014] on validation films and -0.009 [-0.018, -0.001] on test films; no attention -0.010 [-0.022, +0.003].
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLS = ("max", "mean", "lse", "attention")


class CrossView(nn.Module):
    """Relate and pool the views of a film, for one expert.

    Args:
        width: query width w. heads: attention heads; divides ``width``.
        image_dim: length of the expert's frozen view summary, projected to one further token m_k.
        attend: ``False`` leaves out the self-attention and pools the views as they are (an ablation).
        dropout: on the attention output, the MLP output and the frozen summary.
        pool: 'max', 'mean', 'lse' or 'attention'.

    Raises:
        ValueError: unknown pool, or heads that do not divide the width.
    """

    def __init__(
        self, width: int, image_dim: int, heads: int = 4, attend: bool = True, dropout: float = 0.0, pool: str = "max"
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool={pool!r} is unknown; use one of {', '.join(POOLS)}")
        if width % heads:
            raise ValueError(f"query width {width} is not divisible by heads={heads}")
        self.heads, self.attend, self.pool = heads, attend, pool
        self.project = nn.Sequential(
            nn.LayerNorm(image_dim), nn.Dropout(dropout), nn.Linear(image_dim, width), nn.LayerNorm(width))
        if attend:
            self.place = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, width))
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for last in (self.out, self.mlp[2], self.place[2]):  # starts as plain pooling, and learns from there
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        if pool == "attention":
            self.gate = nn.Sequential(nn.Linear(width, width // 2), nn.Tanh(), nn.Linear(width // 2, 1))
            nn.init.zeros_(self.gate[2].weight)  # starts as the mean
            nn.init.zeros_(self.gate[2].bias)

    def forward(self, queries: Tensor, summary: Tensor, boxes: Tensor, view_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the views.

        Args:
            queries: ``(B, N, Q, w)``.
            summary: ``(B, N, image_dim)`` frozen summaries of the views.
            boxes: ``(B, N, 4)`` in units of the whole view (:func:`medbridge.focal.relative_boxes`).
            view_mask: bool ``(B, N)``, False for padding; every film has at least one view.

        Returns:
            tokens ``(B, Q + 1, w)``, the frozen token m last; and what each view gave to them, summed up by ``view_share`` of
            :mod:`medbridge.explain.attention`: for 'max' int64 ``(B, Q + 1, w)``, the view that each number came from; else
            float ``(B, N, Q + 1, w)``, each view's weight in each number, sums over N to 1, 0 for padding.
        """
        tokens = torch.cat([queries, self.project(summary).unsqueeze(2)], dim=2)  # (B, N, Q + 1, w)
        if self.attend:
            tokens = tokens + self.place(boxes).unsqueeze(2)
            batch, views, count, width = tokens.shape
            x = tokens.transpose(1, 2).reshape(batch * count, views, width)
            q, k, v = (t.view(-1, views, self.heads, width // self.heads).transpose(1, 2)
                       for t in self.qkv(self.norm1(x)).chunk(3, dim=-1))
            mask = view_mask.repeat_interleave(count, dim=0)[:, None, None, :]
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x = x + self.dropout(self.out(attended.transpose(1, 2).reshape(-1, views, width)))
            x = x + self.dropout(self.mlp(self.norm2(x)))
            tokens = x.view(batch, count, views, width).transpose(1, 2)
        pooled, views_of = self._pool(tokens, view_mask[:, :, None, None])
        return self.norm(pooled), views_of

    def _pool(self, tokens: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        if self.pool in ("max", "lse"):
            tokens = tokens.masked_fill(~real, float("-inf"))
            if self.pool == "max":
                return tokens.max(dim=1)
            # how many views there are only adds a constant to all numbers of a token, which the norm takes away again
            return tokens.logsumexp(dim=1), tokens.detach().softmax(dim=1)
        score = self.gate(tokens) if self.pool == "attention" else tokens.new_zeros(*tokens.shape[:3], 1)
        weight = score.masked_fill(~real, float("-inf")).softmax(dim=1)
        return (weight * tokens).sum(dim=1), weight.detach().expand_as(tokens)

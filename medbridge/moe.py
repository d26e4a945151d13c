r"""Query-driven Mixture of Experts: the queries decide how much each expert's prediction counts.

[abstract] The learnable queries are the routing signals, and heterogeneous experts need no shared representation space. [ours]
From the pooled queries q_1 .. q_K the router gives weights, and the prediction is the weighted sum of the experts' predictions:

    g = softmax_k( router([q_1; ...; q_K]) ),     score_c = sum_k g_kc score_kc

Weights are per class as well as per film; the router starts uniform (its last layer is zero); ``top_k`` keeps the strongest
experts only; a balance term keeps every expert alive. Measured (earlier form, docs/results.md): uniform weights instead of
learned ones +0.001 [-0.006, +0.008], weights per film alone +0.000 [-0.006, +0.007], both level. The balance was not measured.

``shared`` and ``noise`` are after Med-MoE (Jiang et al., Findings of EMNLP 2024, arXiv 2404.10237), whose layers keep a meta
expert beside the top k and can disturb the router in training. Ours: whole VLMs, one softmax over the kept, Gaussian noise.
"""

import torch
from torch import Tensor, nn

ROUTERS = ("class", "image", "uniform")


class Router(nn.Module):
    """Weights of K experts from their pooled queries.

    Args:
        widths: query width of each expert. classes: number of labels C.
        kind: 'class' (a weight per expert and class), 'image' (per expert) or 'uniform' (1/K, nothing learned).
        top_k: keep the k strongest experts and renormalise; ``None`` keeps all.
        hidden: hidden width. shared: index of an expert that ``top_k`` never drops; k then counts the others.
        noise: standard deviation of Gaussian noise on the logits in training, so that an expert that is just below the k
            strongest is tried too.

    Raises:
        ValueError: unknown kind, ``top_k`` outside 1..K (K - 1 beside a shared expert), or a negative ``noise``.
    """

    def __init__(
        self, widths: list[int], classes: int, kind: str = "class", top_k: int | None = None, hidden: int = 64,
        shared: int | None = None, noise: float = 0.0,
    ) -> None:
        super().__init__()
        if kind not in ROUTERS:
            raise ValueError(f"router={kind!r} is unknown; use one of {', '.join(ROUTERS)}")
        choice = len(widths) - (shared is not None)
        if top_k is not None and not 1 <= top_k <= choice:
            raise ValueError(f"top_k={top_k} must be in 1..{choice}, the number of experts to choose from")
        if noise < 0:
            raise ValueError(f"noise={noise} must be at least 0")
        self.kind, self.top_k, self.experts, self.classes = kind, top_k, len(widths), classes
        self.shared, self.noise = shared, noise
        if kind != "uniform" and self.experts > 1:
            outputs = self.experts * (classes if kind == "class" else 1)
            self.net = nn.Sequential(nn.Linear(sum(widths), hidden), nn.GELU(), nn.Linear(hidden, outputs))
            nn.init.zeros_(self.net[2].weight)
            nn.init.zeros_(self.net[2].bias)

    def forward(self, queries: list[Tensor]) -> Tensor:
        """K tensors ``(B, w_k)`` -> weights ``(B, K, C)``, which sum to 1 over the experts."""
        batch = len(queries[0])
        if self.kind == "uniform" or self.experts == 1:
            return queries[0].new_full((batch, self.experts, self.classes), 1 / self.experts)
        logits = self.net(torch.cat(queries, dim=1)).view(batch, self.experts, -1)
        if self.training and self.noise:
            logits = logits + self.noise * torch.randn_like(logits)
        logits = logits.expand(-1, -1, self.classes)
        kept_count = self.experts if self.top_k is None else self.top_k + (self.shared is not None)
        if kept_count < self.experts:
            rank = logits
            if self.shared is not None:  # first in every order
                rank = logits.detach().clone()
                rank[:, self.shared] = float("inf")
            kept = rank.topk(kept_count, dim=1).indices
            logits = logits.masked_fill(torch.ones_like(logits).scatter(1, kept, 0.0).bool(), float("-inf"))
        return logits.softmax(dim=1)


def balance_loss(weights: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' mean weights ``(B, K, C)``; 0 when all are used alike. [ours]

    The form of Shazeer et al., "Outrageously Large Neural Networks" (2017), equation 7.
    """
    load = weights.mean(dim=(0, 2))
    return load.var(unbiased=False) / load.mean().square()

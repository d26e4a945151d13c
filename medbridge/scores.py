r"""Class scores: pooled tokens meet the class prompts in the expert's text space.

[abstract] Experts are vision-language models, and reasoning is multi-label. [ours] The query tokens are projected to the text
space, and each class is scored by scaled cosine similarity with a direction t_c, positive minus negative prompt:

    z_c = normalise(W_t LN(sum_j a_cj token_j)),    score_c = exp(tau) z_c . (t_c + delta_c) + b_c.

a_c is a learned softmax over the Q queries and the frozen token, so that labels may read different queries; delta_c (zero at the
start) lets a class move away from prompts that the text encoder does not understand; b_c starts at the training prevalence's
log-odds. None of these was measured against an alternative.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PromptScores(nn.Module):
    """Scores of C classes from Q + 1 tokens, for one expert.

    Args:
        width, tokens: token width w, and number of tokens Q + 1.
        positive, negative: prompt embeddings ``(C, text_dim)`` of :func:`medbridge.prompts.encode_prompts`; frozen.
        scale: initial value of exp(tau). dropout: on the mixed token. adapt_prompts: ``False`` holds delta at zero.
    """

    text: Tensor

    def __init__(
        self, width: int, tokens: int, positive: Tensor, negative: Tensor, scale: float = 10.0, dropout: float = 0.0,
        adapt_prompts: bool = True,
    ) -> None:
        super().__init__()
        classes, text_dim = positive.shape
        self.register_buffer("text", F.normalize(positive - negative, dim=-1), persistent=False)
        # small noise: labels would otherwise all read the same mixture, and learn to differ only slowly
        self.mix = nn.Parameter(0.5 * torch.randn(classes, tokens))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.project = nn.Linear(width, text_dim)
        self.delta = nn.Parameter(torch.zeros(classes, text_dim), requires_grad=adapt_prompts)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B, Q + 1, w)`` -> logits ``(B, C)``."""
        mixed = torch.einsum("ct,btw->bcw", self.mix.softmax(dim=-1), tokens)
        z = F.normalize(self.project(self.dropout(self.norm(mixed))), dim=-1)
        return self.log_scale.exp() * (z * (self.text + self.delta)).sum(dim=-1) + self.bias

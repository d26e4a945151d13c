"""CoCoOp (Zhou et al., "Conditional prompt learning for vision-language models", CVPR 2022): each image moves the context."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medbridge.baselines.base import temperature
from medbridge.baselines.coop import CoOp, LearnedContext
from medbridge.experts import Expert
from medbridge.features.films import FrozenFilms


class ConditionalContext(LearnedContext):
    """:class:`medbridge.baselines.coop.LearnedContext` with a meta-net; ``dim`` is the width d of the image embedding."""

    def __init__(self, expert: Expert, labels: Sequence[str], scale: float, context: int, dim: int) -> None:
        super().__init__(expert, labels, scale, context)
        hidden = max(1, dim // 16)
        self.meta = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, self.text.width))

    def forward(self, f: Tensor) -> Tensor:
        # pi = h(f)
        shift = self.meta(f)[:, None, None]  # (B, 1, 1, width): the same for every label and vector
        # v_m(f) = v_m + pi,    t_c(f) = g([v_1(f)] ... [v_M(f)] [label c])
        moved = [self.text((side + shift).expand(-1, len(self.text.words), -1, -1)) for side in (self.positive, self.negative)]
        return self.scale * torch.einsum("bd,bcd->bc", f, moved[0] - moved[1])


class CoCoOp(CoOp):
    """CoCoOp, with M = 4 and a meta-net of Linear, ReLU, Linear with a bottleneck of a sixteenth, as in the authors' code.

    [ours] As in CoOp there is a context for presence and one for absence, and AdamW; both are moved by the same pi, and start at
    random, not from the words "a photo of a", which do not describe a film. The text tower runs on B x 2C prompts per step.
    """

    name = "CoCoOp"

    def build(self, k: int, train: FrozenFilms) -> ConditionalContext:
        expert = self.experts[k]
        return ConditionalContext(expert, self.labels, temperature(expert), self.context, expert.text_dim)

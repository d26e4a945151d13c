r"""CoOp (Zhou et al., "Learning to prompt for vision-language models", IJCV 2022): the words around a label are learned."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medbridge.baselines.base import TrainedBaseline, temperature
from medbridge.baselines.text_tower import PromptedText, has_clip_text, label_texts
from medbridge.experts import Expert
from medbridge.features.films import FrozenFilms


class LearnedContext(nn.Module):
    """Image embeddings ``(B, d)``, L2-normalised -> logits ``(B, C)``; ``scale`` is s, ``context`` is M."""

    def __init__(self, expert: Expert, labels: Sequence[str], scale: float, context: int) -> None:
        super().__init__()
        self.text, self.scale = PromptedText(expert, label_texts(labels), context), scale
        self.positive = nn.Parameter(0.02 * torch.randn(context, self.text.width))
        self.negative = nn.Parameter(0.02 * torch.randn(context, self.text.width))

    def forward(self, f: Tensor) -> Tensor:
        # t_c = g([V]_1 ... [V]_M [label c]),    score_c = s cos(f, t_c^+) - s cos(f, t_c^-)
        return self.scale * f @ (self.text(self.positive) - self.text(self.negative)).T


class CoOp(TrainedBaseline):
    """CoOp with ``context`` (M) learned vectors before the label, one context for presence and one for absence (Sun et al.,
    "DualCoOp", NeurIPS 2022); ``prompts`` is not read. Start and first rate are the authors' code's. [ours] M = 4, where their
    scripts take 16, since texts other than CLIP's may be short; AdamW, where theirs is SGD, and the epochs of all baselines."""

    name = "CoOp"
    need = "an expert with CLIP's text transformer, into which learned vectors can be fed"
    grid = ({"rate": 2e-3}, {"rate": 1e-2}, {"rate": 5e-4})
    options = (("context", 4),)
    usable = staticmethod(has_clip_text)

    def build(self, k: int, train: FrozenFilms) -> LearnedContext:
        return LearnedContext(self.experts[k], self.labels, temperature(self.experts[k]), self.context)

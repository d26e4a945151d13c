r"""MaPLe (Khattak et al., "MaPLe: multi-modal prompt learning", CVPR 2023): deep prompts in both towers, those of the vision
tower being projections F of those of the text tower."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medbridge.baselines.base import temperature
from medbridge.baselines.text_tower import PromptedText, has_clip_text, label_texts
from medbridge.baselines.towers import Tower, TowerBaseline, attach_prompts, film_embedding, is_plain_vit
from medbridge.experts import Expert
from medbridge.features.films import FrozenFilms


class CoupledPrompts(nn.Module):
    """Views ``(B, N, R, R)`` and real ``(B, N)`` -> logits ``(B, C)``; ``count`` is b, ``depth`` is J."""

    def __init__(self, expert: Expert, labels: Sequence[str], count: int, depth: int) -> None:
        super().__init__()
        self.tower, texts, self.scale = Tower(expert), label_texts(labels), temperature(expert)
        self.text = PromptedText(expert, [*texts, *(f"no {text}" for text in texts)], count)
        depth = min(depth, self.text.layers, len(self.tower.blocks))
        self.prompts = nn.ParameterList(0.02 * torch.randn(count, self.text.width) for _ in range(depth))
        first, other = (nn.Linear(self.text.width, self.tower.widths[0]) for _ in range(2))
        self.couple = nn.ModuleList([first, *(copy.deepcopy(other) for _ in range(depth - 1))])  # these start as one
        attach_prompts(self.tower, self.coupled)

    def coupled(self) -> list[Tensor]:
        """The vision tower's prompts, one ``(b, width)`` per block."""
        # block i = 1 ... J:  [c_i, E_i, _] = V_i([c_{i-1}, E_{i-1}, F_{i-1}(P_{i-1})]); then the prompts go on
        first, *deeper = (f(p) for f, p in zip(self.couple, self.prompts, strict=True))
        return [self.tower.norm_in(first), *deeper]  # as c_0 and E_0, the first ones pass the norm before block 1

    def forward(self, views: Tensor, real: Tensor) -> Tensor:
        # text, block i = 1 ... J:  [_, W_i] = L_i([P_{i-1}, W_{i-1}]); then the prompts go on
        positive, negative = self.text(self.prompts[0], list(self.prompts)[1:]).chunk(2)
        # score_c = s cos(f, t_c^+) - s cos(f, t_c^-)
        return self.scale * film_embedding(self.tower, views, real) @ (positive - negative).T


class MaPLe(TowerBaseline):
    """MaPLe with ``count`` (b) prompts in each of ``depth`` (J) blocks (all, where a tower has fewer); ``prompts`` is not read.
    Both and the rate that is tried first (there of SGD) are those of the authors' code.

    [ours] The same P stands before "{label}." and "no {label}.", present against absent, so that the coupling to the vision tower
    stays the published one. P starts at random, not from the words "a photo", which describe no film. AdamW and epochs as all.
    """

    name = "MaPLe"
    need = "an expert with CLIP's text transformer and a ViT"
    grid = ({"rate": 3.5e-3}, {"rate": 1e-2}, {"rate": 5e-4})
    options = (("count", 2), ("depth", 9))

    def usable(self, expert: Expert) -> bool:
        return has_clip_text(expert) and is_plain_vit(expert)

    def build(self, k: int, train: FrozenFilms) -> CoupledPrompts:
        return CoupledPrompts(self.experts[k], self.labels, self.count, self.depth)

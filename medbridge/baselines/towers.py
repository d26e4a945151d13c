"""A vision tower that may be changed: the copy of an expert's on which VPT, MaPLe, LoRA, MVFA and fine-tuning work. The expert
stays as it is; the copy runs in eval mode, so that batch norms keep the statistics of pre-training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from medbridge.baselines.base import TrainedBaseline, prompt_sides, temperature
from medbridge.baselines.inputs import ViewInputs
from medbridge.errors import ExpertError
from medbridge.experts import Expert, OpenClipExpert, TimmExpert
from medbridge.features.films import FrozenFilms
from medbridge.prompts import ClassPrompts


def has_tower(expert: Expert) -> bool:
    """Whether :class:`Tower` can copy the expert's tower."""
    return isinstance(expert, (OpenClipExpert, TimmExpert))


def is_plain_vit(expert: Expert) -> bool:
    """Whether the tower is made of plain pre-norm transformer blocks, to which tokens can be added."""
    return has_tower(expert) and {type(block) for block in expert.blocks()} in ({ResidualAttentionBlock}, {Block})


class Tower(nn.Module):
    """A frozen copy of an expert's vision tower, whose parts can be reached; under autocast where the expert is in 'bfloat16'.

    Attributes:
        blocks: its transformer blocks, or the stages of a convolutional tower (after the stem), shallow to deep.
        prefix: tokens before the patches. widths: of the blocks' outputs. dim: length of what :meth:`forward` gives.

    ExpertError: another kind of tower, or 'float16', in which small gradients vanish.
    """

    def __init__(self, expert: Expert) -> None:
        super().__init__()
        if not has_tower(expert):
            raise ExpertError(f"{expert.name}: its tower shows no blocks that a baseline could change; use open_clip or timm")
        if expert.precision == "float16":
            raise ExpertError(f"{expert.name}: a tower is not trained in float16, where small gradients vanish; use 'bfloat16'")
        self.name, self.size, self.prefix, self.precision = expert.name, expert.size, expert.prefix, expert.precision
        self.in_text_space, copied = isinstance(expert, OpenClipExpert), {}
        net = copy.deepcopy(expert.model.visual if self.in_text_space else expert.trunk, copied)
        # convolutions that are trained through run 1.7 times as fast with channels last, on the CPU too; the maths is the same
        self.net = net.requires_grad_(False).to(memory_format=torch.channels_last)
        # a ResNet's stem, whose last module has nothing to train, is no block
        self.blocks = [copied[id(block)] for block in expert.blocks() if any(True for _ in block.parameters())]
        self.register_buffer("mean", expert.mean.clone(), persistent=False)
        self.register_buffer("std", expert.std.clone(), persistent=False)
        trunk = getattr(net, "trunk", net)
        self.norm_in = getattr(trunk, "ln_pre", getattr(trunk, "norm_pre", nn.Identity()))  # between embedding and block 1
        self.summarise = expert._summary
        self.dim = expert.text_dim if self.in_text_space else expert.image_dim
        self.widths = expert.widths[-len(self.blocks) :]

    def train(self, mode: bool = True) -> Tower:
        return super().train(False)

    def forward(self, views: Tensor) -> Tensor:
        """Views ``(B, R, R)`` or in colour ``(B, 3, R, R)``, in [0, 1] -> ``(B, dim)``: text space, or a vision-only summary."""
        x = (views.reshape(len(views), -1, self.size, self.size) - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            final = self.net(x) if self.in_text_space else self.net.forward_features(x)
        return final.float() if self.in_text_space else self.summarise(final, None)[0]


def attach_prompts(tower: Tower, prompts: Callable[[], Sequence[Tensor]]) -> None:
    """Prompts ``(p, width)`` enter after the prefix tokens before block 1, replace their successors before blocks 2, 3 ..., and
    are dropped after the last block, so that a mean over the patches stays one. ``prompts`` is called once per pass."""
    blocks, at, state = tower.blocks, tower.prefix, {}

    def before(i: int, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0]
        if i == 0:
            state["now"] = list(prompts())
        if i < len(state["now"]):
            fresh = state["now"][i].expand(len(x), -1, -1)
            x = torch.cat([x[:, :at], fresh, x[:, at + (0 if i == 0 else fresh.shape[1]) :]], dim=1)
        return (x, *args[1:])

    def after(_: nn.Module, args: tuple, x: Tensor) -> Tensor:
        return torch.cat([x[:, :at], x[:, at + state["now"][-1].shape[0] :]], dim=1)

    for i, block in enumerate(blocks):
        block.register_forward_pre_hook(partial(before, i))
    blocks[-1].register_forward_hook(after)


def film_mean(z: Tensor, real: Tensor) -> Tensor:
    """Vectors of the real views, ``(sum of real, d)`` in order -> their mean for each film, ``(B, d)``."""
    film = torch.arange(len(real), device=real.device).repeat_interleave(real.sum(dim=1))
    total = torch.zeros(len(real), z.shape[1], device=z.device, dtype=z.dtype).index_add(0, film, z)
    return total / real.sum(dim=1, keepdim=True)


def film_embedding(tower: nn.Module, views: Tensor, real: Tensor) -> Tensor:
    """Views ``(B, N, R, R)`` -> ``(B, dim)`` by a tower, as :func:`medbridge.baselines.base.film_embeddings` of frozen ones."""
    return F.normalize(film_mean(F.normalize(tower(views[real]), dim=-1), real), dim=-1)


class PromptHead(nn.Module):
    """Unit image features ``(B, d)`` -> logits ``(B, C)``: a linear layer that starts as the zero-shot classifier.

    Weights s (t^+ - t^-), as Wortsman et al. (WiSE-FT, CVPR 2022) start fine-tuning; zeros for a vision-only expert.
    [ours] Weights are stored a tenth as large as they act, so that one rate suits unit features."""

    def __init__(self, expert: Expert, labels: Sequence[str], prompts: Mapping[str, ClassPrompts] | None, dim: int) -> None:
        super().__init__()
        weight = torch.zeros(len(labels), dim)
        if expert.aligned:
            positive, negative = prompt_sides(expert, labels, prompts)
            weight = temperature(expert) / 10 * (positive - negative)
        self.weight = nn.Parameter(weight)

    def forward(self, z: Tensor) -> Tensor:
        return 10 * z @ self.weight.T


class FilmScores(nn.Module):
    """Views ``(B, N, R, R)`` and real ``(B, N)`` -> logits ``(B, C)``, by ``head`` on the film's embedding."""

    def __init__(self, tower: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.tower, self.head = tower, head

    def forward(self, views: Tensor, real: Tensor) -> Tensor:
        return self.head(film_embedding(self.tower, views, real))


class TowerBaseline(TrainedBaseline):
    """A method that changes the tower, and is fed the films' views as pictures."""

    need: ClassVar[str] = "an open_clip or timm tower"
    usable = staticmethod(has_tower)

    def inputs(self, films: FrozenFilms, k: int) -> ViewInputs:
        return ViewInputs(films, self.experts[k].size, self.views, self.progress)

    def scored(self, k: int, tower: nn.Module, dim: int) -> FilmScores:
        """A tower for expert k and a trained linear head on its ``dim`` features."""
        return FilmScores(tower, PromptHead(self.experts[k], self.labels, self.prompts, dim))

"""A vision tower that may be changed: the copy of an expert's on which VPT, MaPLe, LoRA, MVFA and fine-tuning work.

The expert itself stays frozen and untouched. The copy runs in eval mode: batch norms keep the statistics of pre-training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

import timm.models.vision_transformer as timm_vit
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from medbridge.baselines.base import TrainedBaseline, prompt_sides, temperature
from medbridge.baselines.inputs import ViewInputs
from medbridge.errors import ExpertError
from medbridge.experts import Expert, OpenClipExpert, TimmExpert
from medbridge.features.cache import CachedFilms
from medbridge.prompts import ClassPrompts

# modules and parameters after the last block: open_clip's ViT, ModifiedResNet, timm trunks, and open_clip's head on them
_TAIL = ("ln_post", "proj", "attn_pool", "attnpool", "norm", "fc_norm", "head")


def has_tower(expert: Expert) -> bool:
    """Whether :class:`Tower` can copy the expert's tower."""
    return isinstance(expert, (OpenClipExpert, TimmExpert)) and bool(_blocks(_trunk(_net(expert))))


def is_plain_vit(expert: Expert) -> bool:
    """Whether the tower is made of plain pre-norm transformer blocks, to which tokens can be added."""
    if not has_tower(expert):
        return False
    trunk = _trunk(_net(expert))
    batch_first = getattr(getattr(trunk, "transformer", None), "batch_first", True)
    return batch_first and {type(block) for block in _blocks(trunk)} in ({ResidualAttentionBlock}, {timm_vit.Block})


def _net(expert: Expert) -> nn.Module:
    return expert.model.visual if isinstance(expert, OpenClipExpert) else expert.trunk


def _trunk(net: nn.Module) -> nn.Module:
    return net.trunk if isinstance(net, TimmModel) else net


def _blocks(trunk: nn.Module) -> list[nn.Module]:
    if isinstance(trunk, VisionTransformer):
        return list(trunk.transformer.resblocks)
    if isinstance(trunk, ModifiedResNet):
        return [trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4]
    return next((list(getattr(trunk, name)) for name in ("blocks", "stages", "layers") if hasattr(trunk, name)), [])


class Tower(nn.Module):
    """A frozen copy of an expert's vision tower, whose parts can be reached.

    It computes in the expert's own ``precision``, and trains under autocast where that is 'bfloat16': on processors and GPUs that
    have it, 2 times as fast or more. What comes out is float32.

    Attributes:
        blocks: its transformer blocks, or the stages of a convolutional tower (after the stem), shallow to deep.
        prefix: tokens before the patches. widths: of the blocks' outputs. dim: length of what :meth:`forward` gives.

    Raises:
        ExpertError: another kind of tower, or 'float16', in which small gradients vanish.
    """

    def __init__(self, expert: Expert) -> None:
        super().__init__()
        if not has_tower(expert):
            raise ExpertError(f"{expert.name}: its tower shows no blocks that a baseline could change; use open_clip or timm")
        if expert.precision == "float16":
            raise ExpertError(f"{expert.name}: a tower is not trained in float16, where small gradients vanish; use 'bfloat16'")
        self.name, self.size, self.prefix, self.precision = expert.name, expert.size, expert.prefix, expert.precision
        # convolutions that are trained through run 1.7 times as fast with channels last, on the CPU too; the maths is the same
        self.net = copy.deepcopy(_net(expert)).requires_grad_(False).to(memory_format=torch.channels_last)
        self.register_buffer("mean", expert.mean.clone(), persistent=False)
        self.register_buffer("std", expert.std.clone(), persistent=False)
        self.in_text_space = isinstance(expert, OpenClipExpert)
        self.dim = expert.text_dim if self.in_text_space else expert.image_dim
        # the first map of a ResNet is its stem's, which is no block
        self.widths = expert.widths[-len(self.blocks) :]

    @property
    def blocks(self) -> list[nn.Module]:
        return _blocks(_trunk(self.net))

    def tail(self) -> list[nn.Parameter]:
        """Parameters after the last block: norms, pools and projections."""
        parts = [getattr(owner, name, None) for owner in {self.net, _trunk(self.net)} for name in _TAIL]
        return [p for part in parts if part is not None
                for p in ([part] if isinstance(part, nn.Parameter) else getattr(part, "parameters", list)())]

    def train(self, mode: bool = True) -> Tower:
        return super().train(False)

    def normalised(self, views: Tensor) -> Tensor:
        """Grayscale views ``(B, R, R)`` in [0, 1] -> ``(B, 3, R, R)``, as the expert's ``preprocess``."""
        return (views[:, None] - self.mean) / self.std

    def forward(self, views: Tensor) -> Tensor:
        """Grayscale views ``(B, R, R)`` in [0, 1] -> ``(B, dim)``."""
        return self.encode(self.normalised(views))

    def encode(self, x: Tensor) -> Tensor:
        """Normalised ``(B, 3, R, R)`` -> ``(B, dim)``: embedding in the text space, or a vision-only expert's summary."""
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            final = self.net(x) if self.in_text_space else self.net.forward_features(x)
        final = final.float()
        if self.in_text_space:
            return final
        if final.dim() == 4:
            return final.mean(dim=(2, 3))
        patches = final[:, self.prefix :].mean(dim=1)
        return torch.cat([final[:, 0], patches], dim=1) if self.prefix else patches


def attach_prompts(tower: Tower, prompts: Callable[[], Sequence[Tensor]]) -> None:
    """Prompts ``(p, width)`` enter after the prefix tokens before block 1 and replace their successors before blocks 2, 3 ...

    After the last block they are dropped, so that a mean over the patches stays one. ``prompts`` is called once per pass.
    """
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


class PromptHead(nn.Module):
    """Unit image features ``(B, d)`` -> logits ``(B, C)``: a linear layer that starts as the zero-shot classifier.

    It is the start that Wortsman et al. (WiSE-FT, CVPR 2022) give to fine-tuning: weights s (t^+ - t^-), bias 0. A vision-only
    expert starts from zeros. [ours] Weights are stored a tenth as large as they act, so that one rate suits unit features.
    """

    def __init__(self, expert: Expert, labels: Sequence[str], prompts: Mapping[str, ClassPrompts] | None, dim: int) -> None:
        super().__init__()
        weight = torch.zeros(len(labels), dim)
        if expert.aligned:
            positive, negative = prompt_sides(expert, labels, prompts)
            weight = temperature(expert) / 10 * (positive - negative)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(len(labels)))

    def forward(self, z: Tensor) -> Tensor:
        return 10 * z @ self.weight.T + self.bias


class FilmScores(nn.Module):
    """Views ``(B, N, R, R)`` and real ``(B, N)`` -> logits ``(B, C)``, on the mean that :func:`film_embeddings` takes too."""

    def __init__(self, tower: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.tower, self.head = tower, head

    def forward(self, views: Tensor, real: Tensor) -> Tensor:
        z = F.normalize(self.tower(views[real]), dim=-1)
        return self.head(F.normalize(film_mean(z, real), dim=-1))


class TowerBaseline(TrainedBaseline):
    """A method that changes the tower: it needs the films' views as pictures."""

    need: ClassVar[str] = "an open_clip or timm tower"
    usable = staticmethod(has_tower)

    def inputs(self, films: CachedFilms, k: int) -> ViewInputs:
        return ViewInputs(films, self.experts[k].size, self.views, self.progress)

    def head(self, k: int, tower: Tower) -> PromptHead:
        """The trained linear head for expert k."""
        return PromptHead(self.experts[k], self.labels, self.prompts, tower.dim)

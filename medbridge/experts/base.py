"""A frozen vision-language model behind one small interface: a vision tower of T blocks and a text encoder.

Nothing of it is ever trained [abstract].
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.errors import ExpertError

PRECISIONS = ("float32", "bfloat16", "float16")
"""What a frozen tower may compute in; below float32 under autocast."""


def is_slow(precision: str) -> bool:
    """Whether this machine has to emulate ``precision``: an x86 processor without its instructions, and no GPU beside it."""
    own = {"bfloat16": torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
           "float16": torch.cpu._is_amx_fp16_supported()}
    return not own.get(precision, True) and platform.machine().lower() in ("x86_64", "amd64") and not torch.cuda.is_available()


@dataclass
class FrozenMaps:
    """What a frozen tower says about B views."""

    maps: dict[int, Tensor]  # depth -> (B, P_l, d_l) tokens after that many blocks, prefix tokens such as CLS first
    summary: Tensor  # (B, image_dim): pooled token and mean patch after the last block, concatenated [ours]
    embed: Tensor | None  # (B, text_dim) L2-normalised image embedding in the text space; None for vision-only towers


@dataclass
class BlockWeights:
    """One pre-norm transformer block's weights under common names, so that query layers can start from them."""

    heads: int
    eps: float
    activation: nn.Module
    tensors: dict[str, Tensor] = field(repr=False)  # norm1.{weight,bias} qkv.* proj.* scale1 norm2.* fc1.* fc2.* scale2

    @classmethod
    def of(cls, block: nn.Module, names: Mapping[str, str], norm: nn.LayerNorm, scales: Sequence[nn.Module],
           activation: nn.Module) -> BlockWeights:
        """Read a library's block; ``names``: common name -> what stands before ``weight`` and ``bias`` in the block's keys."""
        state, ones = block.state_dict(), torch.ones_like(norm.weight)
        tensors = {f"{name}.{kind}": state[own + kind] for name, own in names.items() for kind in ("weight", "bias")}
        tensors |= {f"scale{i}": getattr(scale, "gamma", ones) for i, scale in enumerate(scales, 1)}
        return cls(block.attn.num_heads, norm.eps, activation, tensors)


class Expert(nn.Module):
    """Base class of all experts; frozen and in eval mode for good."""

    name: str  # the registry name that rebuilds it
    size: int  # input resolution R in pixels
    depth: int  # number of blocks T (transformer blocks, or stages of a convolutional tower)
    widths: tuple[int, ...]  # width d_l of the maps at depths 1..T
    grids: tuple[tuple[int, int], ...]  # (rows, columns) of patches at depths 1..T
    prefix: int  # tokens before the patches in every map (CLS, registers)
    image_dim: int  # length of FrozenMaps.summary
    text_dim: int  # width of the text space
    text: nn.Module  # the text encoder, texts -> (n, text_dim), unless a subclass embeds texts itself
    aligned: bool  # whether images and texts share a space, so that zero-shot is meaningful
    mean: Tensor  # input normalisation, as std, of shape (1, 3, 1, 1)
    std: Tensor
    interpolation: str  # how views are resized to R, 'bilinear' or 'bicubic' (medbridge.focal.extract_views)
    precision: str = "float32"  # what the tower computes in, one of PRECISIONS; other features have another place in the cache
    channels_last: bool = False  # of a convolutional or hierarchical tower's own maps

    def __init__(self, name: str, mean: Sequence[float], std: Sequence[float], interpolation: str = "bilinear") -> None:
        super().__init__()
        self.name = name
        # a film has no use for other filters: what an expert asks beyond bicubic is served by bilinear
        self.interpolation = interpolation if interpolation == "bicubic" else "bilinear"
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @property
    def view_kind(self) -> tuple[int, str]:
        """Size and interpolation of the views that it takes; experts of one kind share their views."""
        return self.size, self.interpolation

    def freeze(self) -> Expert:
        """Switch gradients off and stay in eval mode; called once at the end of a subclass's ``__init__``."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Expert:
        """Frozen means frozen: ``model.train()`` must not switch on an expert's dropout or batch statistics."""
        return super().train(False)

    def preprocess(self, views: Tensor) -> Tensor:
        """Grayscale views ``(..., R, R)`` in [0, 1] -> normalised ``(B, 3, R, R)``; ValueError where they are not R x R."""
        if views.shape[-2:] != (self.size, self.size):
            raise ValueError(f"{self.name} takes views of {self.size} x {self.size} pixels, got {tuple(views.shape[-2:])}; "
                             f"pass size={self.size} to medbridge.focal.extract_views")
        x = views.reshape(-1, 1, self.size, self.size).to(self.mean)
        return (x - self.mean) / self.std

    def encode_maps(self, x: Tensor, depths: Sequence[int]) -> FrozenMaps:
        """One forward pass of ``(B, 3, R, R)`` -> maps at ``depths`` (each in 1..T), summary and embedding."""
        depths, taken = self.check_depths(depths), sorted({*depths, self.depth})
        with torch.inference_mode():
            maps, out = self._forward(x, taken)
            return FrozenMaps({d: m for d, m in zip(taken, maps, strict=True) if d in depths}, *self._summary(out, maps[-1]))

    def _forward(self, x: Tensor, depths: Sequence[int] | None) -> tuple[list[Tensor], Any]:
        """Tokens ``(B, P, d)`` at ``depths`` (``None``: at all), and what the tower ends in, in one pass."""
        raise NotImplementedError

    def _summary(self, out: Any, last: Tensor) -> tuple[Tensor, Tensor | None]:
        """``FrozenMaps.summary`` and ``.embed`` from what the tower ends in and its last map."""
        raise NotImplementedError

    def _measure(self, size: int, prefix: int = 0, side: int | None = None) -> None:
        """Freeze, and read off a blank view what the maps look like; ``side``: of the first grid, where it gives the prefix."""
        self.size, self.prefix = size, prefix
        self.freeze()
        with torch.inference_mode():
            maps, out = self._forward(torch.zeros(1, 3, size, size), None)
            self.prefix = prefix if side is None else maps[0].shape[1] - side**2
            self.depth, self.widths = len(maps), tuple(tokens.shape[2] for tokens in maps)
            self.grids = tuple((math.isqrt(tokens.shape[1] - self.prefix),) * 2 for tokens in maps)
            self.image_dim = self._summary(out, maps[-1])[0].shape[1]

    @staticmethod
    def _tokens(maps: Sequence[Tensor], prefixes: Sequence[Tensor] | None) -> list[Tensor]:
        """Maps ``(B, d, rows, columns)`` and the tokens before them, as open_clip and timm give them -> ``(B, P, d)``."""
        tokens = [grid.flatten(2).transpose(1, 2) for grid in maps]
        return tokens if prefixes is None else [torch.cat(pair, dim=1) for pair in zip(prefixes, tokens, strict=True)]

    def blocks(self) -> list[nn.Module]:
        """The T modules whose outputs are the maps at depths 1..T; ExpertError where the tower is no chain of such modules."""
        raise ExpertError(f"{self.name} cannot be split at its blocks")

    def finish(self, tokens: Tensor, depth: int) -> FrozenMaps:
        """What blocks ``depth + 1`` to T, and the tower's own pooling, make of ``tokens`` ``(B, P, d)``, a map at ``depth``.

        The first blocks run over a blank view, since towers make their rotary positions and masks on the way; nothing of it
        reaches the result. ValueError: depth outside 1..T, or tokens of another shape. ExpertError: the tower cannot be split.
        """
        [depth] = self.check_depths([depth])
        rows, columns = self.grids[depth - 1]
        shape = (self.prefix + rows * columns, self.widths[depth - 1])
        if tokens.dim() != 3 or tuple(tokens.shape[1:]) != shape:
            raise ValueError(f"{self.name} has maps (B, {shape[0]}, {shape[1]}) at depth {depth}, got {tuple(tokens.shape)}")

        def replace(_: nn.Module, __: Any, output: Any) -> Any:
            whole = isinstance(output, Tensor)
            return self._native(tokens, output) if whole else (self._native(tokens, output[0]), *output[1:])

        with self.blocks()[depth - 1].register_forward_hook(replace):
            blank = torch.zeros(len(tokens), 3, self.size, self.size, device=self.mean.device)
            return self.encode_maps(blank, range(depth, self.depth + 1))

    def _native(self, tokens: Tensor, like: Tensor) -> Tensor:
        """Tokens ``(B, P, d)`` in the layout of ``like``: tokens, channels first, or channels last."""
        return (tokens if like.dim() == 3 or self.channels_last else tokens.transpose(1, 2)).reshape(like.shape)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ``(n, text_dim)`` float32, L2-normalised."""
        return self.text(texts).clone()  # outside inference mode, so that what follows may be trained

    def block_weights(self, index: int) -> BlockWeights:
        """Weights of block ``index`` (0-based) for query layers of kind 'copy' or 'lora'; ExpertError where it has none."""
        raise ExpertError(f"{self.name} has no pre-norm transformer blocks to copy; use query_kind='cross' with this expert")

    def check_depths(self, depths: Sequence[int]) -> list[int]:
        """Sorted unique depths; raises ValueError for one outside 1..T."""
        if bad := [d for d in depths if not 1 <= d <= self.depth]:
            raise ValueError(f"{self.name} has depths 1..{self.depth}; asked for {bad}")
        return sorted(set(depths))

    def fingerprint(self) -> str:
        """sha256 over the vision tower's weights: the part of the cache key that notices other weights."""
        return _digest(self.vision_state())

    def made_by(self) -> str:
        """:meth:`fingerprint`, and the precision where it is not float32: with the views, all that its features depend on."""
        return self.fingerprint() + ("" if self.precision == "float32" else f" in {self.precision}")

    def text_fingerprint(self) -> str:
        """sha256 over the text encoder's weights: with the texts, the key of cached text features."""
        return _digest(self.text_state())

    def text_state(self) -> dict[str, Tensor]:
        """State dict of the text encoder alone."""
        return self.text.state_dict()

    def vision_state(self) -> dict[str, Tensor]:
        """State dict of the vision tower alone."""
        raise NotImplementedError


class TextEncoder(nn.Module):
    """A frozen text tower ``encoder`` and its ``tokenizer``; ``text_dim`` is the width of its space."""

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ``(n, text_dim)`` float32, L2-normalised."""
        with torch.inference_mode():
            return F.normalize(self._pooled(list(texts), next(self.encoder.parameters()).device).float(), dim=-1)

    def _pooled(self, texts: list[str], device: torch.device) -> Tensor:
        raise NotImplementedError


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
                      if value.dim() else str(value.item()).encode())
    return digest.hexdigest()

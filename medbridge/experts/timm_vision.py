"""timm vision towers (DINOv2, DINOv3 and every other ``forward_intermediates`` model) paired with a text encoder.

``timm:MODEL+TEXT``, for instance ``timm:vit_small_patch14_dinov2.lvd142m+minilm``. Images and texts share no space here,
so there is no zero-shot; the query encoder learns the projection into the text space. A checkpoint of the same architecture
(LVM-Med, MedDINOv3) comes in as a weights file.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.models.vision_transformer import Block
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from medbridge.errors import ExpertError
from medbridge.experts.base import BlockWeights, Expert, FrozenMaps
from medbridge.experts.weights import find_weights, load_state, missing_weights

__all__ = ["TimmExpert", "load_timm", "timm_blocks", "timm_files"]


class TimmExpert(Expert):
    """A frozen timm tower and a text encoder.

    Args:
        name: registry name.
        trunk: a timm model with ``forward_intermediates``.
        text: the text encoder that lends its space (``text_dim``; texts -> ``(n, text_dim)``).
        size: input resolution R in pixels.
    """

    aligned = False

    def __init__(self, name: str, trunk: nn.Module, text: nn.Module, size: int) -> None:
        config = resolve_data_config(model=trunk)
        super().__init__(name, config["mean"], config["std"], config["interpolation"])
        self.trunk, self.text = trunk, text
        self.size, self.text_dim = size, text.text_dim
        self.prefix = int(getattr(trunk, "num_prefix_tokens", 0))
        self.final_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        # SAM's blocks hold rows and columns apart, and its neck turns them round
        self.channels_last = self.final_last or isinstance(trunk, VisionTransformerSAM)
        self.freeze()
        with torch.inference_mode():
            final, maps = self._forward(torch.zeros(1, 3, size, size), None)
            self.depth = len(maps)
            self.grids = tuple(tuple(grid.shape[-2:]) for grid, _ in maps)
            self.widths = tuple(grid.shape[1] for grid, _ in maps)
            self.image_dim = self._summary(final).shape[1]

    def _forward(self, x: Tensor, depths: Sequence[int] | None) -> tuple[Tensor, list[tuple[Tensor, Tensor | None]]]:
        indices = None if depths is None else [d - 1 for d in depths]
        extra = {"return_prefix_tokens": True} if self.prefix else {}
        final, maps = self.trunk.forward_intermediates(x, indices=indices, norm=False, output_fmt="NCHW", **extra)
        return final, [m if isinstance(m, tuple) else (m, None) for m in maps]

    def _summary(self, final: Tensor) -> Tensor:
        if final.dim() == 4:
            return final.float().mean(dim=(1, 2) if self.final_last else (2, 3))
        patches = final[:, self.prefix:].float().mean(dim=1)
        return torch.cat([final[:, 0].float(), patches], dim=1) if self.prefix else patches

    def encode_maps(self, x: Tensor, depths: Sequence[int]) -> FrozenMaps:
        depths = self.check_depths(depths)
        with torch.inference_mode():
            # timm stops before the first block where no map is asked for
            final, maps = self._forward(x, depths or [self.depth])
            tokens = {}
            for depth, (grid, prefix) in zip(depths, maps, strict=bool(depths)):
                patches = grid.flatten(2).transpose(1, 2)
                tokens[depth] = patches if prefix is None else torch.cat([prefix, patches], dim=1)
            return FrozenMaps(tokens, self._summary(final), None)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return self.text(texts).clone()

    def blocks(self) -> list[nn.Module]:
        return timm_blocks(self.name, self.trunk, self.depth)

    def text_state(self) -> dict[str, Tensor]:
        return self.text.state_dict()

    def vision_state(self) -> dict[str, Tensor]:
        return self.trunk.state_dict()

    def block_weights(self, index: int) -> BlockWeights:
        block = self.trunk.blocks[index] if hasattr(self.trunk, "blocks") else None
        if type(block) is not Block or not isinstance(block.attn.q_norm, nn.Identity):
            return super().block_weights(index)
        ones = torch.ones(block.norm1.normalized_shape, device=self.mean.device)
        state = block.state_dict()
        names = {"attn.qkv": "qkv", "attn.proj": "proj", "mlp.fc1": "fc1", "mlp.fc2": "fc2", "norm1": "norm1",
                 "norm2": "norm2"}
        tensors = {f"{new}.{kind}": state[f"{old}.{kind}"] for old, new in names.items() for kind in ("weight", "bias")}
        tensors["scale1"] = getattr(block.ls1, "gamma", ones)
        tensors["scale2"] = getattr(block.ls2, "gamma", ones)
        return BlockWeights(block.attn.num_heads, block.norm1.eps, block.mlp.act, tensors)


def timm_blocks(name: str, trunk: nn.Module, depth: int) -> list[nn.Module]:
    """The modules of a timm trunk after which its maps are taken.

    Raises:
        ExpertError: timm does not say which they are.
    """
    stated = [info["module"] for info in getattr(trunk, "feature_info", [])]
    modules = dict(trunk.named_modules())
    if len(stated) != depth or any(module not in modules for module in stated):
        raise ExpertError(f"{name} cannot be split: timm names {len(stated)} modules for its {depth} maps")
    return [modules[module] for module in stated]


def timm_files(model_name: str) -> list[str]:
    """Names under which the weights of a timm model are looked for in the weights folder."""
    return [f"{model_name}{suffix}" for suffix in (".safetensors", ".pth", ".pt", ".bin")]


def load_timm(
    name: str, model_name: str, text: Callable[[], nn.Module], size: int | None = None, weights: Path | None = None
) -> TimmExpert:
    """Build a timm expert.

    Args:
        name: registry name.
        model_name: timm's name, with the tag of the weights behind a dot.
        text: builds the text encoder that lends its space.
        size: input resolution; default the pre-training one. Position embeddings are interpolated by timm.
        weights: a checkpoint of this architecture; default ``MEDBRIDGE_WEIGHTS``, then timm's hub. Names of another
            training framework are translated where timm knows them, heads are dropped.

    Raises:
        ExpertError: unknown model, a size that it cannot take, or weights that do not fit, or are neither here nor reachable.
    """
    if not timm.is_model(model_name.split(".")[0]):
        close = ", ".join(timm.list_models(f"*{model_name.split('_')[0]}*")[:8])
        raise ExpertError(f"unknown timm model {model_name!r}; close names: {close or 'see timm.list_models()'}")
    path = weights or find_weights(timm_files(model_name))
    encoder = text()
    try:
        trunk = _create(model_name, pretrained=path is None, num_classes=0)
    except Exception as error:  # hub clients raise many types; all mean the same to the user
        raise missing_weights(name, timm_files(model_name), "timm's hub", error) from error
    if path is not None:
        _load(trunk, path, model_name)
    if not hasattr(trunk, "forward_intermediates"):
        raise ExpertError(f"timm model {model_name!r} has no forward_intermediates; choose one that has")
    native = resolve_data_config(model=trunk)["input_size"][-1]
    try:
        dynamic = getattr(trunk, "dynamic_img_size", False)
        if size not in (None, native) and not dynamic and hasattr(trunk, "set_input_size"):
            trunk.set_input_size(img_size=size)
        return TimmExpert(name, trunk, encoder, size or native)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ExpertError(
            f"{name}: size={size or native} does not fit this tower ({error}); it was pre-trained at {native}") from error


def _create(model_name: str, **options: Any) -> nn.Module:
    if "vit" in model_name or "eva" in model_name:
        with contextlib.suppress(TypeError):  # a few transformers have no such option
            return timm.create_model(model_name, dynamic_img_size=True, **options)
    return timm.create_model(model_name, **options)


_PREFIXES = ("module.", "teacher.", "backbone.", "encoder.", "model.")  # what training frameworks put before every key


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tower's own keys: those behind a training framework's prefixes, of which several may stand in a row."""
    while prefix := next((p for p in _PREFIXES if any(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state


def _load(trunk: nn.Module, path: Path, model_name: str) -> None:
    state = _unwrapped(load_state(path))
    if isinstance(trunk, VisionTransformerSAM):
        if "blocks.0.mlp.lin1.weight" in state:  # SAM's image encoder alone, as LVM-Med gives it; timm translates it in SAM whole
            state = {f"image_encoder.{key}": value for key, value in state.items()}
        if not any(key.endswith("pos_embed") for key in state):
            trunk.pos_embed = None  # LVM-Med's ViT has relative positions alone
    translate = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    try:
        with contextlib.redirect_stdout(None):  # timm prints what it leaves out
            translated = translate(state, trunk) if translate else state
        _check_biases(state, translated, path, model_name)
        heads = trunk.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        state = {key: value for key, value in translated.items() if not key.startswith(tuple(f"{head}." for head in heads))}
        trunk.load_state_dict(state, strict=True)  # a tower that is random in part must never pass for a trained one
    except (RuntimeError, KeyError) as error:
        raise ExpertError(f"{path}: does not fit timm model {model_name!r} ({error})") from error


def _check_biases(state: dict[str, Tensor], translated: dict[str, Tensor], path: Path, model_name: str) -> None:
    """Refuse where timm leaves out attention biases that count: it has some DINOv3 towers with them and some without."""
    for key, bias in state.items():
        if "storage_tokens" not in state or not key.endswith("qkv.bias"):
            continue
        query, _, value = bias.chunk(3)  # the keys' part is masked in DINOv3
        if key.replace("qkv.bias", "q_bias") not in translated and (query.any() or value.any()):
            raise ExpertError(f"{path}: has attention biases, which timm model {model_name!r} lacks; take {model_name}_qkvb")

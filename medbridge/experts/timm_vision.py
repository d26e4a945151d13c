"""timm vision towers (DINOv2 and other ``forward_intermediates`` models) paired with a sentence encoder.

``timm:MODEL+TEXT``, for instance ``timm:vit_small_patch14_dinov2.lvd142m+minilm``. Images and texts share no space here,
so there is no zero-shot; the query encoder learns the projection into the text space.
"""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torch
from timm.data import resolve_data_config
from timm.models.vision_transformer import Block
from torch import Tensor

from medbridge.errors import ExpertError
from medbridge.experts.base import BlockWeights, Expert, FrozenMaps
from medbridge.experts.text import SentenceEncoder
from medbridge.experts.weights import find_weights, load_state, missing_weights

__all__ = ["TimmExpert", "load_timm"]


class TimmExpert(Expert):
    """A frozen timm tower and a sentence encoder.

    Args:
        name: registry name.
        trunk: a timm model with ``forward_intermediates``.
        text: the sentence encoder that lends its text space.
        size: input resolution R in pixels.
    """

    aligned = False

    def __init__(self, name: str, trunk: torch.nn.Module, text: SentenceEncoder, size: int) -> None:
        config = resolve_data_config(model=trunk)
        super().__init__(name, config["mean"], config["std"])
        self.trunk, self.text = trunk, text
        self.size, self.text_dim = size, text.text_dim
        self.prefix = int(getattr(trunk, "num_prefix_tokens", 0))
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
            return final.float().mean(dim=(2, 3))
        patches = final[:, self.prefix:].float().mean(dim=1)
        return torch.cat([final[:, 0].float(), patches], dim=1) if self.prefix else patches

    def encode_maps(self, x: Tensor, depths: Sequence[int]) -> FrozenMaps:
        depths = self.check_depths(depths)
        with torch.inference_mode():
            final, maps = self._forward(x, depths)
            tokens = {}
            for depth, (grid, prefix) in zip(depths, maps, strict=True):
                patches = grid.flatten(2).transpose(1, 2)
                tokens[depth] = patches if prefix is None else torch.cat([prefix, patches], dim=1)
            return FrozenMaps(tokens, self._summary(final), None)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return self.text(texts).clone()

    def vision_state(self) -> dict[str, Tensor]:
        return self.trunk.state_dict()

    def block_weights(self, index: int) -> BlockWeights:
        block = self.trunk.blocks[index] if hasattr(self.trunk, "blocks") else None
        if type(block) is not Block or not isinstance(block.attn.q_norm, torch.nn.Identity):
            return super().block_weights(index)
        ones = torch.ones(block.norm1.normalized_shape, device=self.mean.device)
        state = block.state_dict()
        names = {"attn.qkv": "qkv", "attn.proj": "proj", "mlp.fc1": "fc1", "mlp.fc2": "fc2", "norm1": "norm1",
                 "norm2": "norm2"}
        tensors = {f"{new}.{kind}": state[f"{old}.{kind}"] for old, new in names.items() for kind in ("weight", "bias")}
        tensors["scale1"] = getattr(block.ls1, "gamma", ones)
        tensors["scale2"] = getattr(block.ls2, "gamma", ones)
        return BlockWeights(block.attn.num_heads, block.norm1.eps, block.mlp.act, tensors)


def load_timm(name: str, model_name: str, text: str, size: int | None = None) -> TimmExpert:
    """Build a timm expert, weights from ``MEDBRIDGE_WEIGHTS`` or, with a network, from timm's hub.

    Raises:
        ExpertError: unknown model, or weights that are neither here nor reachable.
    """
    if not timm.is_model(model_name.split(".")[0]):
        close = ", ".join(timm.list_models(f"*{model_name.split('_')[0]}*")[:8])
        raise ExpertError(f"unknown timm model {model_name!r}; close names: {close or 'see timm.list_models()'}")
    # 224 pixels keep a ViT-S/14 affordable on a CPU; position embeddings are interpolated by timm
    options = {"dynamic_img_size": True} if "vit" in model_name else {}
    candidates = [f"{model_name}.safetensors", f"{model_name}.pth"]
    path = find_weights(candidates)
    encoder = SentenceEncoder(text)
    try:
        trunk = timm.create_model(model_name, pretrained=path is None, num_classes=0, **options)
    except Exception as error:  # hub clients raise many types; all mean the same to the user
        raise missing_weights(name, candidates, "timm's hub", error) from error
    if path is not None:
        try:
            trunk.load_state_dict(load_state(path), strict=True)
        except RuntimeError as error:
            raise ExpertError(f"{path}: does not fit timm model {model_name!r} ({error})") from error
    if not hasattr(trunk, "forward_intermediates"):
        raise ExpertError(f"timm model {model_name!r} has no forward_intermediates; choose one that has")
    return TimmExpert(name, trunk, encoder, size or 224)

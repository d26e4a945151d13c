"""timm vision towers (DINOv2, DINOv3 and every other ``forward_intermediates`` model) paired with a text encoder.

Images and texts share no space, so there is no zero-shot; the query encoder learns the projection into the text space.
"""

import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.models.vision_transformer import Block
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from medbridge.errors import ExpertError
from medbridge.experts.base import BlockWeights, Expert
from medbridge.experts.registry import ExpertName
from medbridge.experts.weights import asking, explained, load_state

_BLOCK = {"norm1": "norm1.", "qkv": "attn.qkv.", "proj": "attn.proj.", "norm2": "norm2.", "fc1": "mlp.fc1.", "fc2": "mlp.fc2."}
_PREFIXES = ("module.", "teacher.", "backbone.", "encoder.", "model.")  # what training frameworks put before every key


class TimmExpert(Expert):
    """A frozen timm ``trunk`` (``forward_intermediates``) and the ``text`` encoder that lends its space (``text_dim``)."""

    aligned = False

    def __init__(self, name: str, trunk: nn.Module, text: nn.Module, size: int) -> None:
        config = resolve_data_config(model=trunk)
        super().__init__(name, config["mean"], config["std"], config["interpolation"])
        self.trunk, self.text, self.text_dim = trunk, text, text.text_dim
        self.final_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        # SAM's blocks hold rows and columns apart, and its neck turns them round
        self.channels_last = self.final_last or isinstance(trunk, VisionTransformerSAM)
        self._measure(size, int(getattr(trunk, "num_prefix_tokens", 0)))

    def _forward(self, x: Tensor, depths: Sequence[int] | None) -> tuple[list[Tensor], Any]:
        extra = {"return_prefix_tokens": True} if self.prefix else {}
        out, maps = self.trunk.forward_intermediates(
            x, indices=depths and [d - 1 for d in depths], norm=False, output_fmt="NCHW", **extra)
        grids, prefixes = zip(*maps, strict=True) if extra else (maps, None)
        return self._tokens(grids, prefixes), out

    def _summary(self, out: Any, last: Tensor) -> tuple[Tensor, Tensor | None]:
        if out.dim() == 4:
            return out.float().mean(dim=(1, 2) if self.final_last else (2, 3)), None
        patches = out[:, self.prefix:].float().mean(dim=1)
        return torch.cat([out[:, 0].float(), patches], dim=1) if self.prefix else patches, None

    def blocks(self) -> list[nn.Module]:
        return timm_blocks(self.name, self.trunk, self.depth)

    def vision_state(self) -> dict[str, Tensor]:
        return self.trunk.state_dict()

    def block_weights(self, index: int) -> BlockWeights:
        block = self.trunk.blocks[index] if hasattr(self.trunk, "blocks") else None
        if type(block) is not Block or not isinstance(block.attn.q_norm, nn.Identity):
            return super().block_weights(index)
        return BlockWeights.of(block, _BLOCK, block.norm1, (block.ls1, block.ls2), block.mlp.act)


def timm_blocks(name: str, trunk: nn.Module, depth: int) -> list[nn.Module]:
    """The modules of a timm trunk after which its maps are taken; ExpertError where timm does not say which they are."""
    stated, modules = [info["module"] for info in getattr(trunk, "feature_info", [])], dict(trunk.named_modules())
    if len(stated) != depth or any(module not in modules for module in stated):
        raise ExpertError(f"{name} cannot be split: timm names {len(stated)} modules for its {depth} maps")
    return [modules[module] for module in stated]


def load_timm(called: str, name: ExpertName, text: nn.Module, size: int | None, path: Path | None) -> TimmExpert:
    """Build ``timm:MODEL+TEXT`` from a checkpoint of this architecture, or from timm's hub; ``text`` lends its space.

    Names of another training framework are translated where timm knows them, heads are dropped. timm interpolates position
    embeddings to ``size``.
    """
    model_name = name.model
    with asking(called, name.files, "timm's hub"):
        create = partial(timm.create_model, model_name, pretrained=path is None, num_classes=0)
        try:
            trunk = create(dynamic_img_size=True) if "vit" in model_name or "eva" in model_name else create()
        except TypeError:  # a few transformers have no such option
            trunk = create()
    if path is not None:
        _load(trunk, path, model_name)
    if not hasattr(trunk, "forward_intermediates"):
        raise ExpertError(f"timm model {model_name!r} has no forward_intermediates; choose one that has")
    native = resolve_data_config(model=trunk)["input_size"][-1]
    with explained(f"{called}: size={size or native} does not fit this tower", f"; it was pre-trained at {native}"):
        if size not in (None, native) and not getattr(trunk, "dynamic_img_size", False) and hasattr(trunk, "set_input_size"):
            trunk.set_input_size(img_size=size)
        return TimmExpert(called, trunk, text, size or native)


def _load(trunk: nn.Module, path: Path, model_name: str) -> None:
    """Load a checkpoint under timm's key names, Meta's, SAM's or those of a training framework."""
    given = state = load_state(path)
    while prefix := next((p for p in _PREFIXES if any(key.startswith(p) for key in state)), None):  # several may stand in a row
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if isinstance(trunk, VisionTransformerSAM):
        if "blocks.0.mlp.lin1.weight" in state:  # SAM's image encoder alone, as LVM-Med gives it; timm translates it in SAM whole
            state = {f"image_encoder.{key}": value for key, value in state.items()}
        if not any(key.endswith("pos_embed") for key in state):
            trunk.pos_embed = None  # LVM-Med's ViT has relative positions alone
    translate = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    with explained(f"{path}: does not fit timm model {model_name!r}", keys=given):
        with contextlib.redirect_stdout(None):  # timm prints what it leaves out
            translated = translate(state, trunk) if translate else state
        for key in [key for key in state if "storage_tokens" in state and key.endswith("qkv.bias")]:
            query, _, value = state[key].chunk(3)  # the keys' part is masked in DINOv3
            # timm has some DINOv3 towers with attention biases and some without; those that count are never left out
            if key.replace("qkv.bias", "q_bias") not in translated and (query.any() or value.any()):
                base, dot, tag = model_name.partition(".")
                raise ExpertError(f"{path}: has attention biases, which timm model {model_name!r} lacks; "
                                  f"take {base}_qkvb{dot}{tag}")
        heads = trunk.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
        # strict: a tower that is random in part must never pass for a trained one
        trunk.load_state_dict({key: value for key, value in translated.items() if not key.startswith(heads)}, strict=True)

"""open_clip models as experts: CLIP, SigLIP, EVA-CLIP, CoCa, MetaCLIP, BiomedCLIP and all others that open_clip can build.

Tokenizers and text configurations that have a repository of their own are looked for in the weights folder too.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers import to_2tuple
from torch import Tensor, nn

from medbridge.errors import ExpertError
from medbridge.experts.base import BlockWeights, Expert, TextEncoder
from medbridge.experts.registry import ExpertName
from medbridge.experts.timm_vision import timm_blocks
from medbridge.experts.weights import SMALL, asking, check_weights, explained, find_weights, hub_files, load_state, mirrors

BIOMEDBERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
_CONSTANTS = ("input_resolution", "context_length", "vocab_size", "position_ids")  # OpenAI's archives, older transformers
_BLOCK = {"norm1": "ln_1.", "qkv": "attn.in_proj_", "proj": "attn.out_proj.", "norm2": "ln_2.", "fc1": "mlp.c_fc.",
          "fc2": "mlp.c_proj."}


class OpenClipText(TextEncoder):
    """The text tower of an open_clip ``model``."""

    def __init__(self, model: nn.Module, tokenizer: Callable[[list[str]], Tensor]) -> None:
        super().__init__()
        self.encoder, self.tokenizer = model, tokenizer

    def _pooled(self, texts: list[str], device: torch.device) -> Tensor:
        return self.encoder.encode_text(self.tokenizer(texts).to(device))


class OpenClipExpert(Expert):
    """A frozen open_clip ``model`` (``visual``, ``encode_text``) and its ``tokenizer`` (texts -> ``(n, context)`` token ids).

    Depth T counts transformer blocks, or the five stages (stem and four layers) of a ResNet.
    """

    aligned = True

    def __init__(self, name: str, model: nn.Module, tokenizer: Callable[[list[str]], Tensor]) -> None:
        visual = model.visual
        super().__init__(name, getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN,
                         getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD,
                         getattr(visual, "preprocess_cfg", {}).get("interpolation", "bilinear"))
        if not isinstance(visual, (VisionTransformer, TimmModel, ModifiedResNet)):
            raise ExpertError(f"{name}: towers of type {type(visual).__name__} are not supported yet")
        self.model, self.tokenizer, self.text = model, tokenizer, OpenClipText(model, tokenizer)
        trunk = getattr(visual, "trunk", None)
        self.channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        prefix = 1 if isinstance(visual, VisionTransformer) else getattr(trunk, "num_prefix_tokens", 0)
        self._measure(to_2tuple(visual.image_size)[0], prefix)
        self.text_dim = self.text.text_dim = self.image_dim - self.widths[-1]

    def _forward(self, x: Tensor, depths: Sequence[int] | None) -> tuple[list[Tensor], Any]:
        extra = {} if isinstance(self.model.visual, ModifiedResNet) else {"output_extra_tokens": self.prefix > 0}
        out = self.model.visual.forward_intermediates(x, indices=depths and [d - 1 for d in depths], **extra)
        maps = out["image_intermediates"]
        return self._tokens(maps, out.get("image_intermediates_prefix")), (out["image_features"], maps[-1])

    def _summary(self, out: Any, last: Tensor) -> tuple[Tensor, Tensor | None]:
        embed = F.normalize(out[0].float(), dim=-1)
        # the mean of an un-normalised last map can be an order of magnitude larger than the embedding
        mean_patch = F.normalize(out[1].flatten(2).mean(dim=2).float(), dim=-1)
        return torch.cat([embed, mean_patch], dim=1), embed

    def blocks(self) -> list[nn.Module]:
        visual = self.model.visual
        if isinstance(visual, VisionTransformer):
            return list(visual.transformer.resblocks)
        if isinstance(visual, ModifiedResNet):  # the stem ends in its pooling
            return [visual.avgpool, visual.layer1, visual.layer2, visual.layer3, visual.layer4]
        return timm_blocks(self.name, visual.trunk, self.depth)

    def text_state(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.model.state_dict().items() if not k.startswith(("visual.", "logit_", "text_decoder."))}

    def vision_state(self) -> dict[str, Tensor]:
        return self.model.visual.state_dict()

    def block_weights(self, index: int) -> BlockWeights:
        visual = self.model.visual
        block = visual.transformer.resblocks[index] if isinstance(visual, VisionTransformer) else None
        if not isinstance(block, ResidualAttentionBlock):
            return super().block_weights(index)
        return BlockWeights.of(block, _BLOCK, block.ln_1, (block.ls_1, block.ls_2), block.mlp.gelu)


def load_open_clip(called: str, name: ExpertName, size: int | None, path: Path | None) -> OpenClipExpert:
    """Build ``open_clip:MODEL/PRETRAINED`` from a file, or ``open_clip:hf-hub:ORG/REPO`` from its folder; None asks the hub."""
    if name.repository:
        if path is not None:
            return load_open_clip_folder(called, path, size)
        with asking(called, [f"the folder {name.files[0]}/ (open_clip_config.json and weights)"], "the Hugging Face hub"):
            model, tokenizer = open_clip.create_model(name.model), open_clip.get_tokenizer(name.model)
        return OpenClipExpert(called, _resized(called, model, size), tokenizer)

    model_name, _, tag = name.model.partition("/")
    text, stated = open_clip.get_model_config(model_name)["text_cfg"], open_clip.get_pretrained_cfg(model_name, tag)
    # weights that were trained with QuickGELU are wrong without it, whichever of a model's two names is asked for
    options: dict[str, Any] = {"force_quick_gelu": bool(stated.get("quick_gelu", False)), **_local_text(text)}
    if path is None:
        with asking(called, name.files, "its hub"):
            model = open_clip.create_model(model_name, pretrained=tag, **options)
    else:
        # the tag's own settings must hold for local weights too
        own = {key: stated[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in stated}
        model = _filled(path, model_name, f"open_clip model {model_name!r}", force_preprocess_cfg=own, **options)
    if hub := text.get("hf_tokenizer_name"):
        tokenizer = HFTokenizer(str(hub_files(called, hub, *SMALL)), context_length=text.get("context_length", 77),
                                tokenizer_mode=text.get("tokenizer_mode"), **text.get("tokenizer_kwargs", {}))
    else:
        tokenizer = open_clip.get_tokenizer(model_name)
    return OpenClipExpert(called, _resized(called, model, size), tokenizer)


def load_open_clip_folder(name: str, folder: Path, size: int | None = None) -> OpenClipExpert:
    """Build an expert from a folder in open_clip's own layout (``open_clip_config.json`` and weights).

    A ``bpe_merges.txt.gz`` beside them is the vocabulary of open_clip's own tokenizer (the tiny experts have a small one).
    """
    if not (folder / "open_clip_config.json").is_file():
        raise ExpertError(f"{folder / 'open_clip_config.json'} is missing; put the expert's config and weights there")
    source, merges = f"local-dir:{folder}", folder / "bpe_merges.txt.gz"
    for path in sorted(folder.glob("*.safetensors")):
        check_weights(path)
    with explained(f"{folder}: open_clip cannot load this folder", "; restore its files"):
        text = _local_text(open_clip.get_model_config(source)["text_cfg"])
        model = open_clip.create_model(source, require_pretrained=True, device=torch.get_default_device(), **text)
        # open_clip would look for a relative bpe_path in the working directory, so the config cannot name the file
        tokenizer = open_clip.get_tokenizer(source, **({"bpe_path": str(merges)} if merges.is_file() else {}))
    return OpenClipExpert(name, _resized(name, model, size), tokenizer)


def load_unimed(name: str, model_name: str, size: int | None, weights: Path) -> OpenClipExpert:
    """Build UniMed-CLIP: an open_clip ViT and :data:`BIOMEDBERT` of 256 tokens, from a checkpoint of its own repository."""
    source = str(hub_files(name, BIOMEDBERT, *SMALL))
    text = {"hf_model_name": source, "hf_model_pretrained": False, "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 256}
    tokenizer = HFTokenizer(source, context_length=256)
    model = _filled(weights, model_name, f"UniMed-CLIP {model_name!r}", force_custom_text=True, text_cfg=text)
    return OpenClipExpert(name, _resized(name, model, size), tokenizer)


def _filled(path: Path, model_name: str, what: str, **options: Any) -> nn.Module:
    """An open_clip model from a checkpoint in the names of open_clip, OpenAI's archive, or a training run of either."""
    given = {key.removeprefix("module."): value for key, value in load_state(path).items()}
    state = {re.sub(r"^text_encoder\.", "text.", key): value for key, value in given.items()
             if key.split(".")[-1] not in _CONSTANTS}
    with explained(f"{path}: does not fit {what}", keys=given):
        model = open_clip.create_model(model_name, load_weights=False, pretrained_text=False,
                                       device=torch.get_default_device(), **options)
        state = convert_state_dict(model, state)  # MobileCLIP's names
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = convert_to_custom_text_state_dict(state)
        for key in {"logit_scale", "logit_bias"} & state.keys():  # a number, or a vector of one
            state[key] = state[key].reshape(getattr(model, key).shape)
        model.load_state_dict(state, strict=True)
    return model


def _resized(name: str, model: nn.Module, size: int | None) -> nn.Module:
    """The float32 model at another input size, by open_clip's and timm's own interpolation of the position embeddings."""
    visual, native = model.visual, to_2tuple(model.visual.image_size)[0]
    if size is None or size == native:
        return model
    if isinstance(visual, ModifiedResNet):
        raise ExpertError(f"{name}: size={size}, but the attention pooling of this ResNet takes {native} alone")
    embed = getattr(getattr(visual, "trunk", visual), "patch_embed", visual)
    patch = getattr(embed, "patch_size", None) or (1, 1)
    if size < patch[0] or size % patch[0]:
        raise ExpertError(f"{name}: size={size} is not a multiple of its patches of {patch[0]} pixels")
    if isinstance(visual, TimmModel):
        with explained(f"{name}: size={size} does not fit this tower", f"; it was pre-trained at {native}"):
            visual.set_input_size(size)
        return model
    visual.image_size, visual.grid_size = (size, size), (size // patch[0], size // patch[1])
    state = {"visual.positional_embedding": visual.positional_embedding.detach()}
    resize_pos_embed(state, model)
    visual.positional_embedding = nn.Parameter(state["visual.positional_embedding"], requires_grad=False)
    return model


def _local_text(text: dict[str, Any]) -> dict[str, Any]:
    """The option with which open_clip takes a text tower's configuration from a folder that is here; else none."""
    here = find_weights(mirrors(text["hf_model_name"])) if text.get("hf_model_name") else None
    # the text tower's weights are in the checkpoint: the folder gives its configuration alone
    return {"text_cfg": {**text, "hf_model_name": str(here), "hf_model_pretrained": False}} if here else {}

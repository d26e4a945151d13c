"""Build open_clip experts by name: ``open_clip:MODEL/PRETRAINED``, ``open_clip:hf-hub:ORG/REPO``, or a folder.

``MODEL/PRETRAINED`` takes the names of ``open_clip.list_pretrained()``. Weights come from a file that the caller names, then from
``MEDBRIDGE_WEIGHTS``, then from the model's hub. Tokenizers and text configurations that live on a hub of their own (SigLIP,
BiomedCLIP) are looked for in the same folder, as ``ORG--REPO/``, so that nothing needs a network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import resize_pos_embed
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer
from torch import nn

from medbridge.errors import ExpertError
from medbridge.experts.clip import OpenClipExpert
from medbridge.experts.weights import find_weights, hub_folder, load_state, missing_weights

__all__ = ["load_open_clip", "load_open_clip_folder", "load_unimed", "open_clip_files", "quiet"]

BIOMEDBERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"


def open_clip_files(model_name: str, tag: str) -> list[str]:
    """Names under which the weights of ``MODEL/TAG`` are looked for in the weights folder."""
    return [f"{model_name}-{tag}{suffix}" for suffix in (".safetensors", ".pt", ".bin")]


def load_open_clip(name: str, identifier: str, size: int | None = None, weights: Path | None = None) -> OpenClipExpert:
    """Build ``open_clip:IDENTIFIER``.

    Args:
        name: registry name of the expert.
        identifier: ``MODEL/PRETRAINED`` or ``hf-hub:ORG/REPO``.
        size: input resolution; default the pre-training one.
        weights: a file, or for ``hf-hub:`` the folder that mirrors the repository; default as the module says.

    Raises:
        ExpertError: an unknown model or tag, weights that do not fit, or that are neither here nor reachable.
    """
    if identifier.startswith("hf-hub:"):
        repository = identifier.removeprefix("hf-hub:")
        if (folder := weights or find_weights([hub_folder(repository)])) is not None:
            return load_open_clip_folder(name, folder, size)
        wanted = [f"the folder {hub_folder(repository)}/ (open_clip_config.json and weights)"]
        with _asked(name, wanted, "the Hugging Face hub"):
            model = open_clip.create_model(identifier)
            tokenizer = open_clip.get_tokenizer(identifier)
        return OpenClipExpert(name, _resized(name, model, size), tokenizer)

    model_name, _, tag = identifier.partition("/")
    if model_name not in open_clip.list_models():
        raise ExpertError(f"unknown open_clip model {model_name!r}; open_clip.list_models() lists the known ones")
    if tag not in open_clip.list_pretrained_tags_by_model(model_name):
        known = ", ".join(open_clip.list_pretrained_tags_by_model(model_name)) or "none"
        raise ExpertError(f"open_clip model {model_name!r} has no pretrained tag {tag!r}; it has: {known}")
    candidates = open_clip_files(model_name, tag)
    path = weights or find_weights(candidates)
    text = _local_text(open_clip.get_model_config(model_name)["text_cfg"])
    tag_config = open_clip.get_pretrained_cfg(model_name, tag)
    options: dict[str, Any] = {"text_cfg": text} if text else {}
    # weights that were trained with QuickGELU are wrong without it, whichever of a model's two names is asked for
    options["force_quick_gelu"] = bool(tag_config.get("quick_gelu", False))
    if path is not None:
        # the tag's own settings must hold for local weights too
        model = _from_file(path, model_name, force_preprocess_cfg=_preprocess(tag_config), **options)
    else:
        with _asked(name, candidates, "its hub"):
            model = open_clip.create_model(model_name, pretrained=tag, **options)
    return OpenClipExpert(name, _resized(name, model, size), _tokenizer(name, model_name))


def load_open_clip_folder(name: str, folder: Path, size: int | None = None) -> OpenClipExpert:
    """Build an expert from a folder in open_clip's own layout (``open_clip_config.json`` and weights).

    A ``bpe_merges.txt.gz`` beside them is the vocabulary of open_clip's own tokenizer (the tiny experts have a small one).

    Raises:
        ExpertError: a file is missing or does not fit; the message names it.
    """
    if not (folder / "open_clip_config.json").is_file():
        raise ExpertError(f"{folder / 'open_clip_config.json'} is missing; put the expert's config and weights there")
    try:
        with quiet():
            source = f"local-dir:{folder}"
            text = _local_text(open_clip.get_model_config(source)["text_cfg"])
            model = open_clip.create_model(source, require_pretrained=True, **({"text_cfg": text} if text else {}))
            # open_clip would look for a relative bpe_path in the working directory, so the config cannot name the file
            merges = folder / "bpe_merges.txt.gz"
            own = {"bpe_path": str(merges)} if merges.is_file() else {}
            tokenizer = open_clip.get_tokenizer(source, **own)
    except Exception as error:
        raise ExpertError(f"{folder}: open_clip cannot load this folder ({error}); restore its files") from error
    return OpenClipExpert(name, _resized(name, model, size), tokenizer)


def load_unimed(name: str, model_name: str, size: int | None, weights: Path | None) -> OpenClipExpert:
    """Build UniMed-CLIP: an open_clip ViT and BiomedBERT, from a checkpoint of its own repository.

    Its text tower is an MLP over the last hidden state's first token and takes 256 tokens; its configuration and vocabulary
    are those of :data:`BIOMEDBERT`, looked for in the weights folder.

    Raises:
        ExpertError: the checkpoint does not fit, or BiomedBERT's configuration is neither here nor reachable.
    """
    source = str(find_weights([hub_folder(BIOMEDBERT)]) or BIOMEDBERT)
    text = {"hf_model_name": source, "hf_model_pretrained": False, "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 256}
    wanted = [f"the folder {hub_folder(BIOMEDBERT)}/ (configuration and vocabulary)"]
    with _asked(name, wanted, "the Hugging Face hub"):
        tokenizer = HFTokenizer(source, context_length=256)
        model = open_clip.create_model(model_name, force_custom_text=True, text_cfg=text)
    try:
        state = {key.removeprefix("module.").replace("text_encoder.", "text.", 1): value
                 for key, value in load_state(weights).items()}
        state.pop("text.transformer.embeddings.position_ids", None)  # older transformers stored this constant
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ExpertError(f"{weights}: does not fit UniMed-CLIP {model_name!r} ({error})") from error
    return OpenClipExpert(name, _resized(name, model, size), tokenizer)


def _from_file(path: Path, model_name: str, **options: Any) -> nn.Module:
    if path.suffix != ".safetensors":
        load_state(path)  # refuses whatever holds more than tensors, before open_clip reads it
    try:
        with quiet():
            return open_clip.create_model(model_name, pretrained=str(path), **options)
    except Exception as error:
        raise ExpertError(f"{path}: does not fit open_clip model {model_name!r} ({error})") from error


def _resized(name: str, model: nn.Module, size: int | None) -> nn.Module:
    """The model at another input size, by open_clip's and timm's own interpolation of the position embeddings.

    It is done on the float32 weights that were loaded: half-precision checkpoints cannot be interpolated on a processor.
    """
    visual = model.visual
    native = visual.image_size[0] if isinstance(visual.image_size, (tuple, list)) else visual.image_size
    if size is None or size == native:
        return model
    if isinstance(visual, ModifiedResNet):
        raise ExpertError(f"{name}: size={size}, but the attention pooling of this ResNet takes {native} alone")
    embed = getattr(getattr(visual, "trunk", visual), "patch_embed", visual)
    patch = getattr(embed, "patch_size", None) or (1, 1)
    if size < patch[0] or size % patch[0]:
        raise ExpertError(f"{name}: size={size} is not a multiple of its patches of {patch[0]} pixels")
    if isinstance(visual, TimmModel):
        try:
            visual.set_input_size(size)
        except (AssertionError, ValueError, RuntimeError) as error:
            raise ExpertError(f"{name}: size={size} does not fit this tower ({error}); it was pre-trained at {native}") from error
        return model
    visual.image_size, visual.grid_size = (size, size), (size // patch[0], size // patch[1])
    state = {"visual.positional_embedding": visual.positional_embedding.detach()}
    resize_pos_embed(state, model)
    visual.positional_embedding = nn.Parameter(state["visual.positional_embedding"], requires_grad=False)
    return model


def _preprocess(tag_config: dict[str, Any]) -> dict[str, Any]:
    return {key: tag_config[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag_config}


def _local_text(text: dict[str, Any]) -> dict[str, Any] | None:
    """A text configuration whose Hugging Face model is here as a folder; ``None`` where nothing is to be changed."""
    here = find_weights([hub_folder(text["hf_model_name"])]) if text.get("hf_model_name") else None
    # the text tower's weights are in the checkpoint: the folder gives its configuration alone
    return None if here is None else {**text, "hf_model_name": str(here), "hf_model_pretrained": False}


def _tokenizer(name: str, model_name: str) -> Callable:
    text = open_clip.get_model_config(model_name)["text_cfg"]
    hub = text.get("hf_tokenizer_name")
    if hub and (folder := find_weights([hub_folder(hub)])) is not None:
        return HFTokenizer(str(folder), context_length=text.get("context_length", 77),
                           tokenizer_mode=text.get("tokenizer_mode"), **text.get("tokenizer_kwargs", {}))
    wanted = [f"the folder {hub_folder(hub)}/ (the tokenizer of {hub})"] if hub else ["its tokenizer"]
    with _asked(name, wanted, "the Hugging Face hub"):
        return open_clip.get_tokenizer(model_name)


@contextmanager
def _asked(name: str, candidates: list[str], source: str) -> Iterator[None]:
    """What a hub cannot give becomes the error that names the file and its place."""
    try:
        with quiet():
            yield
    except Exception as error:  # open_clip and its hub client raise many types; all mean the same to the user
        raise missing_weights(name, candidates, source, error) from error


@contextmanager
def quiet() -> Iterator[None]:
    """open_clip logs at the root; what it says is for its developers."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)

"""Experts by name: ``create_expert("tiny-vit")``.

A name is a short alias (:func:`list_experts`), or written out: ``open_clip:MODEL/PRETRAINED``, ``open_clip:hf-hub:ORG/REPO``,
``timm:MODEL+TEXT``, ``hf:ORG/REPO`` (a transformers CLIP or SigLIP), ``hf:ORG/REPO+TEXT`` (another's vision tower). TEXT lends
its space: a key of :data:`SENTENCE_ENCODERS`, or an open_clip expert. ``@SIZE`` at the end asks for another resolution.
"""

import warnings
from pathlib import Path

import torch
from torch import nn

from medbridge.errors import ExpertError
from medbridge.experts.base import PRECISIONS, BlockWeights, Expert, FrozenMaps, is_slow
from medbridge.experts.clip import OpenClipExpert, load_open_clip, load_open_clip_folder, load_unimed
from medbridge.experts.hf_vision import HfVisionExpert, SentenceEncoder, load_hf
from medbridge.experts.registry import ALIASES, SENTENCE_ENCODERS, ExpertAlias, ExpertName, list_experts, tiny_experts_folder
from medbridge.experts.timm_vision import TimmExpert, load_timm
from medbridge.experts.weights import weights_place

__all__ = ["ALIASES", "PRECISIONS", "SENTENCE_ENCODERS", "BlockWeights", "Expert", "ExpertAlias", "FrozenMaps", "HfVisionExpert",
           "OpenClipExpert", "TimmExpert", "create_expert", "list_experts", "tiny_experts_folder"]


def create_expert(
    name: str, device: str | torch.device = "cpu", *, size: int | None = None, weights: str | Path | None = None,
    precision: str = "float32",
) -> Expert:
    """Build a frozen expert by name.

    Args:
        name: an alias of :func:`list_experts`, or a written-out name (see the module).
        device: where to put it.
        size: input resolution R, to which position embeddings are interpolated; default the pre-training one. The expert is
            then called ``NAME@SIZE``, a name that builds it again.
        weights: file, or folder where the hub has one, to load instead of looking in ``MEDBRIDGE_WEIGHTS`` and on the hub. An
            adapter does not store the path: load it with the expert itself.
        precision: what the frozen tower computes in, of :data:`PRECISIONS`. An adapter records it.

    Raises:
        ExpertError: unknown name, weights missing or of another model, a size that the tower cannot take, unknown precision.
    """
    if precision not in PRECISIONS:
        raise ExpertError(f"precision={precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
    parts = ExpertName.of(name)
    if None not in (size, parts.size) and size != parts.size:
        raise ExpertError(f"{name!r} names another size than size={size}; give one of them")
    size = size or parts.size
    called, size = f"{parts.plain}@{size}" if size else parts.plain, size or parts.default_size
    path = _weights(parts, weights)
    text = None if parts.text is None else _text(parts.text)
    match parts.kind:
        case "tiny":
            expert: Expert = load_open_clip_folder(called, path, size)
        case "open_clip":
            expert = load_open_clip(called, parts, size, path)
        case "unimed":
            expert = load_unimed(called, parts.model, size, path)
        case "timm":
            expert = load_timm(called, parts, text, size, path)
        case "hf":
            expert = load_hf(called, parts.model, text, size, path)
    expert.precision = precision
    if is_slow(precision):
        warnings.warn(f"this processor has no arithmetic of its own for {precision}, which can be many times slower here than "
                      f"float32; leave --precision out, or run beside a GPU", UserWarning, stacklevel=2)
    return expert.to(device)


def _weights(name: ExpertName, weights: str | Path | None) -> Path | None:
    """The file or folder to load; ``None`` asks the hub."""
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.exists():
            raise ExpertError(f"weights={str(weights)!r}: no such file; give the file that holds the weights of {name.plain!r}")
        return path
    path, plain, alias = name.find(), name.plain, name.alias
    if path is None and alias and alias.own_file:
        fetch = f"Fetch it with `medbridge experts fetch {plain}` from huggingface.co/{alias.hub}, or put" if alias.hub else "Put"
        file = alias.file or plain + Path(alias.hub).suffix
        raise ExpertError(f"the weights of expert {plain!r} are not here: {alias.note}. {fetch} {file}, or the same as "
                          f"{plain}.safetensors, into {weights_place()}")
    return path


def _text(name: str) -> nn.Module:
    if name in SENTENCE_ENCODERS:
        return SentenceEncoder(name)
    expert = create_expert(name)
    expert.model.visual = nn.Identity()
    return expert.text

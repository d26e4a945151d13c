"""Experts by name: ``create_expert("tiny-vit")``.

A name is a short alias (:func:`list_experts`), or written out: ``open_clip:MODEL/PRETRAINED`` or ``open_clip:hf-hub:ORG/REPO``
(all that open_clip can name or load), ``timm:MODEL+TEXT`` (a vision-only tower with a borrowed text space), ``hf:ORG/REPO`` (a
transformers CLIP or SigLIP) or ``hf:ORG/REPO+TEXT`` (the vision tower of any other, without its language model). TEXT is a key of
:data:`SENTENCE_ENCODERS` or the name of an open_clip expert. ``@SIZE`` at the end asks for another input resolution.
"""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from medbridge.errors import ExpertError
from medbridge.experts.base import PRECISIONS, BlockWeights, Expert, FrozenMaps
from medbridge.experts.clip import OpenClipExpert, load_open_clip, load_open_clip_folder, load_unimed
from medbridge.experts.hf_vision import HfVisionExpert, load_hf
from medbridge.experts.registry import ALIASES, ExpertAlias, ExpertName, list_experts
from medbridge.experts.text import SENTENCE_ENCODERS, OpenClipText, SentenceEncoder
from medbridge.experts.timm_vision import TimmExpert, load_timm
from medbridge.experts.weights import find_weights, weights_place
from medbridge.support.text import did_you_mean

__all__ = ["ALIASES", "PRECISIONS", "SENTENCE_ENCODERS", "BlockWeights", "Expert", "ExpertAlias", "FrozenMaps", "HfVisionExpert",
           "OpenClipExpert", "TimmExpert", "create_expert", "list_experts", "tiny_experts_folder"]


def tiny_experts_folder() -> Path:
    """Folder of the shipped weights: in a checkout ``data/tiny_experts``, in an installed wheel beside the package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "data" / "tiny_experts", package / "_tiny_experts"):
        if folder.is_dir():
            return folder
    raise ExpertError("the shipped tiny experts were not found; they lie in data/tiny_experts of the repository: "
                      "install with `pip install -e .` from a clone")


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
    kind, model, text = parts.kind, parts.model, parts.text
    if None not in (size, parts.size) and size != parts.size:
        raise ExpertError(f"{name!r} names another size than size={size}; give one of them")
    size = size or parts.size
    called, size = f"{parts.plain}@{size}" if size else parts.plain, size or parts.default_size
    path = _own_weights(parts, weights)
    if kind == "tiny":
        expert: Expert = load_open_clip_folder(called, path or tiny_experts_folder() / model, size)
    elif kind == "open_clip" and model:
        expert = load_open_clip(called, parts.target.removeprefix("open_clip:"), size, path)
    elif kind == "unimed":
        expert = load_unimed(called, model, size, path)
    elif kind == "timm" and text is not None:
        expert = load_timm(called, model, partial(_text, text), size, path)
    elif kind == "hf" and "/" in model:
        expert = load_hf(called, model, None if text is None else partial(_text, text), size, path)
    else:
        raise ExpertError(
            f"unknown expert {name!r}; {did_you_mean(name, ALIASES)}Known: {', '.join(ALIASES)}; or write "
            "open_clip:MODEL/PRETRAINED, open_clip:hf-hub:ORG/REPO, timm:MODEL+TEXT, hf:ORG/REPO or hf:ORG/REPO+TEXT "
            f"(TEXT one of {', '.join(SENTENCE_ENCODERS)}, or an open_clip expert)")
    expert.precision = precision
    return expert.to(device)


def _own_weights(name: ExpertName, weights: str | Path | None) -> Path | None:
    """The weights file that the caller or the alias names; ``None`` leaves the search to the loader."""
    plain, alias = name.plain, name.alias
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.exists():
            raise ExpertError(f"weights={str(weights)!r}: no such file; give the file that holds the weights of {plain!r}")
        return path
    path = find_weights(name.own_files)
    # the target alone names the architecture: other weights than the alias's own must never stand in for them
    if path is None and alias and alias.own_file:
        fetch = f"Fetch it with `medbridge experts fetch {plain}` from huggingface.co/{alias.hub}, or put" if alias.hub else "Put"
        file = alias.file or plain + Path(alias.hub).suffix
        raise ExpertError(f"the weights of expert {plain!r} are not here: {alias.note}. {fetch} {file}, or the same as "
                          f"{plain}.safetensors, into {weights_place()}")
    return path


def _text(name: str) -> nn.Module:
    if name in SENTENCE_ENCODERS:
        return SentenceEncoder(name)
    if ExpertName.of(name).kind in ("tiny", "open_clip"):
        return OpenClipText(create_expert(name))
    raise ExpertError(
        f"unknown text encoder {name!r}; known: {', '.join(SENTENCE_ENCODERS)}, and every open_clip expert by its name")

"""Experts by name: ``create_expert("tiny-vit")``.

A name is a short alias (:func:`list_experts`), or written out:

- ``open_clip:MODEL/PRETRAINED`` and ``open_clip:hf-hub:ORG/REPO``: every model that open_clip can name or load;
- ``timm:MODEL+TEXT``: a vision-only timm tower with a borrowed text space;
- ``hf:ORG/REPO``: a transformers CLIP or SigLIP; ``hf:ORG/REPO+TEXT``: the vision tower of any other, LLaVA, Qwen-VL and
  MedGemma among them, without its language model.

TEXT is a sentence encoder (:data:`SENTENCE_ENCODERS`) or the name of an open_clip expert, whose text tower is taken. Every name
may end in ``@SIZE``, another input resolution than the pre-training one.

Without a network: ``MEDBRIDGE_WEIGHTS`` names a folder in which the weights are looked for by model name, and
``create_expert(name, weights=FILE)`` takes them from one file. ``medbridge experts fetch NAME`` fills such a folder, and the
error about a missing file says how it must be called.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from medbridge.errors import ExpertError
from medbridge.experts.base import PRECISIONS, BlockWeights, Expert, FrozenMaps
from medbridge.experts.clip import OpenClipExpert
from medbridge.experts.clip_load import load_open_clip, load_open_clip_folder, load_unimed
from medbridge.experts.hf_vision import HfVisionExpert, load_hf
from medbridge.experts.registry import ALIASES, ExpertAlias, list_experts, split_size
from medbridge.experts.text import SENTENCE_ENCODERS, OpenClipText, SentenceEncoder
from medbridge.experts.timm_vision import TimmExpert, load_timm
from medbridge.experts.weights import alias_files, find_weights, missing_checkpoint

__all__ = [
    "ALIASES", "PRECISIONS", "SENTENCE_ENCODERS", "BlockWeights", "Expert", "ExpertAlias", "FrozenMaps", "HfVisionExpert",
    "OpenClipExpert", "OpenClipText", "SentenceEncoder", "TimmExpert", "create_expert", "list_experts", "split_size",
    "tiny_experts_folder",
]


def tiny_experts_folder() -> Path:
    """Folder of the shipped weights: in a checkout ``data/tiny_experts``, in an installed wheel beside the package.

    Raises:
        ExpertError: neither is there.
    """
    here = Path(__file__).resolve().parents[1]
    for folder in (os.environ.get("MEDBRIDGE_TINY_EXPERTS"), here.parent / "data" / "tiny_experts", here / "_tiny_experts"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    raise ExpertError(
        "the shipped tiny experts were not found; they lie in data/tiny_experts of the repository: "
        "install with `pip install -e .` from a clone, or set MEDBRIDGE_TINY_EXPERTS to that folder"
    )


def create_expert(
    name: str, device: str | torch.device = "cpu", *, size: int | None = None, weights: str | Path | None = None,
    precision: str = "float32",
) -> Expert:
    """Build a frozen expert by name.

    Args:
        name: an alias of :func:`list_experts`, or a written-out name (see the module).
        device: where to put it.
        size: input resolution R; default the pre-training one. Position embeddings are interpolated. The expert is then
            called ``NAME@SIZE``, a name that builds it again.
        weights: file, or folder where the model's hub has a folder, to load instead of looking for it. An adapter does not
            store the path: pass the expert itself to :meth:`medbridge.MedBridge.load`.
        precision: what the frozen tower computes in: 'float32', 'bfloat16' or 'float16'. An adapter records it.

    Returns:
        The expert, in eval mode, with ``requires_grad`` off everywhere.

    Raises:
        ExpertError: unknown name (with the nearest known ones), weights missing (with the file and its place) or of another
            model, a size that the tower cannot take, or an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ExpertError(f"precision={precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
    plain, named_size = split_size(name)
    if size is not None and named_size is not None and size != named_size:
        raise ExpertError(f"{name!r} names another size than size={size}; give one of them")
    size = size or named_size
    called = f"{plain}@{size}" if size else plain
    alias = ALIASES.get(plain)
    target, default_size = split_size(alias.target if alias else plain)
    size = size or default_size
    path = _given(plain, alias, weights)
    kind, _, rest = target.partition(":")
    model, plus, text = rest.partition("+")
    if kind == "tiny":
        expert: Expert = load_open_clip_folder(called, path or tiny_experts_folder() / rest, size)
    elif kind == "open_clip" and rest:
        expert = load_open_clip(called, rest, size, path)
    elif kind == "unimed":
        expert = load_unimed(called, rest, size, path)
    elif kind == "timm" and plus:
        expert = load_timm(called, model, _text(text), size, path)
    elif kind == "hf" and "/" in model:
        expert = load_hf(called, model, _text(text) if plus else None, size, path)
    else:
        raise ExpertError(_unknown(name))
    expert.precision = precision
    return expert.to(device)


def _given(plain: str, alias: ExpertAlias | None, weights: str | Path | None) -> Path | None:
    """The weights file that the caller or the alias names; ``None`` leaves the search to the loader."""
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.exists():
            raise ExpertError(f"weights={str(weights)!r}: no such file; give the file that holds the weights of {plain!r}")
        return path
    if alias is None:
        return None
    candidates = alias_files(plain, alias.file)
    path = find_weights(candidates)
    # the target alone names the architecture: other weights than the alias's own must never stand in for them
    if path is None and alias.own_file:
        raise missing_checkpoint(plain, alias)
    return path


def _text(name: str) -> Callable[[], nn.Module]:
    """How the text encoder TEXT is built; it is built when the vision tower's name is known to be good."""
    def build() -> nn.Module:
        if name in SENTENCE_ENCODERS:
            return SentenceEncoder(name)
        target = ALIASES[name].target if name in ALIASES else name
        if target.partition(":")[0] in ("tiny", "open_clip"):
            return OpenClipText(create_expert(name))
        raise ExpertError(
            f"unknown text encoder {name!r}; known: {', '.join(SENTENCE_ENCODERS)}, and every open_clip expert by its name")

    return build


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, ALIASES, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"unknown expert {name!r}; {hint}Known: {', '.join(ALIASES)}; or write open_clip:MODEL/PRETRAINED, "
        f"open_clip:hf-hub:ORG/REPO, timm:MODEL+TEXT, hf:ORG/REPO or hf:ORG/REPO+TEXT (TEXT one of "
        f"{', '.join(SENTENCE_ENCODERS)}, or an open_clip expert)"
    )

"""The short names of ``aliases.toml``, and what a name means.

Image-text models (CLIP, SigLIP, BiomedCLIP, PubMedCLIP, UniMed-CLIP, MedSigLIP) bring their own prompts' space. Vision-only
towers (DINOv2, DINOv3, MedDINOv3, LVM-Med) and those of MedGemma, LLaVA and Qwen-VL, without the language model, borrow one.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import open_clip
import timm

from medbridge.errors import ExpertError
from medbridge.experts.weights import find_weights, mirrors, weight_files
from medbridge.support.text import did_you_mean

SENTENCE_ENCODERS = {
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
    "pubmedbert": "NeuML/pubmedbert-base-embeddings",
    "biolord": "FremyCompany/BioLORD-2023",
}
"""Short name -> hub id; what is there as a pickle alone is not read: convert it with ``safetensors.torch.save_file``."""


@dataclass(frozen=True)
class ExpertAlias:
    """A short name's entry; ``aliases.toml`` says what each field holds."""

    target: str
    licence: str
    note: str
    fetchable: bool = True
    file: str = ""
    hub: str = ""
    shape: tuple[int, int, int] | None = None

    @property
    def own_file(self) -> bool:
        """Whether the target names the architecture alone, so that no weights but the alias's own will do."""
        return bool(self.hub) or not self.fetchable


ALIASES = {name: ExpertAlias(**entry) for name, entry in tomllib.loads(
    Path(__file__).with_name("aliases.toml").read_text(encoding="utf-8")).items()}


def list_experts() -> list[str]:
    """Names of the aliases that :func:`medbridge.create_expert` takes, shipped ones first."""
    return list(ALIASES)


def tiny_experts_folder() -> Path:
    """Folder of the shipped weights: in a checkout ``data/tiny_experts``, in an installed wheel beside the package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "data" / "tiny_experts", package / "_tiny_experts"):
        if folder.is_dir():
            return folder
    raise ExpertError("the shipped tiny experts were not found; they lie in data/tiny_experts of the repository: "
                      "install with `pip install -e .` from a clone")


class ExpertName(NamedTuple):
    """A name taken apart: ``KIND:MODEL+TEXT@SIZE``, or what an alias stands for."""

    plain: str  # as given, before the @
    size: int | None  # as given, behind the @
    alias: ExpertAlias | None
    target: str  # the written-out name
    default_size: int | None  # what an alias names behind the @ of its target
    kind: str
    model: str
    text: str | None  # None where the target has no +

    @classmethod
    def of(cls, name: str) -> ExpertName:
        """Take ``name`` apart; ExpertError where the libraries know no such model (whether its files are there is not asked)."""
        plain, size = _split_size(name)
        alias = ALIASES.get(plain)
        target, default_size = _split_size(alias.target if alias else plain)
        kind, _, rest = target.partition(":")
        model, plus, text = rest.partition("+")
        parts = cls(plain, size, alias, target, default_size, kind, model, text if plus else None)
        parts._check()
        return parts

    def _check(self) -> None:
        kind, model = self.kind, self.model
        if kind == "open_clip" and model and not self.repository:
            model_name, _, tag = model.partition("/")
            if model_name not in open_clip.list_models():
                raise ExpertError(f"unknown open_clip model {model_name!r}; open_clip.list_models() lists the known ones")
            if tag not in (tags := open_clip.list_pretrained_tags_by_model(model_name)):
                known = ", ".join(tags) or "none"
                raise ExpertError(f"open_clip model {model_name!r} has no pretrained tag {tag!r}; it has: {known}")
        elif kind == "timm" and self.text is not None:
            if not timm.is_model(model.split(".")[0]):
                close = ", ".join(timm.list_models(f"*{model.split('_')[0]}*")[:8])
                raise ExpertError(f"unknown timm model {model!r}; close names: {close or 'see timm.list_models()'}")
        elif kind not in ("tiny", "unimed") and "/" not in (self.repository or ""):
            raise ExpertError(
                f"unknown expert {self.plain!r}; {did_you_mean(self.plain, ALIASES)}Known: {', '.join(ALIASES)}; or write "
                "open_clip:MODEL/PRETRAINED, open_clip:hf-hub:ORG/REPO, timm:MODEL+TEXT, hf:ORG/REPO or hf:ORG/REPO+TEXT "
                f"(TEXT one of {', '.join(SENTENCE_ENCODERS)}, or an open_clip expert)")
        if self.text is not None and self.text not in SENTENCE_ENCODERS:
            target = ALIASES[self.text].target if self.text in ALIASES else self.text
            if not target.startswith(("tiny:", "open_clip:")):
                raise ExpertError(f"unknown text encoder {self.text!r}; known: {', '.join(SENTENCE_ENCODERS)}, and every "
                                  "open_clip expert by its name")

    @property
    def repository(self) -> str | None:
        """The hub repository that a folder of files mirrors; None where one file holds the weights."""
        if self.kind == "open_clip" and self.model.startswith("hf-hub:"):
            return self.model.removeprefix("hf-hub:")
        return self.model if self.kind == "hf" else None

    @property
    def own_files(self) -> list[str]:
        """Names under which the weights of a short name are looked for, before those of its target."""
        return weight_files(self.plain) + [self.alias.file] * bool(self.alias.file) if self.alias else []

    @property
    def files(self) -> list[str]:
        """Names of files or folders under which the weights of its target are looked for."""
        return mirrors(self.repository) if self.repository else weight_files(self.model.replace("/", "-"))

    @property
    def wanted(self) -> str:
        """The name in the weights folder that messages give."""
        if self.alias and self.alias.own_file:
            return self.alias.file or self.own_files[0]
        return self.model if self.kind == "tiny" else self.files[0]

    def find(self) -> Path | None:
        """The file or folder of its weights, where it is here: in ``MEDBRIDGE_WEIGHTS``, or shipped."""
        if (path := find_weights(self.own_files)) or (self.alias and self.alias.own_file):
            return path  # other weights than the alias's own must never stand in for them
        return tiny_experts_folder() / self.model if self.kind == "tiny" else find_weights(self.files)


def _split_size(name: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.+)@(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)

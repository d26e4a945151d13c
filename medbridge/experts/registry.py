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

from medbridge.experts.weights import weight_files


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
        """Take ``name`` apart; nothing is checked."""
        plain, size = _split_size(name)
        alias = ALIASES.get(plain)
        target, default_size = _split_size(alias.target if alias else plain)
        kind, _, rest = target.partition(":")
        model, plus, text = rest.partition("+")
        return cls(plain, size, alias, target, default_size, kind, model, text if plus else None)

    @property
    def own_files(self) -> list[str]:
        """Names under which the weights of a short name are looked for, before those of its target."""
        return weight_files(self.plain) + [self.alias.file] * bool(self.alias.file) if self.alias else []


def _split_size(name: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.+)@(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)

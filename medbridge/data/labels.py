"""One vocabulary of findings: each benchmark's label is one dictionary away from every other's.

A loader keeps its owner's names ("Effusion", "Pleural Effusion"). Only the same finding is paired: "Lung Opacity" is wider than
"Pneumonia", "Lung Lesion" wider than "Nodule", and neither is mapped to the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from medbridge.errors import BenchmarkError


@dataclass(frozen=True)
class Finding:
    """A finding of ``findings.yaml``: its other names, and the words of its prompts."""

    aliases: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    whole: bool = False  # a label that is itself a negation ("No Finding") does not go through the templates


FINDINGS: dict[str, Finding] = {
    name: Finding(**{key: words if key == "whole" else tuple(words) for key, words in entry.items()})
    for name, entry in yaml.safe_load(Path(__file__).with_name("findings.yaml").read_text(encoding="utf-8")).items()}
_NAMES = {alias: name for name, finding in FINDINGS.items() for alias in (name.lower(), *finding.aliases)}


@dataclass(frozen=True)
class SharedLabel:
    """A finding that two benchmarks share: its canonical name, and what each of them calls it."""

    finding: str
    train: str
    test: str


def canonical(label: str) -> str | None:
    """The finding that a label names, whatever its case, underscores or blanks; ``None`` for a label that is not known."""
    return _NAMES.get(" ".join(label.replace("_", " ").lower().split()))


def shared_labels(train: Sequence[str], test: Sequence[str]) -> list[SharedLabel]:
    """The findings that both label lists name, in the order of ``train``; an unknown label is shared with one of the same name.

    BenchmarkError where no finding is shared, or a list names the same finding twice.
    """
    sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for side, labels in zip(sides, (train, test), strict=True):
        for label in labels:
            finding = canonical(label) or label
            if finding in side:
                raise BenchmarkError(f"labels {side[finding]!r} and {label!r} both name {finding!r}; keep one of them")
            side[finding] = label
    shared = [SharedLabel(finding, name, sides[1][finding]) for finding, name in sides[0].items() if finding in sides[1]]
    if not shared:
        raise BenchmarkError(f"no shared label: one side has {', '.join(train)}, the other {', '.join(test)}; choose benchmarks "
                             f"that share a finding (`medbridge labels` lists them)")
    return shared

"""One vocabulary of findings: each benchmark's label is one dictionary away from every other's. [ours]

A loader keeps its owner's names ("Effusion", "Pleural Effusion"). Only the same finding is paired: "Lung Opacity" is wider than
"Pneumonia", "Lung Lesion" wider than "Nodule", and neither is mapped to the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from medbridge.errors import BenchmarkError

FINDINGS: dict[str, tuple[str, ...]] = {  # finding -> other names of the very same finding, lower case
    "Atelectasis": ("atelectases",), "Bacterial Pneumonia": ("bacterial",),
    "COVID-19": ("covid", "covid19", "covid-19 pneumonia", "sars-cov-2"), "Cardiomegaly": ("enlarged heart",),
    "Consolidation": ("airspace consolidation",), "Edema": ("pulmonary edema", "oedema", "pulmonary oedema"),
    "Effusion": ("pleural effusion",), "Emphysema": (), "Enlarged Cardiomediastinum": ("enlarged mediastinum",),
    "Fibrosis": ("pulmonary fibrosis",), "Fracture": ("rib fracture",), "Hernia": ("hiatal hernia", "hiatus hernia"),
    "Infiltration": ("infiltrate",), "Lung Lesion": (), "Lung Opacity": ("airspace opacity",), "Mass": ("lung mass",),
    "No Finding": ("normal",), "Nodule": ("pulmonary nodule", "lung nodule"), "Pleural Other": (),
    "Pleural Thickening": ("pleural-thickening",), "Pneumonia": (), "Pneumothorax": (), "Support Devices": ("devices",),
    "Viral Pneumonia": ("viral",),
}  # fmt: skip
_NAMES = {alias: finding for finding, aliases in FINDINGS.items() for alias in (finding.lower(), *aliases)}


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
    sides = []
    for labels in (train, test):
        side: dict[str, str] = {}
        for label in labels:
            finding = canonical(label) or label
            if finding in side:
                raise BenchmarkError(f"labels {side[finding]!r} and {label!r} both name {finding!r}; keep one of them")
            side[finding] = label
        sides.append(side)
    shared = [SharedLabel(finding, name, sides[1][finding]) for finding, name in sides[0].items() if finding in sides[1]]
    if not shared:
        raise BenchmarkError(f"no shared label: one side has {', '.join(train)}, the other {', '.join(test)}; choose benchmarks "
                             f"that share a finding (`medbridge labels` lists them)")
    return shared

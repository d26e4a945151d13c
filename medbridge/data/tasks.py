"""The adaptation tasks: what a model is trained on, and on which labels of which films it is scored.

[abstract] Three adaptation tasks, cross-domain and in-domain, with varying amounts of training data. [ours] 1 %, 10 % and 100 %
of the labels, and binary as the third task. A model is trained on the **train** split of its source over *all* of its labels, and
everything is chosen on **val**. A target is a benchmark's **test** split over the labels that both share.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from medbridge.data import Benchmark, known_name, load_benchmark
from medbridge.data.files import first_five
from medbridge.data.labels import SharedLabel, shared_labels
from medbridge.data.table import shuffled_patients
from medbridge.errors import BenchmarkError, BenchmarkWarning

_SAME_FILMS = {
    frozenset({"nih", "rsna"}): "RSNA's films were taken from NIH ChestX-ray14 and carry other names there",
    frozenset({"chexpert", "chexpert-plus"}): "CheXpert Plus holds the films of CheXpert",
    frozenset({"rsna", "covidx"}): "COVIDx took films from the RSNA challenge and carries other names",
    frozenset({"nih", "covidx"}): "COVIDx took films from the RSNA challenge, whose films are those of NIH ChestX-ray14",
    frozenset({"nih", "chestmnist"}): "ChestMNIST is NIH ChestX-ray14, made smaller and split in another way",
    frozenset({"rsna", "chestmnist"}): "ChestMNIST is NIH ChestX-ray14, which RSNA's films were taken from",
    frozenset({"covidx", "chestmnist"}): "COVIDx took films from the RSNA challenge, whose films ChestMNIST holds too",
    frozenset({"kermany", "pneumoniamnist"}): "PneumoniaMNIST is the set of Kermany et al., cropped and made smaller",
}


@dataclass(frozen=True)
class BenchmarkRef:
    """A benchmark by name, its folder and its loader's options, as a command line or a file gives them; nothing is read yet."""

    name: str
    root: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, options: Mapping[str, Any] | None = None) -> BenchmarkRef:
        """``NAME`` (a folder in ``MEDBRIDGE_DATA``; phantoms need none) or ``NAME=ROOT``. BenchmarkError: unknown, no folder."""
        given, _, folder = text.partition("=")
        name = known_name(given.strip())
        root = Path(folder).expanduser() if folder else None if name.startswith("phantom") else _data_folder(name)
        return cls(name, root, options or {})

    def load(self) -> Benchmark:
        """The benchmark. BenchmarkError as :func:`medbridge.data.load_benchmark`, also for an option it does not have."""
        try:
            return load_benchmark(self.name, self.root, **self.options)
        except TypeError as error:
            if not self.options:
                raise
            raise BenchmarkError(f"benchmark {self.name!r}: options {dict(self.options)!r}: {error}; each is an argument of its "
                                 f"loader") from error


def _data_folder(name: str) -> Path:
    data = os.environ.get("MEDBRIDGE_DATA")
    if not data:
        raise BenchmarkError(f"benchmark {name!r} needs root, its folder: write {name}=FOLDER, or set MEDBRIDGE_DATA to the "
                             f"folder that holds {name}/")
    folders = sorted(p for p in Path(data).expanduser().glob("*") if p.is_dir() and p.name.lower() == name.lower())
    if len(folders) != 1:
        held = f"{' and '.join(folder.name for folder in folders)}; keep one" if folders else f"no folder {name}/; put it there"
        raise BenchmarkError(f"MEDBRIDGE_DATA={data} holds {held}, or write {name}=FOLDER")
    return folders[0]


@dataclass(frozen=True)
class Target:
    """The films that a model is scored on."""

    test: Benchmark  # the films of one split over the shared labels, under the source's names for them
    shared: tuple[SharedLabel, ...]  # the S shared findings, with either side's name
    columns: tuple[int, ...]  # where the shared labels stand in the model's (n, C) scores
    in_domain: bool  # whether the films are of the benchmark that the model was trained on

    def mapping(self) -> str:
        """The shared labels as text, 'train name = test name' where the two differ."""
        return ", ".join(s.train if s.train == s.test else f"{s.train} = {s.test}" for s in self.shared)


def make_target(labels: Sequence[str], benchmark: Benchmark, source: str, in_domain: bool = False, split: str = "test") -> Target:
    """A split as target of a model with these C labels. BenchmarkError, naming ``source``: no label is shared, an empty split."""
    try:
        shared = shared_labels(labels, benchmark.labels)
    except BenchmarkError as error:
        raise BenchmarkError(f"{source} -> {benchmark.name}: {error}") from error
    test = benchmark.select({s.test: s.train for s in shared}).split(split)
    return Target(test, tuple(shared), tuple(list(labels).index(s.train) for s in shared), in_domain)


def make_targets(source: Benchmark, tests: Sequence[Benchmark]) -> list[Target]:
    """One target per benchmark of ``tests``; a benchmark of the source's name and folder is in-domain.

    BenchmarkError where no label is shared, a test split is empty, or a test film is one of the source's train or val files;
    BenchmarkWarning for benchmarks that hold the same films under other names.
    """
    def place(benchmark: Benchmark) -> tuple[str, Path]:
        return benchmark.name, benchmark.root.resolve()

    seen = {source.root.resolve() / image for image in source.table.loc[source.table["split"] != "test", "image"]}
    targets = [make_target(source.labels, benchmark, source.name, place(benchmark) == place(source)) for benchmark in tests]
    for test in (target.test for target in targets):
        if leaked := sorted(seen.intersection(test.root.resolve() / image for image in test.image_ids())):
            raise BenchmarkError(f"{source.name} -> {test.name}: {len(leaked)} test films are train or val films of the source, "
                                 f"such as {leaked[0]}; keep every film in one split")
        if known := _SAME_FILMS.get(frozenset({source.name, test.name})):
            warnings.warn(f"{source.name} -> {test.name}: {known}; the score may be too good", BenchmarkWarning, stacklevel=2)
    return targets


def without_copies(target: Target, copies: np.ndarray, trained_on: str, leave_out: bool = True) -> Target:
    """The target without the films of a mask ``(n,)``, which the model is trained on; or with them, since that was asked for.

    BenchmarkWarning with their number and names; BenchmarkError where what is left has no label with both classes.
    """
    if not copies.any():
        return target
    left, test = target.test.take(~copies), target.test
    fault = (f"{trained_on} -> {test.name}: {copies.sum()} of {len(test)} films are films that the model is trained on, or "
             f"copies of them: {first_five(test.table.loc[copies, 'image'].tolist())}")
    if leave_out and not any(left.table[label].nunique() > 1 for label in left.labels):
        raise BenchmarkError(f"{fault}; the {len(left)} others have no label with both classes, so nothing can be measured; keep "
                             f"all films of a patient in one split, or test on films that are not trained on")
    end = f"they are left out, the {len(left)} others are scored" if leave_out else "their scores say nothing of other films"
    warnings.warn(f"{fault}; {end}", BenchmarkWarning, stacklevel=2)
    return replace(target, test=left) if leave_out else target


def one_label(benchmark: Benchmark, label: str) -> Benchmark:
    """In-domain binary: one finding, by any of its names, against the rest. BenchmarkError where the benchmark lacks it."""
    try:
        return benchmark.select([shared_labels([label], benchmark.labels)[0].test])
    except BenchmarkError:
        held = ", ".join(benchmark.labels)
        raise BenchmarkError(f"benchmark {benchmark.name!r} has no label {label!r}; it has {held}") from None


def deal_folds(benchmark: Benchmark, folds: int, seed: int = 0) -> list[Benchmark]:
    """Cross-validation by patient: every film of which a label is known, whatever its split, is tested in one of the folds.

    Of the i-th benchmark fold i is the test split, the next fold val, and the others train. A patient's films stay together, and
    the folds are alike in the rarest finding of each film. The pixels of all films stay as ``unlabelled``: the folds share one
    basis of compact maps. BenchmarkError: fewer than three folds, or patients than folds.
    """
    films = benchmark.take(benchmark.targets()[1].any(axis=1))
    patients, positive = films.table["patient_id"], films.targets()[0] == 1
    if not 3 <= folds <= patients.nunique():
        raise BenchmarkError(f"{benchmark.name}: {folds} folds; give from 3 to {patients.nunique()}, the number of patients")
    rarest = np.where(positive.any(axis=1), np.where(positive, positive.sum(axis=0), np.inf).argmin(axis=1), -1)
    fold = np.empty(len(films), dtype=int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # a finding of fewer patients is not in every fold
        dealt = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(rarest, rarest, patients)
        for number, (_, rows) in enumerate(dealt):
            fold[rows] = number
    parts = [np.select([fold == i, fold == (i + 1) % folds], ["test", "val"], "train") for i in range(folds)]
    return [replace(films, table=films.table.assign(split=split), unlabelled=films) for split in parts]


def member_folds(train: Benchmark, val: Benchmark, members: int, seed: int = 0) -> np.ndarray:
    """The member that may not learn from each film of train and val, int ``(n,)``. One member: 0 in val, -1 in train. More: the
    patients of both are dealt out at random, all films of a patient to the same member."""
    if members == 1:
        return np.repeat([-1, 0], [len(train), len(val)])
    patients = np.concatenate([part.table["patient_id"].to_numpy() for part in (train, val)])
    order = {patient: n % members for n, patient in enumerate(shuffled_patients(patients, seed))}
    return np.array([order[patient] for patient in patients])


def label_budget(benchmark: Benchmark, fraction: float, seed: int = 0) -> Benchmark:
    """The benchmark with a label budget: this fraction in (0, 1] of the patients of train and of val, at least one; test whole.

    Labels that settings are chosen by are labels too, and methods may learn from them. Training films beyond the budget stay as
    ``unlabelled``. Patients of whom no label is known are not drawn. BenchmarkError for a fraction out of range, or no training
    film with a known label. UserWarning: how many labels have one class only among the drawn films and cannot be learned.
    """
    if fraction == 1:
        return benchmark
    known = benchmark.targets()[1].any(axis=1) | (benchmark.table["split"] == "test").to_numpy()
    thin = benchmark.take(known).subset(float(fraction), "train", seed).subset(float(fraction), "val", seed)
    train = thin.split("train")
    lone = [label for label in train.labels if train.table[label].nunique() < 2]
    if lone:
        patients = train.table["patient_id"].nunique()
        warnings.warn(f"{benchmark.name}: at {100 * fraction:g} % ({patients} training patients, {len(train)} films, seed {seed})"
                      f" {len(lone)} of {len(train.labels)} labels have one class only and cannot be learned: {', '.join(lone)}",
                      stacklevel=2)
    return replace(thin, unlabelled=benchmark.unlabelled or benchmark.split("train"))

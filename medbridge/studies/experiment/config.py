"""The YAML file of an experiment, read and checked before anything is loaded. [ours]

```yaml
name: three tasks
experts: [tiny-resnet, tiny-resnet-scenes]
precision: float32           # optional: or bfloat16, float16: what the frozen towers compute in
benchmarks:                  # optional: how to load what the tasks name
  CheXpert: {root: /data/chexpert, options: {}}
  phantom-A: {options: {n_films: 240}}
label_fractions: [0.01, 0.1, 1.0]
seeds: [0, 1, 2]             # of the draw of patients and of training
methods: [zero-shot, linear probe, MedBridge]
adapter: {queries: 8}        # AdapterConfig
train: {epochs: 10}          # TrainConfig, without seed
sampler: {crop: 0.5}         # FocalSampler
tasks:
  - {name: cross-domain, kind: cross-domain, train: [phantom-A, NIH], test: [CheXpert]}
  - {name: in-domain multi-label, kind: multi-label, train: [NIH]}
  - {name: in-domain binary, kind: binary, train: [NIH], label: Pneumonia}
```

An entry of ``benchmarks`` may have a name of its own: ``mine: {benchmark: folder, root: /data/mine}``. A benchmark that is not
listed is loaded by its name, as ``medbridge adapt --train NAME`` does. A cross-domain task without ``test`` scores each model on
all the benchmarks that the task trains on. A task may have ``label_fractions`` of its own.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from medbridge.data.tasks import BenchmarkRef
from medbridge.errors import BenchmarkError, MedBridgeError
from medbridge.experts import PRECISIONS
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig
from medbridge.studies.experiment.methods import method_name
from medbridge.train import TrainConfig

__all__ = ["KINDS", "Experiment", "ExperimentError", "Task", "parse_experiment", "read_experiment"]

KINDS = ("cross-domain", "multi-label", "binary")


class ExperimentError(MedBridgeError, ValueError):
    """A faulty experiment file; the message names the file, the key and the fix."""


@dataclass(frozen=True)
class Task:
    """One adaptation task.

    Attributes:
        name: for tables and figures. kind: one of :data:`KINDS`.
        train: names of the sources; one model each (and fraction, and seed).
        test: names of the benchmarks that each model is scored on; empty: on its source.
        label: for 'binary': the finding that is told from the rest.
        label_fractions: shares of the training patients.
    """

    name: str
    kind: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label: str | None
    label_fractions: tuple[float, ...]

    def tests_of(self, source: str) -> tuple[str, ...]:
        """The benchmarks that a model of this source is scored on."""
        return self.test or (source,)


@dataclass(frozen=True)
class Experiment:
    """A checked experiment file; see the module's docstring for its keys.

    Attributes:
        benchmarks: every name that a task uses -> how to load it.
        methods: names of :mod:`medbridge.studies.experiment.methods`, MedBridge among them or not.
    """

    name: str
    experts: tuple[str, ...]
    benchmarks: Mapping[str, BenchmarkRef]
    tasks: tuple[Task, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    n_boot: int = 1000
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    train: Mapping[str, Any] = field(default_factory=dict)
    sampler: FocalSampler = field(default_factory=FocalSampler)
    precision: str = "float32"

    def train_config(self, seed: int) -> TrainConfig:
        """Settings of a training run with this seed."""
        return TrainConfig(**self.train, seed=seed)


def read_experiment(path: str | Path) -> Experiment:
    """Read a YAML file. ExperimentError for whatever is wrong with it, before anything is loaded."""
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path}: cannot be read ({error}); give a YAML file") from None
    except yaml.YAMLError as error:
        raise ExperimentError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return parse_experiment(given)
    except (ExperimentError, BenchmarkError) as error:
        raise ExperimentError(f"{path}: {error}") from error


def parse_experiment(given: Any) -> Experiment:
    """An experiment from the mapping that its file holds. ExperimentError names the key."""
    known = ("name", "experts", "benchmarks", "tasks", "methods", "label_fractions", "seeds", "n_boot", "adapter", "train",
             "sampler", "precision")
    _check_keys(given, known, ("name", "experts", "tasks"), "")
    fractions = _fractions(given.get("label_fractions", [0.01, 0.1, 1.0]), "label_fractions")
    precision = _of(given.get("precision", "float32"), str, "precision")
    if precision not in PRECISIONS:
        raise ExperimentError(f"precision: {precision!r} is unknown; write one of {', '.join(PRECISIONS)}")
    tasks = tuple(_task(t, f"tasks[{i}]", fractions) for i, t in enumerate(_list(given["tasks"], "tasks", dict)))
    _distinct([t.name for t in tasks], "tasks: name")
    train = given.get("train", {})
    if isinstance(train, dict) and "seed" in train:
        raise ExperimentError("train.seed: seeds have a key of their own; write seeds: [0, 1, 2]")
    return Experiment(
        name=_of(given["name"], str, "name"),
        experts=tuple(_list(given["experts"], "experts", str)),
        benchmarks=_benchmarks(given.get("benchmarks", {}), tasks),
        tasks=tasks,
        methods=tuple(_methods(_list(given.get("methods", ["zero-shot", "linear probe", "MedBridge"]), "methods", str))),
        seeds=tuple(_list(given.get("seeds", [0]), "seeds", int)),
        n_boot=_of(given.get("n_boot", 1000), int, "n_boot"),
        adapter=_settings(AdapterConfig, given.get("adapter", {}), "adapter"),
        train={f: getattr(_settings(TrainConfig, train, "train"), f) for f in train},
        sampler=_settings(FocalSampler, given.get("sampler", {}), "sampler"),
        precision=precision,
    )


def _task(given: dict, key: str, fractions: tuple[float, ...]) -> Task:
    _check_keys(given, ("name", "kind", "train", "test", "label", "label_fractions"), ("name", "kind", "train"), key)
    kind = given["kind"]
    if kind not in KINDS:
        raise ExperimentError(f"{key}.kind: {kind!r} is unknown; write {', '.join(KINDS)}")
    if ("label" in given) != (kind == "binary"):
        raise ExperimentError(f"{key}.label: a binary task names one label, such as Pneumonia, and no other task does")
    train = tuple(_list(given["train"], f"{key}.train", str))
    test: tuple[str, ...] = ()
    if kind == "cross-domain":
        test = tuple(_list(given.get("test", list(train)), f"{key}.test", str))
        if {t.lower() for t in test} <= {train[0].lower()} and len(train) == 1:
            raise ExperimentError(f"{key}.test: a cross-domain task is scored on another benchmark than its source; name one")
    elif "test" in given:
        raise ExperimentError(f"{key}.test: an in-domain task is scored on its source; remove it, or write kind: cross-domain")
    if "label_fractions" in given:
        fractions = _fractions(given["label_fractions"], f"{key}.label_fractions")
    label = _of(given["label"], str, f"{key}.label") if kind == "binary" else None
    return Task(_of(given["name"], str, f"{key}.name"), kind, train, test, label, fractions)


def _benchmarks(given: Any, tasks: Sequence[Task]) -> dict[str, BenchmarkRef]:
    named = {}
    if not isinstance(given, dict):
        raise ExperimentError(f"benchmarks: {given!r}: write NAME: {{root: FOLDER, options: {{...}}}} for each")
    for name, entry in given.items():
        key = f"benchmarks.{name}"
        _check_keys(entry, ("benchmark", "root", "options"), (), key)
        options = entry.get("options", {})
        if not isinstance(options, dict):
            raise ExperimentError(f"{key}.options: {options!r}: write them as name: value")
        root = f"={_of(entry['root'], str, f'{key}.root')}" if "root" in entry else ""
        named[str(name).lower()] = BenchmarkRef.parse(f"{entry.get('benchmark', name)}{root}", options)
    used = dict.fromkeys(name for task in tasks for name in (*task.train, *task.test))
    return {name: named.get(name.lower()) or BenchmarkRef.parse(name) for name in used}


def _methods(given: Sequence[str]) -> list[str]:
    try:
        return [method_name(name) for name in given]
    except ValueError as error:
        raise ExperimentError(f"methods: {error}") from None


def _settings(cls: type, given: Any, key: str) -> Any:
    hints = typing.get_type_hints(cls)
    _check_keys(given, [f.name for f in fields(cls)], (), key)
    for name, value in given.items():
        hint = hints[name]
        allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if not any(type(value) is t or (t is float and type(value) is int) for t in allowed):
            names = " or ".join("null" if t is types.NoneType else t.__name__ for t in allowed)
            raise ExperimentError(f"{key}.{name}: {value!r} is no {names}")
    try:
        return cls(**given)
    except ValueError as error:
        raise ExperimentError(f"{key}: {error}") from None


def _check_keys(given: Any, known: Sequence[str], needed: Sequence[str], key: str) -> None:
    where = f"{key}: " if key else ""
    if not isinstance(given, dict):
        raise ExperimentError(f"{where}{given!r}: write it as key: value, with {', '.join(known)}")
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ExperimentError(f"{where}unknown key {name!r}; {hint}known: {', '.join(known)}")
    if missing := [name for name in needed if name not in given]:
        raise ExperimentError(f"{where}key {missing[0]!r} is missing")


def _of(value: Any, kind: type, key: str) -> Any:
    if type(value) is not kind or value == "" or (kind is int and value < 0):
        what = {str: "a text", int: "a whole number >= 0", float: "a number", dict: "key: value"}[kind]
        raise ExperimentError(f"{key}: {value!r}: write {what}")
    return value


def _list(value: Any, key: str, kind: type) -> list:
    if not isinstance(value, list) or not value:
        raise ExperimentError(f"{key}: {value!r}: write a list with at least one entry")
    for i, entry in enumerate(value):
        _of(entry, kind, f"{key}[{i}]")
    if kind is not dict:
        _distinct([str(entry).lower() for entry in value], key)
    return value


def _distinct(values: Sequence[str], key: str) -> None:
    if twice := [v for i, v in enumerate(values) if v in values[:i]]:
        raise ExperimentError(f"{key}: {twice[0]!r} is named twice")


def _fractions(value: Any, key: str) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise ExperimentError(f"{key}: {value!r}: write a list such as [0.01, 0.1, 1.0]")
    for i, entry in enumerate(value):
        if isinstance(entry, bool) or not isinstance(entry, (int, float)) or not 0 < entry <= 1:
            raise ExperimentError(f"{key}[{i}]: {entry!r}: write a share above 0 and at most 1, such as 0.01")
    if len(set(value)) < len(value):
        raise ExperimentError(f"{key}: a share is named twice")
    return tuple(sorted(float(v) for v in value))

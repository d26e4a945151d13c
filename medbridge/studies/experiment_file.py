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

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from medbridge.baselines import method_class
from medbridge.data.tasks import BenchmarkRef
from medbridge.errors import MedBridgeError
from medbridge.experts import PRECISIONS
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig
from medbridge.support.settings import Listed, Settings, as_settings, check_settings, distinct
from medbridge.train import TrainConfig


class ExperimentError(MedBridgeError, ValueError):
    """A faulty experiment file; the message names the file, the key and the fix."""


def _share(value: float) -> float:
    if not 0 < value <= 1:
        raise ValueError(f"{value:g}: write a share above 0 and at most 1, such as 0.01")
    return value


def _without_seed(given: Any) -> Any:
    if isinstance(given, dict) and "seed" in given:
        raise ValueError("seeds have a key of their own; write seeds: [0, 1, 2]")
    return given


Text = Annotated[str, Field(min_length=1)]
Names = Annotated[Listed[Text], AfterValidator(distinct)]
Shares = Annotated[Listed[Annotated[float, AfterValidator(_share)]], AfterValidator(distinct), AfterValidator(sorted),
                   AfterValidator(tuple)]
Count = Annotated[int, Field(ge=0)]


class Task(Settings):
    """One adaptation task.

    Attributes:
        name: for tables and figures.
        train: names of the sources; one model each (and fraction, and seed).
        test: names of the benchmarks that each model is scored on; empty: on its source.
        label: for 'binary': the finding that is separated from the rest.
        label_fractions: shares of the training patients; by default those of the experiment.
    """

    name: Text
    kind: Literal["cross-domain", "multi-label", "binary"]
    train: Names
    test: Names | None = Field(None, validate_default=True)
    label: Text | None = Field(None, validate_default=True)
    label_fractions: Shares = ()

    @field_validator("test")
    @classmethod
    def _check_test(cls, test: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...]:
        train = info.data.get("train", ())
        if info.data.get("kind") == "cross-domain":
            test = test or train
            if {name.lower() for name in (*test, *train)} == {name.lower() for name in train[:1]}:
                raise ValueError("a cross-domain task is scored on another benchmark than its source; name one")
        elif test and "kind" in info.data:
            raise ValueError("an in-domain task is scored on its source; remove it, or write kind: cross-domain")
        return test or ()

    @field_validator("label")
    @classmethod
    def _check_label(cls, label: str | None, info: ValidationInfo) -> str | None:
        if (label is not None) != (info.data.get("kind") == "binary"):
            raise ValueError("a binary task names one label, such as Pneumonia, and no other task does")
        return label

    def tests_of(self, source: str) -> tuple[str, ...]:
        """The benchmarks that a model of this source is scored on."""
        return self.test or (source,)


class _Entry(Settings):
    """How to load a benchmark: ``benchmark`` is its name where the entry has another."""

    benchmark: Text | None = None
    root: Text | None = None
    options: dict[str, Any] = Field({})


class Experiment(Settings):
    """A checked experiment file; see the module's docstring for its keys."""

    name: Text
    experts: Names
    entries: dict[str, _Entry] = Field({}, alias="benchmarks")
    label_fractions: Shares = (0.01, 0.1, 1.0)
    tasks: Listed[Task]
    methods: Names = ("zero-shot", "linear probe", "MedBridge")
    seeds: Annotated[Listed[Count], AfterValidator(distinct)] = (0,)
    n_boot: Count = 1000
    adapter: as_settings(AdapterConfig) = AdapterConfig()
    train: Annotated[as_settings(TrainConfig), BeforeValidator(_without_seed)] = TrainConfig()
    sampler: as_settings(FocalSampler) = FocalSampler()
    precision: Literal[PRECISIONS] = "float32"

    @field_validator("tasks")
    @classmethod
    def _complete_tasks(cls, tasks: tuple[Task, ...], info: ValidationInfo) -> tuple[Task, ...]:
        distinct([task.name for task in tasks])
        shares = {"label_fractions": info.data.get("label_fractions")}
        return tuple(task if task.label_fractions else task.model_copy(update=shares) for task in tasks)

    @field_validator("methods")
    @classmethod
    def _name_methods(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(method_class(name).name for name in methods)

    @model_validator(mode="after")
    def _find_benchmarks(self) -> Experiment:
        _ = self.benchmarks  # raises BenchmarkError
        return self

    @cached_property
    def benchmarks(self) -> Mapping[str, BenchmarkRef]:
        """Every name that a task uses -> how to load it."""
        listed = {}
        for name, entry in self.entries.items():
            root = f"={entry.root}" if entry.root else ""
            listed[name.lower()] = BenchmarkRef.parse(f"{entry.benchmark or name}{root}", entry.options)
        used = dict.fromkeys(name for task in self.tasks for name in (*task.train, *task.test))
        return {name: listed.get(name.lower()) or BenchmarkRef.parse(name) for name in used}


def read_experiment(path: str | Path) -> Experiment:
    """Read a YAML file. ExperimentError for whatever is wrong with it, before anything is loaded."""
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path}: cannot be read ({error}); give a YAML file") from None
    except yaml.YAMLError as error:
        raise ExperimentError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return parse_experiment(given, f"{path}: ")


def parse_experiment(given: Any, of: str = "") -> Experiment:
    """An experiment from the mapping that its file holds. ExperimentError names the key, behind ``of``."""
    try:
        return check_settings(Experiment, given)
    except ValueError as error:
        raise ExperimentError(f"{of}{error}") from error

"""The YAML file of an experiment, read and checked before anything is loaded; ``experiment.yaml`` here has every key."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from medbridge.baselines import method_class
from medbridge.data.tasks import BenchmarkRef
from medbridge.errors import MedBridgeError
from medbridge.experts import PRECISIONS
from medbridge.features.cache import FEATURES
from medbridge.focal import FocalSampler
from medbridge.model import CROSS_FITTED, AdapterConfig
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


def _named_once(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    distinct([task.name for task in tasks])
    return tasks


Text = Annotated[str, Field(min_length=1)]
Names = Annotated[Listed[Text], AfterValidator(distinct)]
Shares = Annotated[Listed[Annotated[float, AfterValidator(_share)]], AfterValidator(distinct), AfterValidator(sorted),
                   AfterValidator(tuple)]
Count = Annotated[int, Field(ge=0)]


class Task(Settings):
    """One adaptation task."""

    name: Text  # for tables and figures
    kind: Literal["cross-domain", "multi-label", "binary"]
    train: Names  # the sources; one model each (and fraction, and seed)
    test: Names | None = None  # the benchmarks that each model is scored on
    label: Text | None = None  # for 'binary': the finding that is separated from the rest
    label_fractions: Shares = ()  # of the training patients; none: those of the experiment

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        across = self.kind == "cross-domain"
        if across and len({name.lower() for name in (*self.train, *(self.test or ()))}) == 1:
            raise ValueError("test: a cross-domain task is scored on another benchmark than its source; name one")
        if self.test and not across:
            raise ValueError("test: an in-domain task is scored on its source; remove it, or write kind: cross-domain")
        if (self.label is not None) != (self.kind == "binary"):
            raise ValueError("label: a binary task names one label, such as Pneumonia, and no other task does")
        return self

    def tests_of(self, source: str) -> tuple[str, ...]:
        """The benchmarks that a model of this source is scored on."""
        return self.test or (self.train if self.kind == "cross-domain" else (source,))


class _Entry(Settings):
    benchmark: Text | None = None  # its name, where the entry has another
    root: Text | None = None
    options: dict[str, Any] = Field({})


class Experiment(Settings):
    """A checked experiment file."""

    name: Text
    experts: Names
    entries: dict[str, _Entry] = Field({}, alias="benchmarks")
    label_fractions: Shares = (0.01, 0.1, 1.0)
    tasks: Annotated[Listed[Task], AfterValidator(_named_once)]
    methods: Annotated[Names, AfterValidator(lambda names: tuple(method_class(name).name for name in names))] = (
        "zero-shot", "linear probe", "MedBridge")
    views: Literal["all", "whole"] = "all"
    seeds: Annotated[Listed[Count], AfterValidator(distinct)] = (0,)
    n_boot: Count = 1000
    adapter: as_settings(AdapterConfig, CROSS_FITTED) = CROSS_FITTED
    train: Annotated[as_settings(TrainConfig), BeforeValidator(_without_seed)] = TrainConfig()
    sampler: as_settings(FocalSampler) = FocalSampler()
    precision: Literal[PRECISIONS] = "float32"
    features: Literal[FEATURES] = "cache"

    @model_validator(mode="after")
    def _find_benchmarks(self) -> Self:
        _ = self.benchmarks  # raises BenchmarkError
        return self

    @cached_property
    def benchmarks(self) -> Mapping[str, BenchmarkRef]:
        """Every name that a task uses -> how to load it."""
        listed = {name.lower(): BenchmarkRef.parse("=".join(filter(None, (entry.benchmark or name, entry.root))), entry.options)
                  for name, entry in self.entries.items()}
        used = dict.fromkeys(name for task in self.tasks for name in (*task.train, *(task.test or ())))
        return {name: listed.get(name.lower()) or BenchmarkRef.parse(name) for name in used}


def read_experiment(path: str | Path) -> Experiment:
    """Read a YAML file. ExperimentError for whatever is wrong with it, before anything is loaded."""
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ExperimentError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    return parse_experiment(given, f"{path}: ")


def parse_experiment(given: Any, of: str = "") -> Experiment:
    """An experiment from the mapping that its file holds. ExperimentError names the key, behind ``of``."""
    try:
        return check_settings(Experiment, given)
    except ValueError as error:
        raise ExperimentError(f"{of}{error}") from error

"""What every study is made of: cells, each one method fitted to one set of training films and scored on targets. [ours]"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from medbridge.baselines import method_class
from medbridge.data import Benchmark
from medbridge.data.tasks import Target
from medbridge.experts import Expert
from medbridge.focal import FocalSampler
from medbridge.method import MedBridgeMethod, Method
from medbridge.model import AdapterConfig
from medbridge.train import TrainConfig

MEDBRIDGE = MedBridgeMethod.name


@dataclass(frozen=True)
class MethodSettings:
    """How methods are made.

    Attributes:
        experts: K frozen experts.
        adapter, sampler, config: of MedBridge, of the views, of training.
        views: what baselines see: 'whole' films or 'all' views.
        tries: settings that a method may try on the validation split; None: the default of its class.
    """

    experts: Sequence[Expert]
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    sampler: FocalSampler = field(default_factory=FocalSampler)
    config: TrainConfig = field(default_factory=TrainConfig)
    views: str = "whole"
    tries: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "experts", tuple(self.experts))

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, without the experts and the seed."""
        return {"config": asdict(replace(self.config, seed=0)), "adapter": asdict(self.adapter),
                "sampler": asdict(self.sampler), "views": self.views, "tries": self.tries}


@dataclass(frozen=True, eq=False)
class Cell:
    """One method on one set of training films.

    Attributes:
        method: its name. settings: the seed of its ``config`` is not read.
        source: films of train and val over C labels.
        targets: what is scored.
        seed: of training. fraction: of the label budget that ``source`` holds.
    """

    method: str
    source: Benchmark
    targets: Sequence[Target]
    settings: MethodSettings
    seed: int = 0
    fraction: float = 1.0

    def create(self, out: str | Path | None = None, progress: bool = True, tensorboard: bool = False) -> Method:
        """The method before ``fit``; MedBridge keeps its checkpoints in ``out``. ExpertError: it can use none of the experts."""
        s, kind = self.settings, method_class(self.method)
        options: dict[str, Any] = {"views": s.views, "config": replace(s.config, seed=self.seed), "progress": progress}
        if s.tries is not None:
            options["tries"] = s.tries
        if kind is MedBridgeMethod:
            options |= {"adapter": s.adapter, "sampler": s.sampler, "out": out, "tensorboard": tensorboard}
        return kind(s.experts, self.source.labels, **options)


def data_fingerprint(benchmark: Benchmark, experts: Sequence[Expert]) -> dict[str, Any]:
    """What a study depends on beside settings, JSON-safe: films with their splits and labels, experts with their weights."""
    films = benchmark.table[["image", "split", *benchmark.labels]].to_csv(index=False)
    return {"experts": [e.name for e in experts], "weights": [e.made_by() for e in experts], "benchmark": benchmark.name,
            "films": hashlib.sha256(films.encode()).hexdigest()}


def describe_films(benchmark: Benchmark, targets: Sequence[Target] = ()) -> str:
    """Name, and how many films of how many patients train and test; says so where they are synthetic.

    ``targets``: the films that are scored, where they are not the benchmark's own test split.
    """
    others = [t.test for t in targets if not t.in_domain]
    tests = others or [benchmark.split("test")]
    films = ", ".join(f"{test.name}: " * bool(others) + f"{len(test)} test films of {test.table['patient_id'].nunique()} patients"
                      for test in tests)
    labels = " or ".join(str(count) for count in sorted({len(test.labels) for test in tests}))
    synthetic = "SYNTHETIC films, " if benchmark.synthetic and "synthetic" not in benchmark.name else ""
    return (f"{benchmark.name}: {synthetic}{len(benchmark.split('train'))} training films, {films}; mean AUC over {labels} labels"
            + " and the benchmarks tested" * (len(others) > 1))

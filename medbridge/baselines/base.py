"""What the baselines share. [ours] Every method gets the same films, experts, views, epochs and number of settings. CLIP-style
methods score a label by the scaled difference of two cosines, of the image with the positive and with the negative prompt, under
a sigmoid: the softmax of the published single-label methods over the two prompts of a label."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import logit
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from medbridge.baselines.inputs import EmbeddingInputs, FilmInputs, score_module, train_module
from medbridge.baselines.method import Method
from medbridge.errors import BenchmarkError, ExpertError
from medbridge.experts import Expert, OpenClipExpert
from medbridge.features.films import FrozenFilms
from medbridge.prompts import ClassPrompts, encode_prompts
from medbridge.support.processes import alone
from medbridge.train import TrainConfig


def temperature(expert: Expert) -> float:
    """The factor before the cosines: the expert's own learned one (CLIP: 100), 10 where it has none."""
    scale = getattr(expert.model, "logit_scale", None) if isinstance(expert, OpenClipExpert) else None
    return 10.0 if scale is None else float(scale.detach().exp())


def prompt_sides(expert: Expert, labels: Sequence[str], prompts: Mapping[str, ClassPrompts] | None) -> tuple[Tensor, Tensor]:
    """:func:`medbridge.prompts.encode_prompts` as tensors that can stand beside trained ones."""
    # text is encoded under inference mode, whose tensors no gradient may pass
    positive, negative = encode_prompts(expert, labels, prompts)
    return positive.clone().cpu(), negative.clone().cpu()


def film_embeddings(films: FrozenFilms, expert: int, views: str) -> Tensor:
    """One L2-normalised embedding per film in the expert's text space, float32 ``(n, d)``.

    'whole': that of the whole film. 'all': the normalised mean over the whole film and its sliding windows. [ours]
    """
    x = torch.from_numpy(films.pooled("embed", expert, views))
    if views == "all":
        x = x.unflatten(1, (3, -1))[:, 1]  # whole, mean, maximum
    return F.normalize(x, dim=-1)


def check_known(train: FrozenFilms, val: FrozenFilms) -> None:
    """BenchmarkError where nothing is known to learn from, or to choose settings by."""
    for films, name in ((train, "train"), (val, "val")):
        if not films.benchmark.targets()[1].any():
            raise BenchmarkError(f"benchmark {films.benchmark.name!r}: no known label in {name}; fill in the label columns")


class Baseline(Method):
    """What every baseline is built from, and leaves aside where it means nothing to it.

    Args:
        experts: K experts, the same as in the cached features. labels: C labels.
        views: 'whole' (the whole film) or 'all' (whole film and sliding windows).
        prompts: as in :func:`medbridge.prompts.encode_prompts`.
        config: epochs, patience, batch size, loss, schedule, seed; the rest of it belongs to MedBridge.
        tries: how many of the method's settings are tried on val, in its order of preference; default all.
        progress: show a bar for each training.

    Attributes:
        options: the arguments that the class adds, with their defaults; each becomes an attribute.
        need: what an expert must have (ExpertError where none has it). used: indices of the experts that have it.
        modules: after fit: what was learned.
    """

    options: ClassVar[tuple[tuple[str, Any], ...]] = ()
    need: ClassVar[str] = "an expert whose images and texts share a space"

    def __init__(
        self, experts: Sequence[Expert] = (), labels: Sequence[str] = (), views: str = "whole",
        prompts: Mapping[str, ClassPrompts] | None = None, config: TrainConfig | None = None, tries: int | None = None,
        progress: bool = True, **options: Any,
    ) -> None:
        if tries is not None and tries < 1:
            raise ValueError(f"tries={tries} must be at least 1")
        if views not in ("whole", "all"):
            raise ValueError(f"views={views!r} is unknown; use 'whole' or 'all'")
        defaults = dict(self.options)
        for name, value in {**defaults, **options}.items():
            if name not in defaults:
                raise TypeError(f"{self.name} has no argument {name}")
            if value != defaults[name] and np.min(value) <= 0:
                raise ValueError(f"{name}={value} must be above 0")
            setattr(self, name, value)
        self.experts, self.labels, self.views, self.prompts = list(experts), tuple(labels), views, prompts
        self.config, self.tries, self.progress = config or TrainConfig(), tries, progress
        self.modules: list[Any] = []
        self.used = [k for k, expert in enumerate(self.experts) if self.usable(expert)]
        if self.need and not self.used:
            names = ", ".join(expert.name for expert in experts) + (" is" if len(experts) == 1 else " are")
            raise ExpertError(f"{self.name} needs {self.need}; {names} none; choose another expert")

    def usable(self, expert: Expert) -> bool:
        """Whether the method can run on an expert."""
        return expert.aligned or not self.need

    def fitted(self) -> list[Any]:
        """:attr:`modules`; NotFittedError where there are none."""
        if not self.modules:
            raise NotFittedError(f"{self.name} is not trained; call fit(train, val) first")
        return self.modules


def prevalence_bias(films: FrozenFilms) -> nn.Parameter:
    """A bias per label ``(C,)``: the log-odds of its prevalence in these films, which is clipped to [0.001, 0.999]. [ours]"""
    targets, mask = films.benchmark.targets()
    prevalence = (targets * mask).sum(axis=0) / np.maximum(mask.sum(axis=0), 1)
    return nn.Parameter(torch.from_numpy(logit(prevalence.clip(1e-3, 0.999))).float())


class WithBias(nn.Module):
    """A module's logits ``(B, C)`` plus a bias per label, without which cosines would first have to learn how rare findings are.
    All that learns by gradient starts at the prevalence, as MedBridge does. [ours]"""

    def __init__(self, module: nn.Module, bias: nn.Parameter) -> None:
        super().__init__()
        self.module, self.bias = module, bias

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module(*inputs) + self.bias


class TrainedBaseline(Baseline):
    """A method that trains one module for each expert it can use, with the shared loop; the probabilities are averaged.

    ``grid``: its settings, ``rate`` (of AdamW) and arguments of :meth:`build`; ``chosen``: after fit, the one kept per expert.
    ``biased``: whether the module needs a bias (:class:`WithBias`).
    """

    biased: ClassVar[bool] = True
    grid: ClassVar[tuple[Mapping[str, Any], ...]]
    chosen: Sequence[Mapping[str, Any]] = ()

    def inputs(self, films: FrozenFilms, k: int) -> FilmInputs:
        """What the module of expert k is fed."""
        return EmbeddingInputs(films, film_embeddings(films, k, self.views))

    @abstractmethod
    def build(self, k: int, train: FrozenFilms, **setting: Any) -> nn.Module:
        """A new module for expert k; what requires a gradient is trained."""

    def train(self, module: nn.Module, train: FilmInputs, val: FilmInputs, rate: float, k: int) -> float:
        """Train a module of expert k in place; how good it is on val."""
        title = f"{self.name}{f' on {self.experts[k].name}' if self.need else ''}, rate {rate:g}"
        return train_module(module, train, val, self.config, rate, title, self.progress)

    def fit(self, train: FrozenFilms, val: FrozenFilms) -> Self:
        """Train the settings of the budget on each expert; keep the best of each on val. BenchmarkError: nothing is known."""
        check_known(train, val)
        self.modules, self.chosen = [], []
        for k in self.used:
            train_inputs, val_inputs = self.inputs(train, k), self.inputs(val, k)
            best = -math.inf
            for setting in self.grid[: self.tries]:
                own = {key: value for key, value in setting.items() if key != "rate"}
                # under several processes each trains all of it: a module may not be divisible
                with alone(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                    torch.manual_seed(self.config.seed)
                    module = self.build(k, train, **own)
                    if self.biased:
                        module = WithBias(module, prevalence_bias(train))
                    value = self.train(module, train_inputs, val_inputs, setting["rate"], k)
                if value > best:
                    best, kept, chosen = value, module, setting
            self.modules.append(kept)
            self.chosen.append(chosen)
        return self

    def predict_proba(self, films: FrozenFilms) -> np.ndarray:
        """Probabilities float64 ``(n, C)``: mean over the experts that are used."""
        each = zip(self.used, self.fitted(), strict=True)
        return np.mean([score_module(m, self.inputs(films, k), self.config.batch_size) for k, m in each], axis=0)

    @property
    def trainable_parameters(self) -> int:
        return sum(p.numel() for module in self.fitted() for p in module.parameters() if p.requires_grad)

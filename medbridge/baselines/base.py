"""What the baselines share (:class:`medbridge.method.Method` is their interface). [ours]

Every method gets the same films, experts, views, epochs and number of settings (:data:`medbridge.method.TRIES`), of which the
best on the validation split is kept. It runs on each expert that it can use; the experts' probabilities are averaged.

Multi-label form: CLIP-style methods score a label by the scaled difference of two cosines, image with positive and image with
negative prompt, under a sigmoid. That is the softmax of the published single-label methods over the two prompts of a label.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from medbridge.baselines.inputs import EmbeddingInputs, FilmInputs, score_module, train_module
from medbridge.errors import BenchmarkError, ExpertError
from medbridge.experts import Expert, OpenClipExpert
from medbridge.features.cache import CachedFilms
from medbridge.method import TRIES, Method
from medbridge.prompts import ClassPrompts, encode_prompts
from medbridge.support.processes import alone
from medbridge.train import TrainConfig


def check_tries(tries: int, views: str) -> None:
    """ValueError for a budget below one setting, or views that are neither 'whole' nor 'all'."""
    if tries < 1:
        raise ValueError(f"tries={tries} must be at least 1")
    if views not in ("whole", "all"):
        raise ValueError(f"views={views!r} is unknown; use 'whole' or 'all'")


def temperature(expert: Expert) -> float:
    """The factor before the cosines: the expert's own learned one (CLIP: 100), 10 where it has none."""
    scale = getattr(expert.model, "logit_scale", None) if isinstance(expert, OpenClipExpert) else None
    return 10.0 if scale is None else float(scale.detach().exp())


def prompt_sides(expert: Expert, labels: Sequence[str], prompts: Mapping[str, ClassPrompts] | None) -> tuple[Tensor, Tensor]:
    """:func:`medbridge.prompts.encode_prompts` as tensors that can stand beside trained ones."""
    # text is encoded under inference mode, whose tensors no gradient may pass
    positive, negative = encode_prompts(expert, labels, prompts)
    return positive.clone().cpu(), negative.clone().cpu()


def film_embeddings(films: CachedFilms, expert: int, views: str) -> Tensor:
    """One L2-normalised embedding per film in the expert's text space, float32 ``(n, d)``.

    'whole': that of the whole film. 'all': the normalised mean over the whole film and its sliding windows. [ours]
    """
    x = torch.from_numpy(films.pooled("embed", expert, views))
    if views == "all":
        x = x.unflatten(1, (3, -1))[:, 1]  # whole, mean, maximum
    return F.normalize(x, dim=-1)


def check_known(train: CachedFilms, val: CachedFilms) -> None:
    """BenchmarkError where nothing is known to learn from, or to choose settings by."""
    for films, name in ((train, "train"), (val, "val")):
        if not films.benchmark.targets()[1].any():
            raise BenchmarkError(f"benchmark {films.benchmark.name!r}: no known label in {name}; fill in the label columns")


class Option(NamedTuple):
    """An argument of one method alone: its default, and the range of other values."""

    name: str
    default: Any
    least: float = 1
    most: float = math.inf


class TrainedBaseline(Method):
    """A method that trains one module for each expert it can use, with the shared loop.

    Args:
        experts: K experts, the same as in the cached features. labels: C labels.
        views: 'whole' (the whole film) or 'all' (whole film and sliding windows).
        prompts: as in :func:`medbridge.prompts.encode_prompts`.
        config: epochs, patience, batch size, schedule, seed. ``lr`` is not read (each method has rates of its own), nor are
            ``ema``, ``expert_loss`` and ``balance``, which belong to MedBridge.
        tries: how many of :attr:`grid` are tried. progress: show a bar for each training. options: values of :attr:`options`.

    Attributes:
        grid: settings in order of preference: ``rate`` (of AdamW) and arguments of :meth:`build`.
        options: the arguments that the class adds; each becomes an attribute.
        used: indices of the experts that the method can use.
        chosen, modules: after fit: the setting that was kept and what was trained, one per expert.

    Raises:
        ExpertError: no expert that the method can use. ValueError: an option out of its range. ``fit``: BenchmarkError where
            nothing is known.
    """

    grid: ClassVar[tuple[Mapping[str, Any], ...]]
    options: ClassVar[tuple[Option, ...]] = ()
    need: ClassVar[str] = "an expert whose images and texts share a space"

    def __init__(
        self, experts: Sequence[Expert], labels: Sequence[str], views: str = "whole",
        prompts: Mapping[str, ClassPrompts] | None = None, config: TrainConfig | None = None, tries: int = TRIES,
        progress: bool = True, **options: Any,
    ) -> None:
        check_tries(tries, views)
        for name, default, least, most in self.options:
            value = options.pop(name, default)
            if value != default and not least <= value <= most:
                raise ValueError(f"{name}={value} must be {f'at least {least}' if most == math.inf else f'in [{least}, {most}]'}")
            setattr(self, name, value)
        if options:
            raise TypeError(f"{self.name} has no argument {', '.join(options)}")
        self.experts, self.labels, self.views, self.prompts = list(experts), tuple(labels), views, prompts
        self.config, self.tries, self.progress = config or TrainConfig(), tries, progress
        self.used = [k for k, expert in enumerate(self.experts) if self.usable(expert)]
        if not self.used:
            names = ", ".join(expert.name for expert in experts) + (" is" if len(experts) == 1 else " are")
            raise ExpertError(f"{self.name} needs {self.need}; {names} none; choose another expert")
        self.modules: list[nn.Module] = []
        self.chosen: list[Mapping[str, Any]] = []

    def usable(self, expert: Expert) -> bool:
        """Whether the method can run on an expert."""
        return expert.aligned

    def title(self, k: int) -> str:
        """What the progress bar and messages call a training."""
        return f"{self.name} on {self.experts[k].name}"

    def inputs(self, films: CachedFilms, k: int) -> FilmInputs:
        """What the module of expert k is fed: :func:`film_embeddings`, where the class says nothing else."""
        return EmbeddingInputs(films, film_embeddings(films, k, self.views))

    @abstractmethod
    def build(self, k: int, train: CachedFilms, **setting: Any) -> nn.Module:
        """A new module for expert k; what requires a gradient is trained."""

    def train(self, module: nn.Module, train: FilmInputs, val: FilmInputs, rate: float, title: str) -> float:
        """Train a module in place; how good it is on val."""
        return train_module(module, train, val, self.config, rate, title, self.progress)

    def fit(self, train: CachedFilms, val: CachedFilms) -> Self:
        """Train every setting of the budget on every usable expert; keep the best of each on val."""
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
                    title = f"{self.title(k)}, rate {setting['rate']:g}"
                    value = self.train(module, train_inputs, val_inputs, setting["rate"], title)
                if value > best:
                    best, kept, chosen = value, module, setting
            self.modules.append(kept)
            self.chosen.append(chosen)
        return self

    def predict_proba(self, films: CachedFilms) -> np.ndarray:
        """Probabilities float64 ``(n, C)``: mean over the experts that are used."""
        self._check_fitted()
        each = zip(self.used, self.modules, strict=True)
        return np.mean([score_module(m, self.inputs(films, k), self.config.batch_size) for k, m in each], axis=0)

    @property
    def trainable_parameters(self) -> int:
        """Numbers that training changed, over all experts; after ``fit``."""
        self._check_fitted()
        return sum(p.numel() for module in self.modules for p in module.parameters() if p.requires_grad)

    def _check_fitted(self) -> None:
        if not self.modules:
            raise NotFittedError(f"{self.name} is not trained; call fit(train, val) first")

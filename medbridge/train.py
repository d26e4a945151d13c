"""One training loop, for MedBridge and for every baseline that learns by gradient.

[ours] AdamW, a cosine schedule with warm-up, a moving average of the weights, the epoch with the best validation mean AUC kept,
the run ended when patience is spent. A :class:`Trainee` says what is trained, on which batches, by which loss. Under
``accelerate launch`` each process takes its films of every batch, and the loss is that of the whole batch: the result is that
of one process (up to dropout, which each draws for itself). The same call with the same folder goes on where it stopped, to the
same result bit by bit.
"""

import copy
import hashlib
import importlib.util
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from scipy.special import expit
from torch import Tensor, nn
from tqdm.auto import tqdm

from medbridge.data.copies import pack_prints
from medbridge.data.tasks import member_folds
from medbridge.errors import BenchmarkError
from medbridge.features.batch import Batch, Pass, collate, passes
from medbridge.features.budget import EPOCHS, LOCAL_VIEWS
from medbridge.features.cache import expert_folder
from medbridge.features.encode import map_part
from medbridge.features.films import FilmFeatures, FrozenFilms, Kept
from medbridge.losses import LOSSES
from medbridge.metrics.evaluate import auc_and_loss
from medbridge.model import MedBridge, Output
from medbridge.moe import balance_loss
from medbridge.predict import outputs
from medbridge.readout import align_folds
from medbridge.support.checkpoint import load_checkpoint, random_states, restore_random_state, save_checkpoint
from medbridge.support.processes import gather_rows, is_main, join, ranks
from medbridge.support.threads import SideBySide, cpu_threads, prefetch

_PLAIN_STATE = ("best", "average", "step", "done", "total")
LEAST_STEPS = 400
"""Least length of a training of ``EPOCHS``, where the settings do not say it. [ours]"""

_PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. [ours]

    Attributes:
        epochs: most epochs; None: ``EPOCHS``, and as many more as few films need to make ``LEAST_STEPS`` steps.
        patience: epochs without a better validation AUC that end the run earlier; where ``epochs`` is None, at least a third of
            ``LEAST_STEPS`` as well, since an epoch of few films is no time to learn in.
        batch_size: films per step, over all processes.
        local_views: most local views of a film that a step draws; inference reads all of its windows.
        accumulate: passes that a step is divided into, where its films do not fit in memory at once. The step stays the same; of
            several members nearly so, since each knows other labels of it.
        lr, weight_decay: of AdamW; matrices of weights alone are decayed, not biases, norms, queries, prompts or scales.
        warmup: share of the steps over which the learning rate rises. ema: of the average, per step; 0 keeps none.
        loss: 'bce' or 'asymmetric'. mixed_precision: 'no', 'fp16' or 'bf16'.
        expert_loss: weight of the mean of the experts' own losses: an expert that the router ignores would never learn.
        balance: weight of the router's balance term.
        seed: of the order of films, the views drawn and dropout.
    """

    epochs: int | None = None
    batch_size: int = 16
    local_views: int = LOCAL_VIEWS
    accumulate: int = 1
    lr: float = 1e-3
    weight_decay: float = 0.2
    warmup: float = 0.1
    patience: int = 10
    ema: float = 0.98
    loss: str = "bce"
    expert_loss: float = 0.5
    balance: float = 0.01
    seed: int = 0
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        for name, known in (("loss", LOSSES), ("mixed_precision", _PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; use one of {', '.join(known)}")
        for name in ("epochs", "batch_size", "accumulate", "local_views", "patience"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if not 0 <= self.ema < 1 or not 0 <= self.warmup <= 1 or self.lr <= 0:
            raise ValueError(f"ema={self.ema} must be in [0, 1), warmup={self.warmup} in [0, 1], lr={self.lr} above 0")

    def most_epochs(self, films: int) -> int:
        """Epochs of a run on so many training films that is not ended earlier."""
        return self.epochs or max(EPOCHS, math.ceil(LEAST_STEPS / math.ceil(films / self.batch_size)))

    def is_over(self, films: int, waited: int) -> bool:
        """Whether so many epochs without a better validation AUC end the run."""
        waits = self.epochs is not None or waited * math.ceil(films / self.batch_size) >= LEAST_STEPS // 3
        return waited >= self.patience and waits


@dataclass
class History:
    """What happened: a row per epoch (epoch, mean loss of a member, val_auc, val_loss, lr, seconds), and which epoch was kept."""

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_auc: float = -math.inf
    # of the validation films by members that did not learn from them, (n, C); no part of the record that is saved
    val_scores: ClassVar[np.ndarray | None] = None


class Trainee(Protocol):
    """What the loop asks of what it trains."""

    title: str  # in bars and messages
    module: nn.Module  # its parameters that require a gradient are trained
    learners: Sequence[nn.Module]  # its parts that learn each by itself: no step of one may depend on what another learns from
    known: tuple[np.ndarray, np.ndarray]  # targets float32 and mask bool (n, C) of the training films
    held_out: tuple[np.ndarray, np.ndarray]  # and of the validation films

    def batch(self, epoch: int, rows: list[int]) -> Any: ...  # these training films as they look in this epoch, on the CPU

    # one loss per learner, by the part's share in the step's; each may go backward while the next is computed
    def losses(self, forward: Callable[..., Any], part: Pass, device: torch.device) -> Iterable[Tensor]: ...

    def scores(self) -> np.ndarray: ...  # probabilities (n, C) of the validation films

    def state(self) -> dict[str, Tensor]: ...  # all that training changes: the best epoch's is kept


def fit(
    model: MedBridge, train: FrozenFilms, val: FrozenFilms, config: TrainConfig | None = None, run_dir: str | Path | None = None,
    progress: bool = True, save_steps: int = 500, tensorboard: bool = False, network: Callable[..., "Network"] | None = None,
) -> History:
    """Train ``model`` in place; it ends with the weights of its best epoch.

    One member learns from ``train`` and is judged by ``val``. Several learn from both, each without the patients of its own fold,
    by which it is judged (cross-fitting). A read-out is fitted at the end. [ours]

    Args:
        train, val: frozen features, of :meth:`medbridge.features.cache.FeatureCache.of`; ``train`` with ``training=True``.
        run_dir: where checkpoints go, each epoch and every ``save_steps`` steps; without it an interrupted run starts again.
        network: makes another :class:`Network` of the first four arguments: one with another loss.
        tensorboard: log loss, validation AUC and learning rate to ``run_dir / 'tensorboard'``; needs ``medbridge[log]``.

    Raises:
        BenchmarkError: labels that differ from the model's, or nothing known to learn or to choose by.
        AdapterError: ``run_dir`` holds a checkpoint of another run.
        FloatingPointError: the loss is no longer finite.
        ValueError: ``tensorboard`` without a ``run_dir`` or its package; features of other depths than the model reads.
    """
    config = config or TrainConfig()
    if tensorboard and (run_dir is None or importlib.util.find_spec("tensorboard") is None):
        raise ValueError('tensorboard=True needs a run_dir, and `pip install "medbridge[log]"`')
    for films, split in ((train, "train"), (val, "val")):
        benchmark = films.benchmark
        if tuple(benchmark.labels) != tuple(model.labels):
            raise BenchmarkError(f"benchmark {benchmark.name!r} has the labels {', '.join(benchmark.labels)}, the model "
                                 f"{', '.join(model.labels)}; build the model with labels=benchmark.labels")
        bases = model.take_bases(films.bases) or [None] * len(model.depths)
        if films.parts != [[map_part(d, basis) for d in depths] for depths, basis in zip(model.depths, bases, strict=True)]:
            raise ValueError(f"the features of {split} hold maps at the depths {films.depths} ({films.parts}), and the model "
                             f"reads {model.depths}, in its own basis; get them from FeatureCache(...).of(model, benchmark)")
        if not benchmark.targets()[1].any():
            raise BenchmarkError(f"benchmark {benchmark.name!r}: no known label in {split}; fill in the label columns")
    signature = "" if run_dir is None else _signature(model, train, config)
    trainee = (network or Network)(model, train, val, config)
    model.set_prevalence(trainee.prevalence())
    model.trained_films = torch.from_numpy(pack_prints([*train.prints, *val.prints]))
    history = Loop(trainee, config, run_dir, signature, progress, save_steps, tensorboard).run()
    history.val_scores = expit(trainee.finish()[trainee.held >= len(train)])
    return history


class Network:
    """MedBridge as a trainee: each member learns from the films outside its own fold, and is judged by those inside."""

    title = "training"

    def __init__(self, model: MedBridge, train: FrozenFilms, val: FrozenFilms, config: TrainConfig) -> None:
        self.module, self.learners, self.parts, self.config = model, model.members, (train, val), config
        train.kept = val.kept = Kept()  # where films are streamed
        self.targets, self.mask = (
            np.concatenate(both) for both in zip(train.benchmark.targets(), val.benchmark.targets(), strict=True))
        self.fold = member_folds(train.benchmark, val.benchmark, len(model.members), config.seed)
        self.held = np.flatnonzero(self.fold >= 0)
        learned = len(train) if len(model.members) == 1 else len(self.fold)  # films that some member learns from, the first ones
        self.known = self.targets[:learned], self.mask[:learned]
        self.held_out = self.targets[self.held], self.mask[self.held]

    def prevalence(self) -> np.ndarray:
        """How often each class is positive in the films that each member learns from, ``(M, C)``."""
        learns = self.fold != np.arange(len(self.module.members))[:, None]
        known = learns.astype(float) @ self.mask
        return (learns @ (self.targets * self.mask)) / np.maximum(known, 1)

    def __getitem__(self, i: int) -> FilmFeatures:
        train, val = self.parts
        return train[i] if i < len(train) else val[i - len(train)]

    def batch(self, epoch: int, rows: list[int]) -> tuple[Batch, Tensor]:
        # the same views for a seed, an epoch and a film, whatever was done before
        config = self.config
        films = collate([self[i].draw(np.random.default_rng([config.seed, epoch, i]), config.local_views) for i in rows])
        return films, torch.from_numpy(self.fold[rows])

    def losses(self, forward: Callable[..., Any], part: Pass, device: torch.device) -> Iterator[Tensor]:
        """By member: masked BCE of the mixture, and at smaller weights of each expert alone and of the balance."""
        films, fold = part.batch
        films, fold = films.to(device), fold.to(device)
        learns = [(fold[: part.count] != m).nonzero().flatten() for m in range(len(self.learners))]
        # a member that learns from none of them computes one that does not count: all processes must go through all of the model
        rows = [own if len(own) else own.new_zeros(1) for own in learns]
        one_by_one = (forward(films, m, own) for m, own in enumerate(rows))
        outputs = one_by_one if ranks()[1] == 1 else forward(films, rows=rows)  # gradients are exchanged once per forward
        targets, mask, fold = part.targets.to(device), part.mask.to(device), join(fold, part.count)
        for m, (out, own) in enumerate(zip(outputs, learns, strict=True)):
            of_member = replace(part, count=len(own), targets=targets[fold != m], mask=mask[fold != m])
            loss = self.member_loss(out, of_member) if len(of_member.targets) else 0.0
            yield loss + (0.0 if len(own) else 0.0 * out.logits.sum())

    def member_loss(self, output: Output, part: Pass) -> Tensor:
        """The loss of one member, of the films that it learns from: ``part`` holds no others."""
        logits, expert_logits, weights = (
            join(x.float(), part.count) for x in (output.logits, output.expert_logits, output.weights))
        config = self.config
        criterion, balance = LOSSES[config.loss], 0.0
        loss = criterion(logits, part.targets, part.mask)
        if expert_logits.shape[1] > 1:
            own = [criterion(z, part.targets, part.mask) for z in expert_logits.unbind(1)]
            loss = loss + config.expert_loss * torch.stack(own).mean()
            balance = part.films * config.balance * balance_loss(weights)
        return part.known * loss + balance

    def held_logits(self) -> np.ndarray:
        """Logits ``(n, C)`` of the films of the folds, each by the member that did not learn from it."""
        logits = np.zeros(self.targets.shape)
        for m in range(len(self.module.members)):
            rows, (rank, world) = np.flatnonzero(self.fold == m), ranks()
            made = [o.logits.double().cpu().numpy()
                    for o in outputs(self.module, self, self.config.batch_size, rows=rows[rank::world].tolist(), member=m)]
            logits[rows] = gather_rows(np.concatenate([np.empty((0, logits.shape[1])), *made]))
        return align_folds(logits, self.fold)[self.held]

    def scores(self) -> np.ndarray:
        return expit(self.held_logits())

    def state(self) -> dict[str, Tensor]:
        return self.module.trainable()

    def finish(self) -> np.ndarray:
        """Fit the read-out, if there is one, on films that neither it nor the queries learned from; their logits ``(n, C)``."""
        if self.module.readout is None:
            return self.held_logits()
        pooled = np.concatenate([_pooled(self.module, films) for films in self.parts])
        logits = np.zeros(self.targets.shape)
        logits[self.held] = self.held_logits()
        return self.module.readout.fit(logits, pooled, self.targets, self.mask, self.fold)


def _pooled(model: MedBridge, films: FrozenFilms) -> np.ndarray:
    """:func:`medbridge.readout.pool_summary` of films, ``(n, size)``, for which no map is read."""
    raw = [torch.from_numpy(films.pooled("summary", k, "all")).unflatten(1, (3, -1)) for k in range(len(model.experts))]
    pooled = model.summaries([x.to(model.device) for x in raw])  # to standardise keeps which view is the largest
    return torch.cat([x.flatten(1) for x in pooled], dim=1).double().cpu().numpy()


def _signature(model: MedBridge, films: FrozenFilms, config: TrainConfig) -> str:
    """Digest of all that a run depends on: a checkpoint belongs to one."""
    parts = {"config": asdict(config), "model": asdict(model.config), "labels": model.labels,
             "films": [key.hex() for key in films.keys], "experts": [expert_folder(e) for e in model.experts],
             "maps": films.parts,
             "shapes": {k: list(p.shape) for k, p in model.trainable().items()}}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    digest.update(np.nan_to_num(films.benchmark.targets()[0]).tobytes())
    return digest.hexdigest()


class Loop:
    """A run under way; all of its state goes into the checkpoint. Arguments as :func:`fit`; ``signature`` tells runs apart."""

    def __init__(
        self, trainee: Trainee, config: TrainConfig, run_dir: str | Path | None = None, signature: str = "",
        progress: bool = False, save_steps: int = 500, tensorboard: bool = False,
    ) -> None:
        self.trainee, self.config, self.save_steps, self.signature = trainee, config, save_steps, signature
        self.path = None if run_dir is None else Path(run_dir) / "checkpoint.pt"
        self.progress = is_main() and progress  # asked before Accelerator starts, so that its processes wait as long as ours
        # precision is ours: Accelerate knows one for the whole program, and trainings differ
        self.accelerator = Accelerator(mixed_precision="no", log_with="tensorboard" if tensorboard else None, project_dir=run_dir)
        if tensorboard:
            self.accelerator.init_trackers("tensorboard", asdict(config))
        self.device, self.module = self.accelerator.device, trainee.module.to(self.accelerator.device)
        kind = _PRECISIONS[config.mixed_precision]
        self.autocast = partial(torch.autocast, self.device.type, kind, enabled=kind != torch.float32)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.mixed_precision == "fp16")
        self.sides = SideBySide(len(trainee.learners), 1 if ranks()[1] > 1 else cpu_threads(self.device))
        self.trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        groups: dict[float, list[Tensor]] = {config.weight_decay: [], 0.0: []}
        for name, p in self.trained.items():
            groups[config.weight_decay if p.dim() > 1 and "weight" in name else 0.0].append(p)
        grouped = [{"params": ps, "weight_decay": decay} for decay, ps in groups.items()]
        self.optimizer = torch.optim.AdamW(grouped, lr=config.lr, fused=True)
        # where this process has a training of its own (share_of_rank), there are no gradients to exchange
        together = ranks()[1] == self.accelerator.num_processes > 1
        self.wrapped = self.accelerator.prepare(self.module) if together else self.module
        self.films = len(trainee.known[0])
        self.epochs = config.most_epochs(self.films)
        self.steps = math.ceil(self.films / config.batch_size) * self.epochs
        self.history, self.best, self.step = History(), {}, 0
        self.done, self.total = 0, 0.0  # of the epoch under way: steps, and the sum of its films' losses
        self.average = {name: p.detach().clone() for name, p in self.trained.items()} if config.ema else {}

    def run(self) -> History:
        """Go on from the checkpoint, or begin; to the end."""
        with self.sides:
            return self._run()

    def _run(self) -> History:
        config, history, finished = self.config, self.history, self._resume()
        bar = self.bar = tqdm(range(len(history.rows), self.epochs), self.trainee.title, unit="epoch", leave=None, miniters=0,
                              disable=not self.progress or finished)
        for epoch in bar:
            if finished:
                break
            if not self.done:  # dropout is seeded by epoch, so that a resumed run repeats an uninterrupted one
                torch.manual_seed(config.seed + 1_000_003 * epoch + 7919 * ranks()[0])
            began = time.perf_counter()
            loss = self._epoch(epoch)
            val_auc, val_loss = self._validate()
            row = {"loss": loss, "val_auc": val_auc, "val_loss": val_loss, "lr": self.optimizer.param_groups[0]["lr"],
                   "seconds": time.perf_counter() - began}
            history.rows.append({"epoch": epoch, **row})
            value = -val_loss if math.isnan(val_auc) else val_auc  # one class only: the loss must choose
            if value > history.best_auc:
                history.best_auc, history.best_epoch = value, epoch
                self.best = self._state() | copy.deepcopy(self.average)
            finished = config.is_over(self.films, epoch - history.best_epoch) or epoch == self.epochs - 1
            self.accelerator.log(row, step=self.step)
            bar.set_postfix(loss=f"{loss:.3f}", val_auc=f"{val_auc:.3f}", best=f"{history.best_auc:.3f}")
            self._save(finished)
        self._put(self.best)
        self.module.eval()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        return history

    def _epoch(self, epoch: int) -> float:
        """Every film once; the mean of their losses."""
        config = self.config
        self.wrapped.train()
        self.optimizer.zero_grad()
        order = np.random.default_rng([config.seed, epoch]).permutation(len(self.trainee.known[0]))
        batch = partial(self.trainee.batch, epoch)
        loss = 0.0
        for part in prefetch(passes(batch, *self.trainee.known, order, config.batch_size, config.accumulate, self.done)):
            for group in self.optimizer.param_groups:
                group["lr"] = config.lr * cosine_schedule(self.step, self.steps, config.warmup)
            with nullcontext() if part.last else self.accelerator.no_sync(self.wrapped):
                loss += self._backward(part, epoch)
            if not part.last:
                continue
            self.scaler.unscale_(self.optimizer)
            for learner in self.trainee.learners:
                nn.utils.clip_grad_norm_([p for p in learner.parameters() if p.requires_grad], 1.0)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
            self.step, self.done = self.step + 1, self.done + 1
            self.bar.set_description(f"{self.trainee.title}, step {self.step} of {self.steps}", refresh=False)
            self.bar.update(0)  # shown in time, however long an epoch takes
            # a short run would otherwise never forget its random start
            decay = min(config.ema, self.step / (self.step + 10))
            for name, average in self.average.items():
                average.lerp_(self.trained[name].detach(), 1 - decay)
            self.total, loss = self.total + loss * round(len(part.targets) / part.films), 0.0
            if self.done % self.save_steps == 0:
                self._save(False)
        mean, self.done, self.total = self.total / len(order) / len(self.trainee.learners), 0, 0.0
        return mean

    def _backward(self, part: Pass, epoch: int) -> float:
        """Forward and backward; the loss of the films of all processes, by its share in the step's."""
        world, losses = ranks()[1], []
        for of_learner in self.trainee.losses(self._forward, part, self.device):
            losses.append(of_learner)
            if world == 1:
                self.sides.start(self.scaler.scale(of_learner).backward)
        self.sides.wait()
        loss = torch.stack(losses).sum()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{self.trainee.title}: the loss is {loss.item()} in epoch {epoch}; lower the learning rate "
                                     f"{self.config.lr:g}")
        if world > 1:  # processes average their gradients, where the whole batch's is their sum
            self.scaler.scale(loss * world).backward()
        return loss.item()

    def _forward(self, *inputs: Any, **options: Any) -> Any:
        with self.autocast():
            return self.wrapped(*inputs, **options)

    def _validate(self) -> tuple[float, float]:
        """Mean AUC and log-loss of the validation films, by the averaged weights where there are any."""
        live = self._state() if self.average else {}
        self._put(self.average)
        with self.autocast():
            p = self.trainee.scores()
        self._put(live)
        y, mask = self.trainee.held_out
        return auc_and_loss(y, p, mask)

    def _state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.trainee.state().items()}

    def _put(self, values: dict[str, Tensor]) -> None:
        state = self.trainee.state() if values else {}
        with torch.no_grad():
            for name, value in values.items():
                state[name].copy_(value)

    def _save(self, finished: bool) -> None:
        if self.path is not None:
            save_checkpoint(self.path, {
                "signature": self.signature, "finished": finished, "history": asdict(self.history), "weights": self._state(),
                "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "random": random_states(),
                **{name: getattr(self, name) for name in _PLAIN_STATE}})

    def _resume(self) -> bool:
        """Take up the checkpoint where there is one; whether it is of a finished run."""
        state = None if self.path is None else load_checkpoint(self.path, self.signature, self.device)
        if state is None:
            return False
        self._put(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        for name in _PLAIN_STATE:
            setattr(self, name, state[name])
        vars(self.history).update(state["history"])
        if self.done:
            restore_random_state(state["random"])
        return state["finished"]


def cosine_schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then half a cosine to 1 % of the learning rate."""
    rise = max(1, int(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

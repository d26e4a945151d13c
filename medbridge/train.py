"""The training loop: the frozen features are read from disk, the small rest is trained, the best epoch is kept.

[ours] AdamW, a cosine schedule with warm-up, masked BCE on the mixture and, at a smaller weight, on each expert alone (an
expert that the router ignores would otherwise never learn), a balance term, an exponential moving average of the weights,
early stopping on the validation mean AUC. Accelerate moves things to the device; under ``accelerate launch`` each process takes
its films of every batch, and the loss is that of the whole batch, so that the result is that of one process (up to dropout,
which each process draws for itself).

Checkpoints are written at the end of every epoch and within long ones; the same call with the same folder goes on where it
stopped, to the same result bit by bit.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from medbridge.data import Benchmark
from medbridge.errors import BenchmarkError
from medbridge.features.cache import CachedFilms, FeatureCache, expert_folder
from medbridge.features.passes import DrawnFilms, Pass
from medbridge.losses import LOSSES, triplet_loss
from medbridge.metrics.evaluate import auc
from medbridge.model import MedBridge
from medbridge.moe import balance_loss
from medbridge.predict import predict
from medbridge.support.checkpoint import load_checkpoint, random_states, restore_random_state, save_checkpoint
from medbridge.support.processes import is_main, join, ranks
from medbridge.support.threads import prefetch

__all__ = ["History", "TrainConfig", "cosine_schedule", "fit"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. [ours]

    Attributes:
        epochs: most epochs; ``patience`` epochs without a better validation AUC end the run earlier.
        batch_size: films a step, over all processes.
        accumulate: passes that a step is divided into, where its films do not fit in memory at once.
        lr, weight_decay: of AdamW; biases, norms, queries and scales are not decayed.
        warmup: share of the steps over which the learning rate rises.
        ema: decay of the moving average of the weights, per step; 0 keeps none.
        loss: 'bce' or 'asymmetric'.
        expert_loss: weight of the mean of the experts' own losses.
        balance: weight of the router's balance term.
        triplet: weight of the triplet term on each expert's pooled queries (:func:`medbridge.losses.triplet_loss`).
        seed: of the order of films, the views drawn and dropout.
        mixed_precision: 'no', 'fp16' or 'bf16', for Accelerate.
    """

    epochs: int = 30
    batch_size: int = 16
    accumulate: int = 1
    lr: float = 1e-3
    weight_decay: float = 0.2
    warmup: float = 0.1
    patience: int = 10
    ema: float = 0.98
    loss: str = "bce"
    expert_loss: float = 0.5
    balance: float = 0.01
    triplet: float = 0.0
    seed: int = 0
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r} is unknown; use one of {', '.join(LOSSES)}")
        if self.triplet < 0:
            raise ValueError(f"triplet={self.triplet} must be at least 0")
        for name in ("epochs", "batch_size", "accumulate", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.ema < 1 or not 0 <= self.warmup <= 1 or self.lr <= 0:
            raise ValueError(f"ema={self.ema} must be in [0, 1), warmup={self.warmup} in [0, 1], lr={self.lr} above 0")


@dataclass
class History:
    """What happened: one row an epoch (epoch, loss, val_auc, val_loss, lr, seconds), and which epoch was kept."""

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_auc: float = -math.inf


def fit(
    model: MedBridge, train: CachedFilms, val: CachedFilms, config: TrainConfig | None = None, run_dir: str | Path | None = None,
    progress: bool = True, save_steps: int = 500, tensorboard: bool = False,
) -> History:
    """Train ``model`` in place; it ends with the weights of its best epoch on ``val``.

    Args:
        model: what to train.
        train, val: frozen features as :meth:`medbridge.features.cache.FeatureCache.of` gives them, ``train`` with
            ``training=True``.
        config: settings.
        run_dir: where checkpoints go; without it an interrupted run starts again.
        progress: show a progress bar.
        save_steps: steps between checkpoints within an epoch.
        tensorboard: log loss, validation AUC and learning rate to ``run_dir / 'tensorboard'``; needs ``medbridge[log]``.

    Raises:
        BenchmarkError: labels that differ from the model's, or nothing known to learn or to choose by.
        AdapterError: ``run_dir`` holds a checkpoint of another run.
        FloatingPointError: the loss is no longer finite.
        ValueError: ``tensorboard`` without a ``run_dir`` or without the package; features of other experts or depths.
    """
    config = config or TrainConfig()
    if tensorboard and (run_dir is None or importlib.util.find_spec("tensorboard") is None):
        raise ValueError('tensorboard=True needs a run_dir, and `pip install "medbridge[log]"`')
    for films, split in ((train, "train"), (val, "val")):
        _check(model, films, split)
    progress = is_main() and progress  # asked before Accelerator starts, so that its processes wait as long as ours
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with="tensorboard" if tensorboard else None, project_dir=run_dir)
    if tensorboard:
        accelerator.init_trackers("tensorboard", {k: v for k, v in asdict(config).items() if isinstance(v, (int, float, str))})
    model.to(accelerator.device)
    y, mask = train.benchmark.targets()
    model.set_prevalence((y * mask).sum(0) / np.maximum(mask.sum(0), 1))
    history = _Loop(model, train, val, config, accelerator, run_dir, save_steps, progress).run()
    if tensorboard:
        accelerator.end_training()
    return history


def _check(model: MedBridge, films: CachedFilms, split: str) -> None:
    benchmark = films.benchmark
    if tuple(benchmark.labels) != tuple(model.labels):
        raise BenchmarkError(
            f"benchmark {benchmark.name!r} has the labels {', '.join(benchmark.labels)}, "
            f"the model {', '.join(model.labels)}; build the model with labels=benchmark.labels")
    if films.depths != model.depths:
        raise ValueError(f"the features of {split} hold maps at the depths {films.depths}, and the model reads {model.depths}; "
                         "get them from FeatureCache(...).of(model, benchmark)")
    if not benchmark.targets()[1].any():
        raise BenchmarkError(f"benchmark {benchmark.name!r}: no known label in {split}; fill in the label columns")


_fit_features = fit


def fit(model: MedBridge, train: CachedFilms | Benchmark, *args: Any, **options: Any) -> History:
    """:func:`_fit_features`; a benchmark in place of features is the old form, which goes when no caller is left."""
    if not isinstance(train, Benchmark):
        return _fit_features(model, train, *args, **options)
    names = ("config", "run_dir", "cache", "workers", "progress", "save_steps", "tensorboard")
    options |= dict(zip(names, args, strict=False))
    if tuple(train.labels) != tuple(model.labels):
        _check(model, SimpleNamespace(benchmark=train), "train")
    if options.get("tensorboard") and (options.get("run_dir") is None or importlib.util.find_spec("tensorboard") is None):
        raise ValueError('tensorboard=True needs a run_dir, and `pip install "medbridge[log]"`')
    parts = train.split("train"), train.split("val")
    for part, split in zip(parts, ("train", "val"), strict=True):
        if not part.targets()[1].any():
            raise BenchmarkError(f"benchmark {train.name!r}: no known label in {split}; fill in the label columns")
    cache = FeatureCache(options.pop("cache", None), options.pop("workers", None), progress=options.get("progress", True))
    return _fit_features(model, cache.of(model, parts[0], True), cache.of(model, parts[1]), **options)


class _Loop:
    """State of a run; all of it goes into the checkpoint."""

    def __init__(
        self, model: MedBridge, films: CachedFilms, held_out: CachedFilms, config: TrainConfig,
        accelerator: Accelerator, run_dir: str | Path | None, save_steps: int, progress: bool,
    ) -> None:
        self.model, self.films, self.held_out, self.config = model, films, held_out, config
        self.accelerator, self.save_steps, self.progress = accelerator, save_steps, progress
        self.path = None if run_dir is None else Path(run_dir) / "checkpoint.pt"
        own = model.trainable()
        flat = [p for name, p in own.items() if p.dim() < 2 or name.endswith(("queries", "mix", "delta"))]
        deep = [p for name, p in own.items() if not any(p is f for f in flat)]
        optimizer = torch.optim.AdamW(
            [{"params": deep, "weight_decay": config.weight_decay}, {"params": flat, "weight_decay": 0.0}], lr=config.lr)
        self.steps = math.ceil(len(films) / config.batch_size) * config.epochs
        if ranks()[1] == accelerator.num_processes:
            self.wrapped, self.optimizer = accelerator.prepare(model, optimizer)
        else:  # a training of this process's own among others' (medbridge.support.processes.dealt): no gradients to exchange
            self.wrapped, self.optimizer = model, accelerator.prepare(optimizer)
        self.history, self.step, self.best = History(), 0, None
        self.done, self.total = 0, 0.0  # of the epoch under way: steps, and the sum of its films' losses
        self.average = {name: p.detach().clone() for name, p in own.items()}
        self.signature = self._signature()

    def _signature(self) -> str:
        told = {"config": asdict(self.config), "model": asdict(self.model.config), "labels": self.model.labels,
                "films": [key.hex() for key in self.films.keys],
                "experts": [expert_folder(e) for e in self.model.experts],
                "shapes": {k: list(p.shape) for k, p in self.model.trainable().items()}}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        digest.update(np.nan_to_num(self.films.benchmark.targets()[0]).tobytes())
        return digest.hexdigest()

    def run(self) -> History:
        config = self.config
        finished = self._resume()
        first = len(self.history.rows)
        bar = tqdm(range(first, config.epochs), "training", unit="epoch", disable=not self.progress or finished)
        for epoch in bar:
            if finished:
                break
            if not self.done:  # dropout is seeded by epoch, so that a resumed run repeats an uninterrupted one
                torch.manual_seed(config.seed + 1_000_003 * epoch + 7919 * ranks()[0])
            began = time.perf_counter()
            loss = self._epoch(epoch)
            self.done, self.total = 0, 0.0
            val_auc, val_loss = self._validate()
            self.history.rows.append(
                {"epoch": epoch, "loss": loss, "val_auc": val_auc, "val_loss": val_loss,
                 "lr": self.optimizer.param_groups[0]["lr"], "seconds": time.perf_counter() - began})
            # one class only in validation: no AUC is defined, the loss must choose
            merit = -val_loss if math.isnan(val_auc) else val_auc
            if merit > self.history.best_auc:
                self.history.best_auc, self.history.best_epoch = merit, epoch
                self.best = copy.deepcopy(self.average if config.ema else self._weights())
            finished = epoch - self.history.best_epoch >= config.patience or epoch == config.epochs - 1
            self.accelerator.log({k: v for k, v in self.history.rows[-1].items() if k != "epoch"}, step=self.step)
            bar.set_postfix(loss=f"{loss:.3f}", val_auc=f"{val_auc:.3f}", best=f"{self.history.best_auc:.3f}")
            self._save(finished)
        self._put(self.best)
        self.model.eval()
        return self.history

    def _epoch(self, epoch: int) -> float:
        config = self.config
        self.wrapped.train()
        self.optimizer.zero_grad()
        passes = DrawnFilms(self.films, config.seed, epoch).passes(config.batch_size, config.accumulate, self.done)
        loss = 0.0
        for part in prefetch(passes):
            for group in self.optimizer.param_groups:
                group["lr"] = config.lr * cosine_schedule(self.step, self.steps, config.warmup)
            with nullcontext() if part.last else self.accelerator.no_sync(self.wrapped):
                loss += self._pass(part, epoch)
            if not part.last:
                continue
            self.accelerator.clip_grad_norm_(list(self.model.trainable().values()), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step, self.done = self.step + 1, self.done + 1
            self._update_average()
            self.total += loss * round(len(part.targets) / part.films)
            loss = 0.0
            if self.done % self.save_steps == 0:
                self._save(False)
        return self.total / len(self.films)

    def _pass(self, part: Pass, epoch: int) -> float:
        """Forward and backward; the loss of the films of all processes, by its share in the step's."""
        device = self.accelerator.device
        with self.accelerator.autocast():
            output = self.wrapped(part.batch.to(device))
        logits, expert_logits, weights, *pooled = (
            join(x.float(), part.count) for x in (output.logits, output.expert_logits, output.weights, *output.pooled))
        loss = self._loss(logits, expert_logits, weights, pooled, part)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} in epoch {epoch}; lower lr={self.config.lr}")
        # processes average their gradients, where the whole batch's is their sum
        whole = loss * ranks()[1] if part.count else loss + 0.0 * output.logits.sum()
        self.accelerator.backward(whole)
        return loss.item()

    def _loss(self, logits: Tensor, expert_logits: Tensor, weights: Tensor, pooled: list[Tensor], part: Pass) -> Tensor:
        criterion, targets, mask = LOSSES[self.config.loss], part.targets.to(logits.device), part.mask.to(logits.device)
        loss, balance = criterion(logits, targets, mask), 0.0
        if expert_logits.shape[1] > 1:
            own = [criterion(z, targets, mask) for z in expert_logits.unbind(dim=1)]
            loss = loss + self.config.expert_loss * torch.stack(own).mean()
            balance = part.films * self.config.balance * balance_loss(weights)
        if self.config.triplet:
            apart = [triplet_loss(q, targets, mask) for q in pooled]
            loss = loss + self.config.triplet * torch.stack(apart).mean()
        return part.known * loss + balance

    def _update_average(self) -> None:
        if self.config.ema:
            # a short run would otherwise never forget its random start
            decay = min(self.config.ema, self.step / (self.step + 10))
            for name, p in self.model.trainable().items():
                self.average[name].lerp_(p.detach(), 1 - decay)

    def _validate(self) -> tuple[float, float]:
        live = self._weights()
        if self.config.ema:
            self._put(self.average)
        p = predict(self.model, self.held_out, self.config.batch_size, progress=False).probabilities
        self._put(live)
        y, mask = self.held_out.benchmark.targets()
        p = p.clip(1e-7, 1 - 1e-7)
        loss = -(y * np.log(p) + (1 - y) * np.log(1 - p))[mask].mean()
        defined = auc(y, p, mask)
        defined = defined[~np.isnan(defined)]
        return float(defined.mean()) if len(defined) else math.nan, float(loss)

    def _weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.model.trainable().items()}

    def _put(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, p in self.model.trainable().items():
                p.copy_(weights[name])

    def _save(self, finished: bool) -> None:
        if self.path is None:
            return
        scaler = self.accelerator.scaler
        save_checkpoint(self.path, {
            "signature": self.signature, "finished": finished, "weights": self._weights(), "average": self.average,
            "best": self.best, "optimizer": self.optimizer.state_dict(), "step": self.step, "done": self.done,
            "total": self.total, "random": random_states(), "scaler": None if scaler is None else scaler.state_dict(),
            "history": asdict(self.history)})

    def _resume(self) -> bool:
        state = None if self.path is None else load_checkpoint(self.path, self.signature, self.accelerator.device)
        if state is None:
            return False
        self._put(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.average, self.best, self.step = state["average"], state["best"], state["step"]
        self.done, self.total = state["done"], state["total"]
        self.history = History(**state["history"])
        if self.done:
            restore_random_state(state["random"])
        return state["finished"]


def cosine_schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then half a cosine to 1 % of the learning rate."""
    rise = max(1, int(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

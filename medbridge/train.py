"""The training loop: the frozen features are read from disk, the small rest is trained, the best epoch is kept.

[ours] AdamW, a cosine schedule with warm-up, masked BCE on the mixture and, at a smaller weight, on each expert alone (an
expert that the router ignores would otherwise never learn), a balance term, an exponential moving average of the weights,
early stopping on the validation mean AUC. Accelerate moves things to the device and, under ``accelerate launch``, shards
the batches.

Every epoch ends in a checkpoint; the same call with the same folder goes on where it stopped, to the same result.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from medbridge.batch import collate, draw_views
from medbridge.benchmarks import Benchmark
from medbridge.cache import CachedFilms, FilmFeatures, compute_features
from medbridge.errors import AdapterError, BenchmarkError
from medbridge.evaluate import auc
from medbridge.losses import LOSSES, triplet_loss
from medbridge.model import MedBridge, Output
from medbridge.moe import balance_loss
from medbridge.predict import predict

__all__ = ["History", "TrainConfig", "cosine_schedule", "fit"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. [ours]

    Attributes:
        epochs: most epochs; ``patience`` epochs without a better validation AUC end the run earlier.
        batch_size: films a step.
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
        for name in ("epochs", "batch_size", "patience"):
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


class _Drawn(Dataset):
    """A film with the views of this epoch: the same for a seed, an epoch and a film, whatever was done before."""

    def __init__(self, films: CachedFilms, seed: int, epoch: int) -> None:
        self.films, self.seed, self.epoch = films, seed, epoch
        self.targets, self.mask = films.benchmark.targets()

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, i: int) -> tuple[FilmFeatures, np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, self.epoch, i])
        return draw_views(self.films[i], rng), self.targets[i], self.mask[i]

    def loader(self, batch_size: int, workers: int) -> DataLoader:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self)).tolist()
        return DataLoader(self, batch_size, sampler=order, collate_fn=_collate, num_workers=workers)


def _collate(items: list) -> object:
    films, targets, mask = zip(*items, strict=True)
    return collate(films, np.stack(targets), np.stack(mask))


def fit(
    model: MedBridge, benchmark: Benchmark, config: TrainConfig | None = None, run_dir: str | Path | None = None,
    cache: str | Path | None = None, workers: int | None = None, progress: bool = True,
) -> History:
    """Train ``model`` in place; it ends with the weights of its best epoch on the validation split.

    Args:
        model: what to train.
        benchmark: needs films in ``train`` and ``val``; the test split is not looked at.
        config: settings.
        run_dir: where checkpoints go; without it an interrupted run starts again.
        cache, workers, progress: as in :func:`medbridge.cache.compute_features`.

    Raises:
        BenchmarkError: an empty split, labels that differ from the model's, or nothing known to learn or to choose by.
        AdapterError: ``run_dir`` holds a checkpoint of another run.
        FloatingPointError: the loss is no longer finite.
    """
    config = config or TrainConfig()
    if tuple(benchmark.labels) != tuple(model.labels):
        raise BenchmarkError(
            f"benchmark {benchmark.name!r} has the labels {', '.join(benchmark.labels)}, "
            f"the model {', '.join(model.labels)}; build the model with labels=benchmark.labels")
    train, val = benchmark.split("train"), benchmark.split("val")
    y, mask = train.targets()
    if not mask.any() or not val.targets()[1].any():
        raise BenchmarkError(f"benchmark {benchmark.name!r}: no known label in train or in val; fill in the label columns")
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    model.to(accelerator.device)
    shared = (list(model.experts), model.depths, model.sampler)
    films = compute_features(train, *shared, True, cache, workers, progress)
    held_out = compute_features(val, *shared, False, cache, workers, progress)
    model.set_prevalence((y * mask).sum(0) / np.maximum(mask.sum(0), 1))
    return _Loop(model, films, held_out, config, accelerator, run_dir, workers or 0, progress).run()


class _Loop:
    """State of a run; all of it goes into the checkpoint."""

    def __init__(
        self, model: MedBridge, films: CachedFilms, held_out: CachedFilms, config: TrainConfig,
        accelerator: Accelerator, run_dir: str | Path | None, workers: int, progress: bool,
    ) -> None:
        self.model, self.films, self.held_out, self.config = model, films, held_out, config
        self.accelerator, self.workers, self.progress = accelerator, workers, progress
        self.path = None if run_dir is None else Path(run_dir) / "checkpoint.pt"
        own = model.trainable()
        flat = [p for name, p in own.items() if p.dim() < 2 or name.endswith(("queries", "mix", "delta"))]
        deep = [p for name, p in own.items() if not any(p is f for f in flat)]
        optimizer = torch.optim.AdamW(
            [{"params": deep, "weight_decay": config.weight_decay}, {"params": flat, "weight_decay": 0.0}], lr=config.lr)
        self.steps = math.ceil(len(films) / config.batch_size) * config.epochs
        self.wrapped, self.optimizer = accelerator.prepare(model, optimizer)
        self.history, self.step, self.best = History(), 0, None
        self.average = {name: p.detach().clone() for name, p in own.items()}
        self.signature = self._signature()

    def _signature(self) -> str:
        told = {"config": asdict(self.config), "model": asdict(self.model.config), "labels": self.model.labels,
                "files": [[str(f) for f in files] for files in self.films.files],
                "shapes": {k: list(p.shape) for k, p in self.model.trainable().items()}}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        digest.update(np.nan_to_num(self.films.benchmark.targets()[0]).tobytes())
        return digest.hexdigest()

    def run(self) -> History:
        config = self.config
        finished = self._resume()
        first = len(self.history.rows)
        torch.manual_seed(config.seed + 1_000_003 * first)
        bar = tqdm(range(first, config.epochs), "training", unit="epoch", disable=not self.progress or finished)
        for epoch in bar:
            if finished:
                break
            # dropout is seeded by epoch, so that a resumed run repeats an uninterrupted one
            torch.manual_seed(config.seed + 1_000_003 * epoch)
            began = time.perf_counter()
            loss = self._epoch(epoch)
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
            bar.set_postfix(loss=f"{loss:.3f}", val_auc=f"{val_auc:.3f}", best=f"{self.history.best_auc:.3f}")
            self._save(finished)
        self._put(self.best)
        self.model.eval()
        return self.history

    def _epoch(self, epoch: int) -> float:
        config, total, seen = self.config, 0.0, 0
        self.wrapped.train()
        loader = _Drawn(self.films, config.seed, epoch).loader(config.batch_size, self.workers)
        for batch in self.accelerator.prepare_data_loader(loader, device_placement=False):
            batch = batch.to(self.accelerator.device)
            for group in self.optimizer.param_groups:
                group["lr"] = config.lr * cosine_schedule(self.step, self.steps, config.warmup)
            with self.accelerator.autocast():
                output = self.wrapped(batch)
            loss = self._loss(output, batch.targets, batch.mask)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss.item()} in epoch {epoch}; lower lr={config.lr}")
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(list(self.model.trainable().values()), 1.0)
            self.optimizer.step()
            self.step += 1
            if config.ema:
                # a short run would otherwise never forget its random start
                decay = min(config.ema, self.step / (self.step + 10))
                for name, p in self.model.trainable().items():
                    self.average[name].lerp_(p.detach(), 1 - decay)
            total, seen = total + loss.item() * len(batch.targets), seen + len(batch.targets)
        return total / seen

    def _loss(self, output: Output, targets: Tensor, mask: Tensor) -> Tensor:
        criterion = LOSSES[self.config.loss]
        loss = criterion(output.logits.float(), targets, mask)
        if output.expert_logits.shape[1] > 1:
            own = [criterion(z.float(), targets, mask) for z in output.expert_logits.unbind(dim=1)]
            loss = loss + self.config.expert_loss * torch.stack(own).mean()
            loss = loss + self.config.balance * balance_loss(output.weights.float())
        if self.config.triplet:
            apart = [triplet_loss(q.float(), targets, mask) for q in output.pooled]
            loss = loss + self.config.triplet * torch.stack(apart).mean()
        return loss

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
        if self.path is None or not self.accelerator.is_main_process:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".part")
        torch.save(
            {"signature": self.signature, "finished": finished, "weights": self._weights(), "average": self.average,
             "best": self.best, "optimizer": self.optimizer.state_dict(), "step": self.step,
             "history": asdict(self.history)}, temporary)
        os.replace(temporary, self.path)

    def _resume(self) -> bool:
        if self.path is None or not self.path.exists():
            return False
        try:
            state = torch.load(self.path, map_location=self.accelerator.device, weights_only=True)
        except Exception as error:  # torch raises a dozen types for a damaged file
            raise AdapterError(f"{self.path}: damaged checkpoint ({error}); delete it to start again") from error
        if state["signature"] != self.signature:
            raise AdapterError(
                f"{self.path}: belongs to a run with other data or settings; choose another folder, or delete it")
        self._put(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.best, self.step = state["average"], state["best"], state["step"]
        self.history = History(**state["history"])
        return state["finished"]


def cosine_schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then half a cosine to 1 % of the learning rate."""
    rise = max(1, int(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

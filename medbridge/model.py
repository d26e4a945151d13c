"""MedBridge: focal views -> frozen experts -> query encoders -> across views -> class scores -> mixture.

Paper, section 3, whole. What it fixes and what is ours is said where each part is built; this module only joins them, and saves
and loads what was trained: the experts themselves are named, not stored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from medbridge.adapter_file import FORMAT, read_adapter_json
from medbridge.crossview import CrossView
from medbridge.errors import AdapterError
from medbridge.experts import Expert, create_expert
from medbridge.features.batch import Batch
from medbridge.focal import FocalSampler
from medbridge.moe import RetrievalRouter, Router
from medbridge.prompts import ClassPrompts, class_prompts, encode_prompts
from medbridge.qencoder import QueryEncoder
from medbridge.scores import PromptScores

if TYPE_CHECKING:
    from medbridge.data import Benchmark
    from medbridge.metrics.evaluate import Evaluation
    from medbridge.train import History

__all__ = ["AdapterConfig", "MedBridge", "Output", "pooled_queries"]


@dataclass(frozen=True)
class AdapterConfig:
    """Every choice that shapes the trainable part; the paper leaves all of these open. [ours]

    Attributes:
        queries: learnable queries Q of each expert.
        query_layers: T2, query layers of each expert.
        query_kind: 'cross', 'copy' or 'lora' (:mod:`medbridge.qencoder`).
        width: query width w for 'cross'.
        heads: attention heads.
        rank: rank for 'lora'.
        cross_view: self-attention over the views before they are pooled.
        pool: 'max', 'mean', 'lse' or 'attention' (:mod:`medbridge.crossview`).
        router: 'class', 'image' or 'uniform' (:mod:`medbridge.moe`).
        top_k: experts kept for each film; ``None`` keeps all.
        shared_expert: name of an expert that is kept for every film, beside the top k of the others.
        router_noise: standard deviation of the noise on the router's logits in training.
        adapt_prompts: learn a correction of each class prompt.
        dropout: everywhere in the trainable part.
    """

    queries: int = 8
    query_layers: int = 2
    query_kind: str = "cross"
    width: int = 128
    heads: int = 4
    rank: int = 8
    cross_view: bool = True
    pool: str = "max"
    router: str = "class"
    top_k: int | None = None
    shared_expert: str | None = None
    router_noise: float = 0.0
    adapt_prompts: bool = True
    dropout: float = 0.3


@dataclass
class Output:
    """What the model says about B films.

    Attributes:
        logits: ``(B, C)``, the mixture's scores.
        expert_logits: ``(B, K, C)``, each expert's own.
        weights: ``(B, K, C)``, the router's; they sum to 1 over K.
        attention: per expert ``(B, N, Q, P)``: the last query layer's, mean over heads.
        winners: per expert ``(B, Q + 1, w)``: the view that each pooled number came from; for other pools than 'max'
            ``(B, N, Q + 1, w)``, each view's weight in it (:func:`medbridge.crossview.view_share` sums up both).
        tokens: per expert ``(B, Q + 1, w)``: the pooled queries, the frozen token last.
    """

    logits: Tensor
    expert_logits: Tensor
    weights: Tensor
    attention: list[Tensor]
    winners: list[Tensor]
    tokens: list[Tensor]

    @property
    def pooled(self) -> list[Tensor]:
        """Per expert ``(B, w)``: the mean of the pooled queries, which the router reads."""
        return pooled_queries(self.tokens)


def pooled_queries(tokens: Sequence[Tensor]) -> list[Tensor]:
    """Per expert: pooled tokens ``(B, Q + 1, w)`` -> their mean over the Q queries ``(B, w)``."""
    return [t[:, :-1].mean(dim=1) for t in tokens]


class _Branch(nn.Module):
    """All that is trained for one expert: queries, view attention, scores."""

    def __init__(self, expert: Expert, config: AdapterConfig, text: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.encoder = QueryEncoder(
            expert, config.queries, config.query_layers, config.query_kind, config.width, config.heads,
            config.dropout, config.rank)
        width = self.encoder.width
        self.views = CrossView(width, expert.image_dim, config.heads, config.cross_view, config.dropout, config.pool)
        self.scores = PromptScores(
            width, config.queries + 1, *text, dropout=config.dropout, adapt_prompts=config.adapt_prompts)

    def forward(self, maps: list[Tensor], batch: Batch, summary: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        films, views = batch.view_mask.shape
        real = batch.view_mask.flatten()
        # padding is not worth a pass through the query layers
        flat = [m.flatten(0, 1)[real].float() for m in maps]
        found, seen = self.encoder(flat)
        q = found.new_zeros(films * views, *found.shape[1:])
        q[real] = found
        attention = seen.new_zeros(films * views, *seen.shape[1:])
        attention[real] = seen.detach()
        tokens, winners = self.views(
            q.unflatten(0, (films, views)), summary.float(), batch.boxes, batch.view_mask)
        return self.scores(tokens), tokens, attention.unflatten(0, (films, views)), winners


class MedBridge(nn.Module):
    """Frozen experts, and the part that adapts them.

    Args:
        experts: K experts, or their names for :func:`medbridge.create_expert`.
        labels: C label names.
        config: shape of the trainable part; or give its fields as keywords: ``MedBridge(e, labels, queries=4)``.
        sampler: Focal Sampling.
        prompts: label -> prompts, where the defaults of :mod:`medbridge.prompts` do not fit.
        seed: of the initial weights.

    Raises:
        ExpertError: an unknown expert, or weights that are not here.
        ValueError: no expert, an expert named twice, no label, a label named twice, an unknown option.
    """

    def __init__(
        self, experts: Sequence[Expert | str], labels: Sequence[str], config: AdapterConfig | None = None,
        sampler: FocalSampler | None = None, prompts: Mapping[str, ClassPrompts] | None = None, seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        experts, self.labels = _checked(experts, labels)
        known = [f.name for f in fields(AdapterConfig)]
        if unknown := sorted(set(options) - set(known)):
            raise ValueError(f"unknown option {', '.join(unknown)}; known: {', '.join(known)}")
        self.config = AdapterConfig(**{**asdict(config or AdapterConfig()), **options})
        self.sampler = sampler or FocalSampler()
        self.prompts = {label: (prompts or {}).get(label) or class_prompts(label) for label in self.labels}
        self.experts = nn.ModuleList(create_expert(e) if isinstance(e, str) else e for e in experts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.branches = nn.ModuleList(
                _Branch(e, self.config, encode_prompts(e, self.labels, prompts)) for e in self.experts)
            self.router: Router | RetrievalRouter = Router(
                [b.encoder.width for b in self.branches], len(self.labels), self.config.router, self.config.top_k,
                shared=_position(self.config.shared_expert, [e.name for e in self.experts]), noise=self.config.router_noise)
        self.card: dict[str, Any] = {}

    @property
    def depths(self) -> list[list[int]]:
        """Per expert: the depths whose frozen maps the queries read."""
        return [b.encoder.depths for b in self.branches]

    @property
    def device(self) -> torch.device:
        """Where the trainable part is."""
        return self.branches[0].scores.bias.device

    def forward(self, batch: Batch) -> Output:
        """Frozen features of B films -> scores."""
        said = [branch(m, batch, s) for branch, m, s in zip(self.branches, batch.maps, batch.summary, strict=True)]
        logits, tokens, attention, winners = (list(parts) for parts in zip(*said, strict=True))
        expert_logits, weights = torch.stack(logits, dim=1), self.router(pooled_queries(tokens))
        return Output((weights * expert_logits).sum(dim=1), expert_logits, weights, attention, winners, tokens)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of all that is trained; the frozen rest is rebuilt from the experts."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def set_prevalence(self, prevalence: np.ndarray) -> None:
        """Start every class at the log-odds of its training prevalence ``(C,)``, clipped to [0.001, 0.999]. [ours]"""
        p = torch.as_tensor(prevalence, dtype=torch.float32).clamp(0.001, 0.999)
        for branch in self.branches:
            branch.scores.bias.data.copy_(torch.logit(p))

    # -- the whole job in a few lines; each method is a function of the module that it names -----------------

    def fit(self, benchmark: Benchmark, **options: Any) -> History:
        """Train on the benchmark's train split, choose the epoch on its val split: :func:`medbridge.train.fit`."""
        from medbridge.train import fit

        return fit(self, benchmark, **options)

    def predict_proba(self, benchmark: Benchmark, **options: Any) -> np.ndarray:
        """Probabilities float64 ``(n, C)`` of every film: :func:`medbridge.predict.predict`."""
        from medbridge.predict import predict

        return predict(self, benchmark, **options).probabilities

    def evaluate(self, benchmark: Benchmark, split: str = "test", **options: Any) -> Evaluation:
        """AUC with intervals on one split: :func:`medbridge.metrics.evaluate.evaluate` with patients as groups."""
        from medbridge.metrics.evaluate import evaluate

        part = benchmark.split(split)
        y, mask = part.targets()
        return evaluate(y, self.predict_proba(part, **options), mask, part.table["patient_id"], part.labels)

    def with_expert(self, expert: Expert | str, seed: int = 0) -> MedBridge:
        """This mixture and one expert more; the others keep their weights: :func:`medbridge.mixture_edit.with_expert`."""
        from medbridge.mixture_edit import with_expert

        return with_expert(self, expert, seed)

    def without_expert(self, name: str) -> MedBridge:
        """This mixture without one expert: :func:`medbridge.mixture_edit.without_expert`."""
        from medbridge.mixture_edit import without_expert

        return without_expert(self, name)

    def save(self, folder: str | Path) -> Path:
        """Write ``adapter.safetensors`` (trainable parameters alone) and ``adapter.json``; returns the folder.

        Raises:
            AdapterError: the model routes by a memory of films, which an adapter does not hold.
        """
        if isinstance(self.router, RetrievalRouter):
            raise AdapterError("a memory of films is not stored in an adapter; save the model that with_memory was given, and "
                               "build the memory again after loading")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "format": FORMAT,
            "labels": list(self.labels),
            "experts": [{"name": e.name, "fingerprint": e.fingerprint(), "precision": e.precision} for e in self.experts],
            "config": asdict(self.config),
            "sampler": self.sampler.to_dict(),
            "prompts": {label: asdict(p) for label, p in self.prompts.items()},
            "card": self.card,
        }
        tensors = {name: p.detach().cpu().contiguous() for name, p in self.trainable().items()}
        # both under temporary names first: an adapter is never half of an old and half of a new one for long
        # as bytes, since save_file makes a file that its owner alone may read
        (folder / "adapter.safetensors.part").write_bytes(to_bytes(tensors))
        (folder / "adapter.json.part").write_text(json.dumps(config, indent=2), encoding="utf-8")
        os.replace(folder / "adapter.safetensors.part", folder / "adapter.safetensors")
        os.replace(folder / "adapter.json.part", folder / "adapter.json")
        return folder

    @classmethod
    def load(
        cls, folder: str | Path, experts: Sequence[Expert | str] | None = None, precision: str | None = None,
    ) -> MedBridge:
        """Rebuild a saved model.

        Args:
            folder: what :meth:`save` wrote.
            experts: the experts that it was trained with; created by their names when not given.
            precision: of the frozen towers, where it shall be another than that of training: scores differ by rounding.

        Raises:
            AdapterError: a file is missing or damaged, or the adapter was made for other experts, weights or precision.
            ExpertError: an expert that it names cannot be created.
        """
        folder = Path(folder)
        saved = read_adapter_json(folder, AdapterConfig, FocalSampler)
        names = [e["name"] for e in saved["experts"]]
        wanted = [precision or e.get("precision", "float32") for e in saved["experts"]]
        given = [e if isinstance(e, str) else e.name for e in experts or names]
        if given != names:
            raise AdapterError(
                f"{folder}: this adapter was made for the experts {', '.join(names)}, "
                f"not for {', '.join(given)}; pass those, in that order")
        built = [create_expert(e, precision=p) if isinstance(e, str) else e
                 for e, p in zip(experts or names, wanted, strict=True)]
        for expert, entry, kind in zip(built, saved["experts"], wanted, strict=True):
            if expert.precision != kind:
                raise AdapterError(
                    f"{folder}: expert {expert.name!r} computes in {expert.precision}, and {kind} is asked for; set "
                    f"expert.precision = {kind!r}, or load with precision={expert.precision!r}")
            if expert.fingerprint() != entry["fingerprint"]:
                raise AdapterError(
                    f"{folder}: expert {expert.name!r} has other weights than those that this adapter was trained on "
                    f"(sha256 {entry['fingerprint'][:12]}...); use the same weights file, or train again")
        try:
            model = cls(
                built, saved["labels"], AdapterConfig(**saved["config"]), FocalSampler(**saved["sampler"]),
                {label: ClassPrompts(tuple(p["positive"]), tuple(p["negative"])) for label, p in saved["prompts"].items()})
            model.card = saved["card"]
        except (KeyError, TypeError, ValueError) as error:
            raise AdapterError(f"{folder / 'adapter.json'}: not an adapter of this version ({error}); train again") from error
        model._load_weights(folder / "adapter.safetensors")
        return model.eval()

    def _load_weights(self, path: Path) -> None:
        try:
            tensors = load_file(path)
        except FileNotFoundError:
            raise AdapterError(f"{path}: missing; an adapter is adapter.json and adapter.safetensors together") from None
        except SafetensorError as error:
            raise AdapterError(f"{path}: damaged ({error}); copy it again, or train again") from error
        own = self.trainable()
        if {k: tuple(v.shape) for k, v in tensors.items()} != {k: tuple(v.shape) for k, v in own.items()}:
            odd = sorted(set(tensors) ^ set(own)) or [k for k in own if own[k].shape != tensors[k].shape]
            raise AdapterError(f"{path}: does not fit adapter.json beside it (first difference: {odd[0]}); copy both again")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[name])


def _position(name: str | None, names: Sequence[str]) -> int | None:
    if name is not None and name not in names:
        raise ValueError(f"shared_expert={name!r} is none of the experts {', '.join(names)}")
    return None if name is None else names.index(name)


def _checked(experts: Sequence[Expert | str], labels: Sequence[str]) -> tuple[list[Expert | str], tuple[str, ...]]:
    if isinstance(experts, (str, Expert)):
        experts = [experts]
    if not experts:
        raise ValueError("experts is empty; name at least one, such as 'tiny-vit'")
    names = [e if isinstance(e, str) else e.name for e in experts]
    if len(set(names)) != len(names):
        raise ValueError(f"experts={names}: an expert is named twice")
    if isinstance(labels, str) or not labels or len(set(labels)) != len(labels):
        raise ValueError(f"labels={labels!r}: give a list of distinct label names")
    return list(experts), tuple(labels)

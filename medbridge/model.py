"""MedBridge: focal views -> frozen experts -> query encoders -> across views -> class scores -> mixture.

[abstract] Focal sampling, query encoder, mixture of experts. What each part rests on is said there; this module only joins them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from medbridge.crossview import CrossView
from medbridge.experts import Expert, create_expert
from medbridge.features.batch import Batch
from medbridge.features.compact import MapBasis, MapFormat, as_numbers
from medbridge.features.films import Reader
from medbridge.focal import FocalSampler
from medbridge.moe import Router
from medbridge.prompts import ClassPrompts, class_prompts, encode_prompts
from medbridge.qencoder import QueryEncoder, query_depths
from medbridge.readout import ReadOut, pool_summary
from medbridge.scores import PromptScores


@dataclass(frozen=True)
class AdapterConfig:
    """Every choice that shapes the trainable part. [ours]

    Attributes:
        queries, query_layers: learnable queries Q, and T2 query layers, of each expert. layer_step: blocks from the map of one
            query layer to that of the next; the last one reads the last map.
        query_kind: 'cross', 'copy' or 'lora' (:mod:`medbridge.qencoder`).
        width, heads: query width w and attention heads, for 'cross'. rank: for 'lora'.
        cross_view: self-attention over the views before they are pooled.
        pool: 'max', 'mean', 'lse' or 'attention' (:mod:`medbridge.crossview`).
        router: 'class', 'image' or 'uniform' (:mod:`medbridge.moe`).
        top_k: experts kept for each film; ``None`` keeps all.
        shared_expert: name of an expert that is kept for every film, beside the top k of the others.
        router_noise: standard deviation of the noise on the router's logits in training.
        adapt_prompts: learn a correction of each class prompt. dropout: everywhere in the trainable part.
        members: adapters of the same shape whose scores are averaged; more than one are trained by cross-fitting
            (:mod:`medbridge.train`). readout: add a calibrated linear read-out of the summaries (:mod:`medbridge.readout`).
        maps: 'compact' (:mod:`medbridge.features.compact`), shaped by components, patches, bits and whiten; or 'full': as they
            are, which the query kinds 'copy' and 'lora' need.
    """

    queries: int = 8
    query_layers: int = 2
    layer_step: int = 1
    query_kind: str = "cross"
    width: int = 64
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
    members: int = 1
    readout: bool = False
    maps: str = "compact"
    components: int = 128
    patches: int = 64
    bits: int = 8
    whiten: bool = True

    def __post_init__(self) -> None:
        for name in ("queries", "query_layers", "layer_step", "width", "heads", "rank", "members"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.maps not in ("compact", "full"):
            raise ValueError(f"maps={self.maps!r} is unknown; use 'compact' or 'full'")
        if self.maps == "compact" and self.query_kind != "cross":
            raise ValueError(f"query_kind={self.query_kind!r} reads a tower's own tokens; set maps='full'")

    @property
    def map_format(self) -> MapFormat | None:
        """How the maps are stored; None: as they are."""
        return MapFormat(self.components, self.patches, self.bits, self.whiten) if self.maps == "compact" else None


CROSS_FITTED = AdapterConfig(members=5, readout=True)
"""What ``medbridge adapt`` and the comparisons train; a single member is for learning, and for very large sets."""


@dataclass
class Output:
    """What the model says about B films; what several members say is their mean, their queries stand one after the other.

    Attributes:
        logits: ``(B, C)``, the final scores: the mixture's, and the read-out's where there is one.
        expert_logits: ``(B, K, C)``, each expert's own.
        weights: ``(B, K, C)``, the router's; they sum to 1 over K.
        attention: per expert ``(B, N, Q, P)``: the last query layer's, mean over heads.
        view_weights: per expert ``(B, Q + 1, w)``: the view that each pooled number came from; for other pools than 'max'
            ``(B, N, Q + 1, w)``, each view's weight in it (:func:`medbridge.explain.attention.view_share` sums up).
        tokens: per expert ``(B, Q + 1, w)``: the pooled queries, the frozen token last.
        members: each member's own output, without the read-out.
    """

    logits: Tensor
    expert_logits: Tensor
    weights: Tensor
    attention: list[Tensor]
    view_weights: list[Tensor]
    tokens: list[Tensor]
    members: Sequence[Self] = ()

    @property
    def pooled(self) -> list[Tensor]:
        """Per expert ``(B, w)``: the mean of the pooled queries, which the router reads."""
        return pooled_queries(self.tokens)


def pooled_queries(tokens: Sequence[Tensor]) -> list[Tensor]:
    """Per expert: pooled tokens ``(B, Q + 1, w)`` -> their mean over the Q queries ``(B, w)``."""
    return [t[:, :-1].mean(dim=1) for t in tokens]


class _Branch(nn.Module):
    """All that is trained for one expert: queries, view attention, scores."""

    def __init__(self, expert: Expert, maps: Expert | MapBasis, config: AdapterConfig, text: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        c = config
        self.encoder = QueryEncoder(
            maps, c.queries, c.query_layers, c.query_kind, c.width, c.heads, c.dropout, c.rank, c.layer_step)
        self.read = [maps.widths[d - 1] for d in self.encoder.depths]  # of the components that are stored
        width = self.encoder.width
        self.views = CrossView(width, expert.image_dim, c.heads, c.cross_view, c.dropout, c.pool)
        self.scores = PromptScores(width, c.queries + 1, *text, dropout=c.dropout, adapt_prompts=c.adapt_prompts)

    def forward(self, maps: list[Tensor], batch: Batch, summary: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        films, views = batch.view_mask.shape
        real = batch.view_mask.flatten()

        def padded(of_real: Tensor) -> Tensor:
            """Rows of the real views -> ``(B, N, ...)``, zero for padding."""
            rows = of_real.new_zeros(films * views, *of_real.shape[1:])
            rows[real] = of_real
            return rows.unflatten(0, (films, views))

        # padding is not worth a pass through the query layers
        queries, attention = self.encoder(
            [as_numbers(m.flatten(0, 1)[real][..., :width]) for m, width in zip(maps, self.read, strict=True)])
        tokens, view_weights = self.views(padded(queries), summary, batch.boxes, batch.view_mask)
        return self.scores(tokens), tokens, padded(attention.detach()), view_weights


class Member(nn.Module):
    """One set of all that is trained by gradient: a branch per expert, and the router over them."""

    router: nn.Module

    def __init__(
        self, experts: Sequence[Expert], shapes: Sequence[Expert | MapBasis], config: AdapterConfig,
        texts: Sequence[tuple[Tensor, Tensor]], shared: int | None,
    ) -> None:
        super().__init__()
        each = zip(experts, shapes, texts, strict=True)
        self.branches = nn.ModuleList(_Branch(expert, maps, config, text) for expert, maps, text in each)
        self.router = Router([b.encoder.width for b in self.branches], len(texts[0][0]), config.router, config.top_k,
                             shared=shared, noise=config.router_noise)

    def forward(self, batch: Batch, summary: Sequence[Tensor]) -> Output:
        """Frozen features of B films -> scores."""
        per_expert = [branch(m, batch, s) for branch, m, s in zip(self.branches, batch.maps, summary, strict=True)]
        logits, tokens, attention, view_weights = (list(parts) for parts in zip(*per_expert, strict=True))
        expert_logits, weights = torch.stack(logits, dim=1), self.router(pooled_queries(tokens))
        return Output((weights * expert_logits).sum(dim=1), expert_logits, weights, attention, view_weights, tokens)


def _mean_output(outputs: Sequence[Output]) -> Output:
    """One output of several members."""
    def mean(name: str) -> Tensor:
        return torch.stack([getattr(o, name) for o in outputs]).mean(dim=0)

    def joined(name: str, dim: int) -> list[Tensor]:
        return [torch.cat(parts, dim=dim) for parts in zip(*(getattr(o, name) for o in outputs), strict=True)]

    tokens = [torch.cat([*(t[:, :-1] for t in parts), torch.stack([t[:, -1:] for t in parts]).mean(dim=0)], dim=1)
              for parts in zip(*(o.tokens for o in outputs), strict=True)]
    return Output(mean("logits"), mean("expert_logits"), mean("weights"), joined("attention", 2), joined("view_weights", -2),
                  tokens)


def map_reader(experts: Sequence[Expert], config: AdapterConfig, sampler: FocalSampler) -> Reader:
    """What an adapter of some settings reads, before there is one; in bases that are not fitted yet."""
    depths = [query_depths(e.depth, config.query_layers, config.query_kind, config.layer_step) for e in experts]
    form = config.map_format
    bases = None if form is None else [MapBasis(e, d, form) for e, d in zip(experts, depths, strict=True)]
    return Reader(experts, depths, sampler, bases, range(config.members))


class MedBridge(nn.Module):
    """Frozen experts, and the part that adapts them.

    Args:
        experts: K experts, or their names for :func:`medbridge.create_expert`. labels: C label names.
        config: shape of the trainable part; or give its fields as keywords: ``MedBridge(e, labels, queries=4)``.
        prompts: label -> prompts, where the defaults of :mod:`medbridge.prompts` do not fit. seed: of the initial weights.

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
        names, shared = [e.name for e in self.experts], self.config.shared_expert
        if shared not in (None, *names):
            raise ValueError(f"shared_expert={shared!r} is none of the experts {', '.join(names)}")
        c, bases = self.config, map_reader(self.experts, self.config, self.sampler).bases
        self.bases = None if bases is None else nn.ModuleList(bases)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            texts = [encode_prompts(e, self.labels, prompts) for e in self.experts]
            which = None if shared is None else names.index(shared)
            self.members = nn.ModuleList(
                Member(self.experts, self.map_shapes, c, texts, which) for _ in range(c.members))
        sizes = [3 * e.image_dim for e in self.experts]
        self.readout = ReadOut(c.members, len(self.labels), sum(sizes)) if c.readout else None
        self.card: dict[str, Any] = {}
        self.trained_films: Tensor | None = None  # prints of train and val (medbridge.data.copies); None: not known
        self.to(self.experts[0].mean.device)  # experts may have been moved before

    @property
    def depths(self) -> list[list[int]]:
        """Per expert: the depths whose frozen maps the queries read."""
        return [b.encoder.depths for b in self.branches]

    @property
    def map_shapes(self) -> Sequence[Expert | MapBasis]:
        """Per expert: what says how deep, wide and fine the maps are that the queries read."""
        return self.experts if self.bases is None else self.bases

    def take_bases(self, bases: Sequence[MapBasis] | None) -> Sequence[MapBasis] | None:
        """Take over fitted bases where there are none yet, and their shape is the same; the model's own are returned."""
        for own, given in zip(self.bases or (), bases or (), strict=False):
            if not own.fitted and (own.form.stored, own.depths) == (given.form.stored, given.depths):
                own.load_state_dict(given.state_dict())
        return self.bases

    @property
    def device(self) -> torch.device:
        """Where the trainable part is."""
        return self.branches[0].scores.bias.device

    @property
    def branches(self) -> nn.ModuleList:
        """Those of the first member."""
        return self.members[0].branches

    @property
    def router(self) -> nn.Module:
        """That of the first member."""
        return self.members[0].router

    def summaries(self, summary: Sequence[Tensor]) -> list[Tensor]:
        """Per expert frozen summaries ``(..., image_dim)`` -> float32, standardised where there are bases."""
        return [s.float() if self.bases is None else self.bases[k].standardise(s) for k, s in enumerate(summary)]

    def forward(
        self, batch: Batch, member: int | None = None, rows: Tensor | Sequence[Tensor] | None = None
    ) -> Output | list[Output]:
        """Frozen features of B films -> scores.

        ``member``: the output of that one alone, for all films or for the numbers ``rows``. ``rows`` for each member: a list of
        the members' own outputs for those films. Both come without the read-out.
        """
        if member is None and rows is not None:
            return [self(batch, m, own) for m, own in enumerate(rows)]
        batch = batch if rows is None else batch.take(rows)
        summary = self.summaries(batch.summary)
        if member is not None:
            return self.members[member](batch, summary)
        outputs = [of_one(batch, summary) for of_one in self.members]
        out = replace(_mean_output(outputs) if len(outputs) > 1 else outputs[0], members=outputs)
        if self.readout is not None:
            out.logits = self.readout(out.logits, pool_summary(summary, batch.view_mask))
        return out

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of all that is trained; the frozen rest is rebuilt from the experts."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """Name -> all that an adapter holds: the trained parameters, the bases of the maps, what training films are known by."""
        films = {} if self.trained_films is None else {"trained_films": self.trained_films}
        return self.trainable() | films | {k: v for k, v in self.named_buffers() if k.startswith(("bases.", "readout."))}

    def set_prevalence(self, prevalence: np.ndarray) -> None:
        """Start every class at the log-odds of its training prevalence, ``(C,)`` or by member ``(M, C)``, clipped to
        [0.001, 0.999]."""
        p = torch.as_tensor(prevalence, dtype=torch.float32).clamp(0.001, 0.999)
        for member, own in zip(self.members, p.expand(len(self.members), -1), strict=True):
            for branch in member.branches:
                branch.scores.bias.data.copy_(torch.logit(own))


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

"""Frozen features: computed once, kept on disk in shards, memory-mapped.

Nothing that a frozen expert says about a film ever changes, so training reads it from disk. Each film is decoded once for all
experts; views are cut once for all experts of the same input size. Threads decode and cut ahead of the experts, another one
writes behind them.

The address of a film's features is all that they depend on: the film's content and the boxes of its views (its key,
:mod:`.film_keys`), the expert, its weights, input and precision (the folder), the depth (the part of a shard,
:mod:`.shards`). Films that are there, from another label budget or another split, are never computed again, and a depth that
is missing is added. An interrupted fill loses what was not yet in a shard: half a minute of it.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from medbridge.data import Benchmark
from medbridge.errors import CacheError, ExpertError
from medbridge.experts import Expert
from medbridge.features.compact import MapBasis
from medbridge.features.encode import Filler, encode_views, film_views, map_part, view_bytes, view_groups
from medbridge.features.film_keys import FilmFile, film_files, film_key
from medbridge.features.shards import FeatureIndex, FeatureStore
from medbridge.focal import FocalSampler, relative_boxes
from medbridge.support.files import try_folder, write_atomic
from medbridge.support.processes import barrier, ranks
from medbridge.support.threads import ahead, decode_threads, prefetch

FEATURE_VERSION = 2
"""Counts the ways in which films were read, cut and encoded: one more when the same film would give other features."""

BASIS_FILMS, BASIS_TOKENS = 256, 100
"""Films that a basis is fitted to, and most tokens of each of their three views."""

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def cache_folder() -> Path:
    """Where computed things are kept: ``MEDBRIDGE_CACHE``, or ``~/.cache/medbridge``. CacheError: this user has no home."""
    try:
        return Path(os.environ.get("MEDBRIDGE_CACHE") or "~/.cache/medbridge").expanduser()
    except RuntimeError as error:
        raise CacheError(f"{error}; set MEDBRIDGE_CACHE to a folder that may be written") from None


def features_folder(folder: str | Path | None = None) -> Path:
    """Where features are kept: ``folder``, or ``cache_folder() / 'features'``."""
    return Path(folder) if folder is not None else cache_folder() / "features"


def cache_limit() -> int | None:
    """Bytes that features may take, from ``MEDBRIDGE_CACHE_LIMIT`` such as '200GB'; ``None``: what the disk holds. ValueError:
    the variable is no size."""
    text = os.environ.get("MEDBRIDGE_CACHE_LIMIT", "").strip().upper()
    if not text:
        return None
    number = text.rstrip("KMGTB")
    try:
        return int(float(number) * _UNITS[text[len(number):]])
    except (ValueError, KeyError):
        raise ValueError(f"MEDBRIDGE_CACHE_LIMIT={text!r} is no size; write it like 200GB") from None


@dataclass
class FilmFeatures:
    """What K frozen experts say about the V views of one film.

    Attributes:
        maps: per expert: maps of its depths, shallow to deep, each ``(V, P, d)``, float16, or int8 in a basis.
        summary: per expert: ``(V, image_dim)`` float16.
        boxes: float32 ``(V, 4)`` in units of the whole view; view 0 is the whole film.
        fixed: how many leading views are the whole film and the sliding windows; the others are random windows.
    """

    maps: list[list[Tensor]]
    summary: list[Tensor]
    boxes: Tensor
    fixed: int


def expert_folder(expert: Expert) -> str:
    """Name of the folder of an expert's features: name, and digest of all that makes them but films, boxes and depth."""
    made = (FEATURE_VERSION, expert.fingerprint(), *expert.view_kind, expert.precision, expert.mean.tolist(), expert.std.tolist())
    return f"{expert.name.replace('/', '-').replace(':', '-')}-{hashlib.sha256(repr(made).encode()).hexdigest()[:12]}"


@dataclass
class CachedFilms(Dataset):
    """The frozen features of a benchmark's films, read film by film.

    Attributes:
        benchmark: the films, in this order.
        keys: per film: its address, 20 bytes.
        located: per expert: where its features are.
        parts: per expert: the names of the maps that are read.
        depths: per expert: their depths.
        boxes: per film: float32 ``(V, 4)`` in pixels.
        sizes: per film: ``(height, width)`` in pixels.
        fixed: per film: number of leading views that inference uses.
        bases: per expert: the basis of its maps; None: maps as they are.
        prints: per film: what copies of it are known by (:mod:`medbridge.data.copies`).
    """

    benchmark: Benchmark
    keys: list[bytes]
    located: list[FeatureIndex]
    parts: list[list[str]]
    depths: list[list[int]]
    boxes: list[np.ndarray]
    sizes: list[tuple[int, int]]
    fixed: list[int]
    bases: Sequence[MapBasis] | None = None
    prints: Sequence[bytes] = ()

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, i: int) -> FilmFeatures:
        views = len(self.boxes[i])  # more may be stored
        maps = [[at.read(part, i, views) for part in parts] for at, parts in zip(self.located, self.parts, strict=True)]
        summary = [at.read("summary", i, views) for at in self.located]
        return FilmFeatures(maps, summary, torch.from_numpy(relative_boxes(self.boxes[i], *self.sizes[i])), self.fixed[i])

    @property
    def files(self) -> list[list[Path]]:
        """Per expert: the shard of each film's summary."""
        return [[at.file("summary", i) for i in range(len(self))] for at in self.located]

    def pooled(self, key: str, expert: int, views: str = "whole") -> np.ndarray:
        """One vector per film, without reading the maps: what the baselines are fitted to. ``key``: 'summary' or 'embed'.

        float32 ``(n, d)`` of the 'whole' film (view 0), or ``(n, 3 d)`` of 'all': view 0, mean and maximum of the fixed views.
        """
        rows = []
        for i, fixed in enumerate(self.fixed):
            x = self.located[expert].read(key, i, 1 if views == "whole" else fixed).float()
            rows.append(x[0] if views == "whole" else torch.cat([x[0], x.mean(0), x.max(0).values]))
        return torch.stack(rows).numpy()


@dataclass(frozen=True)
class Reader:
    """What a model reads, and all that is asked of one here: which experts, of each which depths, of which views."""

    experts: Iterable[Expert]
    depths: Sequence[Sequence[int]]
    sampler: FocalSampler
    bases: Sequence[MapBasis] | None


@dataclass(frozen=True)
class FeatureCache:
    """Frozen features of films in a folder: what is there is read, what is missing is computed.

    Attributes:
        folder: where to keep them, default ``cache_folder() / 'features'``.
        workers: threads that decode ahead; default 1 on a CPU, up to 8 beside a GPU; 0 decodes in the caller's.
        limit: most bytes that all features in ``folder`` may take, default :func:`cache_limit`.
        progress: show progress bars.
    """

    folder: str | Path | None = None
    workers: int | None = None
    limit: int | None = None
    progress: bool = True

    def of(self, model: Reader, benchmark: Benchmark, training: bool = False) -> CachedFilms:
        """The features that a model reads: :meth:`films` with its experts, depths, sampler and bases.

        Bases that were never fitted are fitted to training films first; CacheError where these films are not for training.
        """
        unfitted = [basis for basis in model.bases or () if not basis.fitted]
        if unfitted and not training:
            raise CacheError("this model has no basis for compact maps yet; get the features of its training films first, by "
                             ".of(model, train, training=True)")
        if unfitted:
            self.fit_bases(benchmark.unlabelled or benchmark, list(model.experts), model.bases, model.sampler)
        return self.films(benchmark, list(model.experts), model.depths, model.sampler, training, bases=model.bases)

    def files(self, benchmark: Benchmark) -> list[FilmFile]:
        """What each film's file holds. All processes must call it. ImageError: a file that is no film, by its header."""
        paths, (rank, world), memory = benchmark.paths(), ranks(), features_folder(self.folder)
        threads = max(1, min(8, os.cpu_count() or 1) if self.workers is None else self.workers)  # no expert is at work yet
        if world > 1:  # each process reads its share, and finds the others' in the memory
            film_files(paths[rank::world], memory, threads, self.progress and rank == 0)
            barrier()
        return film_files(paths, memory, threads, self.progress and rank == 0)

    def prints(self, benchmark: Benchmark) -> list[bytes]:
        """What copies of each film are known by (:mod:`medbridge.data.copies`); as :meth:`files`."""
        return [film.print for film in self.files(benchmark)]

    def fit_bases(
        self, benchmark: Benchmark, experts: Sequence[Expert], bases: Sequence[MapBasis], sampler: FocalSampler,
    ) -> None:
        """Fit each basis that is not yet fitted to tokens of at most ``BASIS_FILMS`` films, drawn by content; kept in the cache.

        The whole film and two of its windows are read. No label is looked at.
        """
        root = features_folder(self.folder)
        files = self.files(benchmark)
        rows = sorted(range(len(files)), key=lambda i: hashlib.sha256(files[i].digest.encode()).digest())[:BASIS_FILMS]
        drawn = []
        for i in rows:
            windows = sampler.inference_boxes(files[i].height, files[i].width)
            pick = np.random.default_rng(int(files[i].digest[:12], 16)).permutation(np.arange(1, len(windows)))[:2]
            drawn.append((i, windows[[0, *np.sort(pick)]]))
        keys, unfitted = [film_key(files[i], box).hex() for i, box in drawn], []
        for expert, basis in zip(experts, bases, strict=True):
            if not basis.fitted:
                made = [expert_folder(expert), basis.depths, asdict(basis.form.stored), keys]
                path = root / "bases" / f"{hashlib.sha256(repr(made).encode()).hexdigest()[:24]}.safetensors"
                unfitted.append((expert, basis, path))
        missing = [entry for entry in unfitted if not entry[2].exists()]
        if missing:
            try_folder(root / "bases")
            kinds = {expert.view_kind for expert, _, _ in missing}
            samples: list[list[tuple[dict[int, Tensor], Tensor]]] = [[] for _ in missing]
            for i, boxes in tqdm(drawn, "basis of compact maps", unit="film", leave=False, disable=not self.progress):
                views = film_views(partial(benchmark.read, i), boxes, kinds)  # decoded once for all experts
                for sample, (expert, basis, _) in zip(samples, missing, strict=True):
                    sample.append(_sample_tokens(expert, basis, views[expert.view_kind]))
            for sample, (_, basis, path) in zip(samples, missing, strict=True):
                basis.fit({d: torch.cat([tokens[d] for tokens, _ in sample]) for d in basis.depths},
                          torch.cat([summary for _, summary in sample]))
                write_atomic(path, to_bytes(dict(basis.named_buffers())))
        for _, basis, path in unfitted:
            basis.load_state_dict(load_file(path))

    def films(
        self, benchmark: Benchmark, experts: Sequence[Expert], depths: Sequence[Sequence[int]], sampler: FocalSampler,
        training: bool = False, bases: Sequence[MapBasis] | None = None,
    ) -> CachedFilms:
        """Frozen features of every film; what is already on disk is not computed again.

        Under ``accelerate launch`` each process computes its share of the films; all of them must call it. Beside a GPU, experts
        that have something to compute are moved to it.

        ``depths``: per expert, those whose maps are needed (may be empty: summaries alone). ``training``: with the pool of random
        windows that training draws from. ``bases``: per expert, the basis of its maps; None: maps as they are. ImageError: a film
        cannot be read; the message names it, films that were finished are kept. CacheError: what is missing would not fit;
        nothing was computed.
        """
        root, threads = features_folder(self.folder), decode_threads(self.workers)
        depths = [sorted(set(d)) for d in depths]
        files, (rank, world) = self.files(benchmark), ranks()
        boxes = [
            sampler.training_boxes(f.height, f.width, name) if training else sampler.inference_boxes(f.height, f.width)
            for f, name in zip(files, benchmark.image_ids(), strict=True)]
        sizes = [(f.height, f.width) for f in files]
        fixed = [len(sampler.inference_boxes(h, w)) for h, w in sizes]
        keys = [film_key(f, box) for f, box in zip(files, boxes, strict=True)]
        stores = [FeatureStore(root / expert_folder(e)) for e in experts]
        of_maps = list(bases) if bases is not None else [None] * len(experts)
        parts = [[map_part(depth, basis) for depth in d] for d, basis in zip(depths, of_maps, strict=True)]

        def locate(keys: list[bytes]) -> tuple[list[FeatureIndex], list[np.ndarray]]:
            found = [store.find(keys, ["summary", "embed", *names]) for store, names in zip(stores, parts, strict=True)]
            return found, [~np.array([at.has("summary"), *map(at.has, names)]) for at, names in zip(found, parts, strict=True)]

        located, gaps = locate(keys)
        todo = np.concatenate(gaps).any(axis=0)
        if todo.any() and not training:  # a training film's views begin with those of inference
            wide = [film_key(f, sampler.training_boxes(f.height, f.width, name))
                    for f, name in zip(files, benchmark.image_ids(), strict=True)]
            there = ~np.concatenate(locate(wide)[1]).any(axis=0)
            keys = [w if lacks and has else key for key, w, lacks, has in zip(keys, wide, todo, there, strict=True)]
            located, gaps = locate(keys)
            todo = np.concatenate(gaps).any(axis=0)
        if todo.any():
            _check_room(root, benchmark.name, experts, depths, boxes, gaps, self.limit, of_maps)
            if torch.cuda.is_available():
                for expert in experts:
                    expert.to("cuda")
        barrier()  # all have looked, and found room, before one of them writes
        if todo.any():
            # dealt out by number, not by what is missing: another run may write to this folder meanwhile
            rows = [i for i in np.flatnonzero(todo).tolist() if i % world == rank]
            kinds = sorted({e.view_kind for e in experts})
            films = ahead(lambda i: (i, film_views(partial(benchmark.read, i), boxes[i], kinds)), rows, threads)
            groups = view_groups(films)
            bar = tqdm(total=len(rows), desc=f"frozen features of {benchmark.name}", unit="film",
                       miniters=0, disable=not self.progress or rank > 0)
            with ExitStack() as stack:
                stack.enter_context(bar)
                for expert in experts:
                    _show_blocks(bar, expert, stack)
                fillers = [stack.enter_context(Filler(e, d, store, keys, gap, basis))
                           for e, d, store, gap, basis in zip(experts, depths, stores, gaps, of_maps, strict=True)]
                for group in prefetch(groups) if threads else groups:
                    for filler in fillers:
                        filler.add(group)
                    bar.update(len(group))
        barrier()
        if world > 1 or todo.any():
            located, _ = locate(keys)
        return CachedFilms(benchmark, keys, located, parts, depths, boxes, sizes, fixed, bases, [f.print for f in files])


def _show_blocks(bar: tqdm, expert: Expert, stack: ExitStack) -> None:
    """Let the bar tell each block of the tower until ``stack`` closes: on a processor a group of views takes minutes."""
    def tell(block: int, *_: object) -> None:
        bar.set_postfix_str(f"{expert.name}: block {block} of {expert.depth}", refresh=False)
        bar.update(0)

    with suppress(ExpertError):  # a tower that is no chain of blocks
        for i, block in enumerate(expert.blocks(), 1):
            stack.callback(block.register_forward_hook(partial(tell, i)).remove)


def _sample_tokens(expert: Expert, basis: MapBasis, views: Tensor) -> tuple[dict[int, Tensor], Tensor]:
    """Tokens by depth, at most ``BASIS_TOKENS`` of each view and spread evenly over the map, and summaries of a film's views."""
    out, tokens = encode_views(expert, views, basis.depths), {}
    for d in basis.depths:
        pooled = basis.pool(out.maps[d].float(), d)
        tokens[d] = pooled[:, :: -(-pooled.shape[1] // BASIS_TOKENS)].flatten(0, 1)
    return tokens, out.summary.float()


def _check_room(
    root: Path, name: str, experts: Sequence[Expert], depths: list[list[int]], boxes: list[np.ndarray],
    gaps: list[np.ndarray], limit: int | None, bases: Sequence[MapBasis | None],
) -> None:
    views = np.array([len(b) for b in boxes])
    new = sum(int(views[g.any(axis=0)].sum()) * view_bytes(e, d, b)
              for e, d, g, b in zip(experts, depths, gaps, bases, strict=True))
    try_folder(root)
    limit = cache_limit() if limit is None else limit
    held = sum(p.stat().st_size for p in root.glob("*/*.safetensors")) if limit is not None else 0
    fix = "use fewer views, query layers or experts, name another folder, or see `medbridge cache clean`"
    if limit is not None and held + new > limit:
        raise CacheError(f"{root}: the features of {name!r} take {new / 1e9:.2f} GB beside {held / 1e9:.2f} GB that are there, "
                         f"beyond the limit of {limit / 1e9:.2f} GB (MEDBRIDGE_CACHE_LIMIT); raise it, or {fix}")
    free = shutil.disk_usage(root).free
    if new > 0.98 * free:
        raise CacheError(f"{root}: the features of {name!r} take {new / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB left; "
                         f"{fix}")

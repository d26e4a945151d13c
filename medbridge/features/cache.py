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
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor
from tqdm.auto import tqdm

from medbridge.data import Benchmark
from medbridge.errors import CacheError, ExpertError
from medbridge.experts import Expert
from medbridge.features.budget import LOCAL_VIEWS, Rates, choose, cost_of_run, measure_rates
from medbridge.features.compact import MapBasis
from medbridge.features.cost import expert_cost
from medbridge.features.encode import Filler, encode_views, film_groups, film_views, map_part, towers_side_by_side, view_bytes
from medbridge.features.film_keys import FilmFile, film_files, film_key
from medbridge.features.films import CachedFilms, FrozenFilms, Reader
from medbridge.features.shards import KEY_BYTES, FeatureIndex, FeatureStore
from medbridge.features.stream import StreamedFilms
from medbridge.focal import FocalSampler
from medbridge.support.files import try_folder, write_atomic
from medbridge.support.processes import barrier, gather_each, is_main, ranks
from medbridge.support.threads import decode_threads

FEATURE_VERSION = 2
"""Counts the ways in which films were read, cut and encoded: one more when the same film would give other features."""

BASIS_FILMS, BASIS_TOKENS = 256, 100
"""Films that a basis is fitted to, and most tokens of each of their three views."""

FEATURES = ("cache", "stream", "auto")

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


def expert_folder(expert: Expert) -> str:
    """Name of the folder of an expert's features: name, and digest of all that makes them but films, boxes and depth."""
    made = (FEATURE_VERSION, expert.fingerprint(), *expert.view_kind, expert.precision, expert.mean.tolist(), expert.std.tolist())
    return f"{expert.name.replace('/', '-').replace(':', '-')}-{hashlib.sha256(repr(made).encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class FeatureCache:
    """Frozen features of films in a folder: what is there is read, what is missing is computed.

    Attributes:
        folder: where to keep them, default ``cache_folder() / 'features'``.
        workers: threads that decode ahead; default 1 on a CPU, up to 8 beside a GPU; 0 decodes in the caller's.
        limit: most bytes that all features in ``folder`` may take, default :func:`cache_limit`.
        progress: show progress bars.
        features: 'cache'; 'stream': the towers run whenever a pass asks for a film, and no feature is written
            (:mod:`medbridge.features.stream`); or 'auto': what would take less time here, by measuring for some seconds. What was
            chosen is noted in the folder, so that the same call goes on in the same way.
        fresh: whether streamed training draws new random windows in every epoch; else from the pool that the cache would hold.
    """

    folder: str | Path | None = None
    workers: int | None = None
    limit: int | None = None
    progress: bool = True
    features: str = "cache"
    fresh: bool = True

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise ValueError(f"features={self.features!r} is unknown; use one of {', '.join(FEATURES)}")

    def of(self, model: Reader, benchmark: Benchmark, training: bool = False) -> FrozenFilms:
        """The features that a model reads: :meth:`films` with its experts, depths, sampler and bases.

        Bases that were never fitted are fitted to training films first; CacheError where these films are not for training.
        """
        unfitted = [basis for basis in model.bases or () if not basis.fitted]
        if unfitted and not training:
            raise CacheError("this model has no basis for compact maps yet; get the features of its training films first, by "
                             ".of(model, train, training=True)")
        if unfitted:
            self.fit_bases(benchmark.unlabelled or benchmark, list(model.experts), model.bases, model.sampler)
        return self._films(Reader(model.experts, model.depths, model.sampler, model.bases, model.members), benchmark, training)

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

    def rates(self, model: Reader, benchmark: Benchmark) -> Rates:
        """Measure for some seconds what this machine reaches on these films (:mod:`medbridge.features.budget`)."""
        experts, kinds = list(model.experts), sorted({e.view_kind for e in model.experts})
        _to_gpu(experts)

        def cut(i: int) -> object:
            film = benchmark.read(i)
            return film_views(lambda: film, model.sampler.inference_boxes(*film.shape), kinds)

        towers = [expert_cost(e, d, views=64 if e.mean.device.type == "cuda" else 4, repeats=1)
                  for e, d in zip(experts, model.depths, strict=True)]
        return measure_rates(towers, features_folder(self.folder), decode_threads(self.workers), len(benchmark), cut)

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
            samples: list[dict[int, tuple[dict[int, Tensor], Tensor]]] = [{} for _ in missing]

            def take(of: int, i: int, views: Tensor) -> None:
                samples[of][i] = _sample_tokens(*missing[of][:2], views)

            with towers_side_by_side([expert for expert, _, _ in missing]) as sides:
                for i, boxes in tqdm(drawn, "basis of compact maps", unit="film", leave=False, disable=not self.progress):
                    views = film_views(partial(benchmark.read, i), boxes, kinds)  # decoded once for all experts
                    for of, (expert, _, _) in enumerate(missing):
                        sides.start(partial(take, of, i, views[expert.view_kind]))
                    sides.wait(left=sides.count - 1)
                sides.wait()
                for sample, (_, basis, path) in zip(samples, missing, strict=True):
                    tokens, summaries = zip(*(sample[i] for i, _ in drawn), strict=True)
                    basis.fit({d: torch.cat([of_film[d] for of_film in tokens]) for d in basis.depths}, torch.cat(summaries))
                    write_atomic(path, to_bytes(dict(basis.named_buffers())))
        for _, basis, path in unfitted:
            basis.load_state_dict(load_file(path))

    def films(
        self, benchmark: Benchmark, experts: Sequence[Expert], depths: Sequence[Sequence[int]], sampler: FocalSampler,
        training: bool = False, bases: Sequence[MapBasis] | None = None,
    ) -> FrozenFilms:
        """Frozen features of every film; what is already on disk is not computed again.

        Under ``accelerate launch`` each process computes its share of the films; all of them must call it. Beside a GPU, experts
        that have something to compute are moved to it.

        ``depths``: per expert, those whose maps are needed (may be empty: summaries alone). ``training``: with the pool of random
        windows that training draws from. ``bases``: per expert, the basis of its maps; None: maps as they are. ImageError: a film
        cannot be read; the message names it, films that were finished are kept. CacheError: what is missing would not fit;
        nothing was computed.
        """
        return self._films(Reader(experts, depths, sampler, bases), benchmark, training)

    def _films(self, reader: Reader, benchmark: Benchmark, training: bool) -> FrozenFilms:
        experts, sampler, files = list(reader.experts), reader.sampler, self.files(benchmark)
        depths, names = [sorted(set(d)) for d in reader.depths], benchmark.image_ids()
        given, bases = reader.bases, [None] * len(experts) if reader.bases is None else list(reader.bases)
        reader = replace(reader, experts=experts, depths=depths, bases=bases)
        boxes = [
            sampler.training_boxes(f.height, f.width, name) if training else sampler.inference_boxes(f.height, f.width)
            for f, name in zip(files, names, strict=True)]
        films: dict[str, Any] = {
            "benchmark": benchmark, "keys": [film_key(f, box) for f, box in zip(files, boxes, strict=True)],
            "parts": [[map_part(depth, basis) for depth in d] for d, basis in zip(depths, bases, strict=True)],
            "depths": depths, "boxes": boxes, "sizes": [(f.height, f.width) for f in files],
            "fixed": [len(sampler.inference_boxes(f.height, f.width)) for f in files], "bases": given,
            "prints": [f.print for f in files]}
        if self.features == "stream":
            return self._streamed(films, reader, training)
        stores = [FeatureStore(features_folder(self.folder) / expert_folder(e)) for e in experts]

        def locate(keys: list[bytes]) -> tuple[list[FeatureIndex], list[np.ndarray], np.ndarray]:
            """Where films are; bool ``(1 + depths, n)`` by expert, what of them is missing; bool ``(n,)``, if anything is."""
            found = [store.find(keys, ["summary", "embed", *part]) for store, part in zip(stores, films["parts"], strict=True)]
            gaps = [~np.array([at.has("summary"), *map(at.has, part)]) for at, part in zip(found, films["parts"], strict=True)]
            return found, gaps, np.concatenate(gaps).any(axis=0)

        located, gaps, todo = locate(films["keys"])
        if todo.any() and not training:  # a training film's views begin with those of inference
            wide = [film_key(f, sampler.training_boxes(f.height, f.width, name)) for f, name in zip(files, names, strict=True)]
            films["keys"] = [w if lacks and has else key
                             for key, w, lacks, has in zip(films["keys"], wide, todo, ~locate(wide)[2], strict=True)]
            located, gaps, todo = locate(films["keys"])
        if self.features == "auto" and self._choose(reader, films, gaps) == "stream":
            return self._streamed(films, reader, training)
        if todo.any():
            self._check_room(reader, films, gaps)
        barrier()  # all have looked, and found room, before one of them writes
        if todo.any():
            self._fill(reader, films, stores, gaps, todo)
        barrier()
        if ranks()[1] > 1 or todo.any():
            located, _, _ = locate(films["keys"])
        return CachedFilms(**films, located=located)

    def _choose(self, reader: Reader, films: dict[str, Any], gaps: list[np.ndarray]) -> str:
        """'cache' or 'stream', measured once for these experts and films of one folder; all processes do as the first."""
        benchmark, line = films["benchmark"], "cache: all of them are there"
        made = hashlib.sha256(repr(([expert_folder(e) for e in reader.experts], str(benchmark.root))).encode()).hexdigest()
        path = features_folder(self.folder) / "auto" / f"{made[:24]}.txt"
        if is_main() and path.exists():
            line = path.read_text(encoding="utf-8")
        elif is_main() and np.concatenate(gaps).any():
            count, pool = len(films["boxes"]), round(np.mean([len(b) for b in films["boxes"]]))
            windows = round(np.mean(films["fixed"]))
            scored = count * windows * (len(reader.members) > 1)  # cross-fitted members score all films after every epoch
            cost = cost_of_run(reader.experts, reader.depths, count, pool, min(windows, 1 + LOCAL_VIEWS), reader.bases, scored)
            try:
                self._check_room(reader, films, gaps)
                line = choose(cost, self.rates(reader, benchmark))
            except (CacheError, OSError):
                line = choose(cost, self.rates(reader, benchmark), fits=False)
            print(f"features of {benchmark.name} from {line} (noted in {path})", file=sys.stderr)
            with suppress(OSError):  # nothing can be written there: the next call measures again
                write_atomic(path, line)
        return gather_each(line)[0].partition(":")[0]

    def _streamed(self, films: dict[str, Any], reader: Reader, training: bool) -> StreamedFilms:
        _to_gpu(reader.experts)
        if self.fresh and training:  # no pool is drawn from: another training than that of the same films from the cache
            films["boxes"] = [boxes[:fixed] for boxes, fixed in zip(films["boxes"], films["fixed"], strict=True)]
            films["keys"] = [hashlib.sha256(key + b"fresh").digest()[:KEY_BYTES] for key in films["keys"]]
        threads = decode_threads(self.workers)
        return StreamedFilms(**films, reader=reader, fresh=self.fresh, threads=threads, progress=self.progress)

    def _fill(
        self, reader: Reader, films: dict[str, Any], stores: Sequence[FeatureStore], gaps: list[np.ndarray], todo: np.ndarray,
    ) -> None:
        """Compute what is missing: ``todo``, of which films; ``gaps``, what of them."""
        (rank, world), experts, benchmark = ranks(), reader.experts, films["benchmark"]
        _to_gpu(experts)
        # dealt out by number, not by what is missing: another run may write to this folder meanwhile
        rows = [i for i in np.flatnonzero(todo).tolist() if i % world == rank]
        with ExitStack() as stack:
            bar = stack.enter_context(tqdm(total=len(rows), desc=f"frozen features of {benchmark.name}", unit="film",
                                           miniters=0, disable=not self.progress or rank > 0))
            for expert in experts:
                _show_blocks(bar, expert, stack)
            fillers = [stack.enter_context(Filler(e, d, store, films["keys"], gap, basis))
                       for e, d, store, gap, basis in zip(experts, reader.depths, stores, gaps, reader.bases, strict=True)]
            sides = stack.enter_context(towers_side_by_side(experts))
            for group in film_groups(benchmark, films["boxes"], sorted({e.view_kind for e in experts}), rows,
                                     decode_threads(self.workers)):
                for filler in fillers:
                    sides.start(partial(filler.add, group))
                sides.wait(left=sides.count - 1)
                bar.update(len(group))
            sides.wait()

    def _check_room(self, reader: Reader, films: dict[str, Any], gaps: list[np.ndarray]) -> None:
        views, root, name = np.array([len(b) for b in films["boxes"]]), features_folder(self.folder), films["benchmark"].name
        new = sum(int(views[g.any(axis=0)].sum()) * view_bytes(e, d, b)
                  for e, d, g, b in zip(reader.experts, reader.depths, gaps, reader.bases, strict=True))
        try_folder(root)
        limit = cache_limit() if self.limit is None else self.limit
        held = sum(p.stat().st_size for p in root.glob("*/*.safetensors")) if limit is not None else 0
        fix = "use fewer views, query layers or experts, name another folder, or see `medbridge cache clean`"
        if limit is not None and held + new > limit:
            raise CacheError(f"{root}: the features of {name!r} take {new / 1e9:.2f} GB beside {held / 1e9:.2f} GB that are "
                             f"there, beyond the limit of {limit / 1e9:.2f} GB (MEDBRIDGE_CACHE_LIMIT); raise it, or {fix}")
        free = shutil.disk_usage(root).free
        if new > 0.98 * free:
            raise CacheError(f"{root}: the features of {name!r} take {new / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB "
                             f"left; {fix}")


def _to_gpu(experts: Iterable[Expert]) -> None:
    if torch.cuda.is_available():
        for expert in experts:
            expert.to("cuda")


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

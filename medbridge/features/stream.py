"""Features that are made when a pass asks for them: the frozen towers run inside the training loop, and nothing is written.

Threads decode a step's films and cut the views that it draws, while the step before is computed. Then the towers run over all of
them at once, on their device, and their maps are made as compact as in the cache. Training draws new random windows in every
epoch, where the cache has a pool of them: Focal Sampling as it is meant.

What is asked for again and again without chance is held in memory: every film's summaries, and the sliding windows of the films
that judge each epoch, as far as they fit (:class:`medbridge.features.films.Kept`). So towers look at a validation film once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from medbridge.errors import CacheError
from medbridge.features.batch import Batch, encode_films
from medbridge.features.encode import Views, encode_views, film_groups, film_views, towers_side_by_side
from medbridge.features.films import FilmFeatures, FrozenFilms, Reader, drawn_views, pool_views
from medbridge.focal import random_boxes, relative_boxes
from medbridge.support.processes import gather_rows, ranks
from medbridge.support.threads import few_cores

FILMS_AT_ONCE = 4
"""Films that go through the towers together on one core of a processor; on a GPU a whole batch does."""


@dataclass(kw_only=True)
class StreamedFilms(FrozenFilms):
    """Films whose features are made when they are asked for.

    ``films[i]`` decodes nothing yet: views are drawn from it, :func:`medbridge.features.batch.collate` decodes the films of a
    batch, and its ``to`` runs the towers.

    Attributes:
        reader: whose experts, in which bases.
        fresh: draw new random windows whenever there is chance; False: from the pool of ``boxes``, as the cache does.
        threads: that decode, one at least.
        progress: show a bar for the pass that makes the summaries.
    """

    reader: Reader
    fresh: bool = False
    threads: int = 1
    progress: bool = True
    _pooled: dict[tuple[str, int], np.ndarray] = field(default_factory=dict, repr=False)

    def __getitem__(self, i: int) -> FilmViews:
        return FilmViews(self, i, self.boxes[i])

    @property
    def kinds(self) -> list[tuple[int, str]]:
        """The kinds of views that its experts take."""
        return sorted({e.view_kind for e in self.reader.experts})

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Its threads, which stay from step to step."""
        return ThreadPoolExecutor(max(1, self.threads), "medbridge-decode", few_cores)

    def pooled(self, key: str, expert: int, views: str = "whole") -> np.ndarray:
        if not self._pooled:
            self._pooled = self._summaries()
        if (key, expert) not in self._pooled:
            raise CacheError(f"expert {expert} gives no {key!r}; ask for its 'summary'")
        rows = self._pooled[key, expert]
        return rows[:, : rows.shape[1] // 3] if views == "whole" else rows

    def _summaries(self) -> dict[tuple[str, int], np.ndarray]:
        """One pass over all films, of which each process makes its share; all of them must call it."""
        rank, world = ranks()
        rows, boxes = range(rank, len(self), world), [b[:n] for b, n in zip(self.boxes, self.fixed, strict=True)]
        made = {(key, k): np.empty((len(rows), 3 * size), np.float32) for k, e in enumerate(self.reader.experts)
                for key, size in {"summary": e.image_dim, "embed": e.text_dim * e.aligned}.items() if size}

        def encode(group: list[Views]) -> None:
            for k, expert in enumerate(self.reader.experts):
                views = [of_film[expert.view_kind] for _, of_film in group]
                out = encode_views(expert, torch.cat(views), [])
                for key, x in {"summary": out.summary, "embed": out.embed}.items():
                    if (key, k) in made:
                        for (i, _), own in zip(group, x.split([len(v) for v in views]), strict=True):
                            made[key, k][i // world] = pool_views(own, "all").numpy()

        with tqdm(total=len(rows), desc=f"summaries of {self.benchmark.name}", unit="film", leave=False,
                  disable=not self.progress or rank > 0) as bar, towers_side_by_side(self.reader.experts) as sides:
            for group in film_groups(self.benchmark, boxes, self.kinds, rows, self.threads):
                sides.start(partial(encode, group))
                sides.wait(left=sides.count - 1)
                bar.update(len(group))
            sides.wait()
        return {key: gather_rows(rows) for key, rows in made.items()}


@dataclass
class FilmViews:
    """Views of film ``i`` that are to be looked at; nothing is decoded yet.

    Attributes:
        boxes: float32 ``(V, 4)`` in pixels.
        chance: whether they were drawn at random: such views are not seen again.
    """

    films: StreamedFilms
    i: int
    boxes: np.ndarray
    chance: bool = False

    def draw(self, rng: np.random.Generator | None = None, most: int | None = None) -> FilmViews | FilmFeatures:
        """As :meth:`medbridge.features.films.FilmFeatures.draw`."""
        films, fixed = self.films, self.films.fixed[self.i]
        if rng is None and films.kept is not None and films.keys[self.i] in films.kept:
            return films.kept[films.keys[self.i]]
        if rng is not None and films.fresh:
            count = fixed - 1 if most is None else min(most, fixed - 1)
            random = random_boxes(*films.sizes[self.i], count, films.reader.sampler.crop, rng)
            return replace(self, boxes=np.concatenate([self.boxes[:1], random]), chance=True)
        return replace(self, boxes=self.boxes[drawn_views(len(self.boxes), fixed, rng, most)], chance=rng is not None)

    def cut(self) -> dict[tuple[int, str], Tensor]:
        """Decode the film and cut its views, by kind."""
        return film_views(partial(self.films.benchmark.read, self.i), self.boxes, self.films.kinds)

    def decode(self, films: Sequence[FilmViews | FilmFeatures], collate: Callable[[list[FilmFeatures]], Batch]) -> DecodedBatch:
        """Begin to decode a batch's films, but for those that are held in memory; ``collate`` makes a batch of their features."""
        return DecodedBatch(films, [self.films.pool.submit(f.cut) for f in films if isinstance(f, FilmViews)], collate)


@dataclass
class DecodedBatch:
    """Films of one batch that are being decoded; ``views``: of those that are no features yet, in their order."""

    films: Sequence[FilmViews | FilmFeatures]
    views: list[Future[dict[tuple[int, str], Tensor]]]
    collate: Callable[[list[FilmFeatures]], Batch]

    def to(self, device: torch.device | str) -> Batch:
        """Run the frozen towers, where they are; the batch on ``device``."""
        todo = [film for film in self.films if isinstance(film, FilmViews)]
        cut = [(relative_boxes(film.boxes, *film.films.sizes[film.i]), views.result())
               for film, views in zip(todo, self.views, strict=True)]
        reader, made = todo[0].films.reader, [None] * len(todo)
        size = FILMS_AT_ONCE if reader.experts[0].mean.device.type == "cpu" else len(todo)

        def encode(part: slice) -> None:
            made[part] = encode_films(reader, cut[part], keep_device=True)

        # the towers have a precision of their own
        with torch.autocast(torch.device(device).type, enabled=False), towers_side_by_side(reader.experts) as sides:
            for start in range(0, len(todo), size):
                sides.start(partial(encode, slice(start, start + size)))
            sides.wait()
        self._keep(todo, made)
        features = iter(made)
        films = [next(features) if isinstance(film, FilmViews) else film.to(device) for film in self.films]
        return self.collate(films).to(device)

    def _keep(self, films: list[FilmViews], made: list[FilmFeatures]) -> None:
        """Hold the features in memory: of all films of a batch or of none, so that the batch is the same one next time."""
        kept, size = films[0].films.kept, sum(features.nbytes for features in made)
        if kept is None or size > kept.left or any(film.chance for film in films):
            return
        kept.left -= size
        for film, features in zip(films, made, strict=True):
            kept[film.films.keys[film.i]] = features.to("cpu")

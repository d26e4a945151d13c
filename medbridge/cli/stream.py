"""Scores of a stream of film files, without the cache: as fast as the experts are, in the memory of a few films. [ours]"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medbridge.data.images import read_film
from medbridge.errors import ImageError
from medbridge.features.batch import collate
from medbridge.features.cache import FilmFeatures
from medbridge.features.encode import encode_views, film_views, view_groups
from medbridge.focal import relative_boxes
from medbridge.model import MedBridge
from medbridge.support.threads import ahead, decode_threads, prefetch

__all__ = ["FILM_SUFFIXES", "film_paths", "predict_files"]

FILM_SUFFIXES = (".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")


@dataclass
class _Film:
    path: Path
    boxes: np.ndarray | None = None
    shape: tuple[int, int] = (0, 0)
    error: ImageError | None = None


def film_paths(names: Iterable[str | Path]) -> list[Path]:
    """Files as they are named; a folder stands for all film files below it, by name.

    Raises:
        ImageError: a folder without a film.
    """
    found: list[Path] = []
    for name in map(Path, names):
        if not name.is_dir():
            found.append(name)
            continue
        inside = sorted(p for p in name.rglob("*") if p.suffix.lower() in FILM_SUFFIXES and p.is_file())
        if not inside:
            raise ImageError(f"{name}: a folder without a film ({', '.join(FILM_SUFFIXES)}); name another one")
        found += inside
    return found


def predict_files(
    model: MedBridge, paths: Iterable[str | Path], workers: int | None = None, least: int = 64,
) -> Iterator[tuple[Path, np.ndarray | ImageError]]:
    """Score film files one after the other. Threads decode and cut ahead of the experts, which get ``least`` views at a time.

    Args:
        model: the model.
        paths: film files.
        workers: threads that decode, as in :func:`medbridge.features.cache.compute_features`.
        least: views of a pass.

    Yields:
        In the order of ``paths``: the path with its probabilities ``(C,)`` float64, or with the error that says why it has none.
    """
    kinds = {e.view_kind for e in model.experts}

    def cut(path: str | Path) -> tuple[_Film, dict]:
        try:
            pixels = read_film(path)
        except ImageError as error:  # one bad film of a thousand is reported, not the end
            return _Film(Path(path), error=error), {}
        boxes = model.sampler.inference_boxes(*pixels.shape)
        return _Film(Path(path), boxes, pixels.shape), film_views(lambda: pixels, boxes, kinds)

    threads = decode_threads(workers)
    groups = view_groups(ahead(cut, paths, threads), least)
    model.eval()
    for group in prefetch(groups) if threads else groups:
        good = [(film, views) for film, views in group if film.error is None]
        scores = iter(_scores(model, good) if good else [])
        for film, _ in group:
            yield film.path, next(scores) if film.error is None else film.error


def _scores(model: MedBridge, group: list[tuple[_Film, dict]]) -> np.ndarray:
    outs = [encode_views(e, torch.cat([views[e.view_kind] for _, views in group]), depths, keep_device=True)
            for e, depths in zip(model.experts, model.depths, strict=True)]
    films, start = [], 0
    for film, _ in group:
        rows = slice(start, start + len(film.boxes))
        start = rows.stop
        maps = [[o.maps[d][rows] for d in depths] for o, depths in zip(outs, model.depths, strict=True)]
        boxes = torch.from_numpy(relative_boxes(film.boxes, *film.shape)).to(model.device)
        films.append(FilmFeatures(maps, [o.summary[rows] for o in outs], boxes, len(film.boxes)))
    with torch.inference_mode():
        return model(collate(films).to(model.device)).logits.sigmoid().double().cpu().numpy()

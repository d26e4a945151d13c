"""``medbridge predict``: probabilities of film files, as fast as the experts are, in the memory of a few films."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from medbridge.cli.options import load_model
from medbridge.data.copies import are_copies, film_print
from medbridge.data.files import first_five
from medbridge.data.images import probe_film, read_film
from medbridge.data.walk import FILM_SUFFIXES, FolderFiles, find_films
from medbridge.errors import ImageError, MedBridgeError
from medbridge.features.batch import collate, encode_films
from medbridge.features.encode import film_views, groups_ahead
from medbridge.focal import relative_boxes
from medbridge.model import MedBridge
from medbridge.support.processes import ranks
from medbridge.support.threads import decode_threads


def run(args: argparse.Namespace) -> None:
    if ranks()[1] > 1:
        raise MedBridgeError("predict runs in one process; start it once, or once for each folder of films")
    found = film_paths(args.images)
    paths, faults, count = found.films, found.faults, len(found.films) + len(found.faults)
    if found.others:
        print(f"note: {len(found.others)} files are no films and were left out: {first_five(found.others)}", file=sys.stderr)
    model = load_model(args.adapter, args.weights, args.precision)
    rows, prints, width = [], {}, max(len("image"), *(len(str(p)) for p in paths))
    if not args.json:
        print("  ".join([f"{'image':<{width}}", *model.labels]))
    try:
        for path, row in predict_files(model, paths, args.workers, prints=prints):
            if isinstance(row, ImageError):
                faults.append(str(row))
            elif args.json:
                scores = dict(zip(model.labels, (round(float(p), 6) for p in row), strict=True))
                rows.append({"image": str(path), "probabilities": scores})
            else:
                scores = (f"{p:>{len(label)}.3f}" for p, label in zip(row, model.labels, strict=True))
                print("  ".join([f"{path!s:<{width}}", *scores]))
    finally:  # stopped half-way, it is a whole list of what was scored
        if args.json:
            print(json.dumps(rows, indent=2))
    known = are_copies(list(prints.values()), model.trained_films)
    if known.any():
        which = first_five([str(path) for path, is_known in zip(prints, known, strict=True) if is_known])
        warnings.warn(f"{args.adapter} was trained on {known.sum()} of {len(known)} films, or on copies of them; their scores "
                      f"say nothing of other films: {which}", stacklevel=2)
    if faults:
        raise MedBridgeError(f"{len(faults)} of {count} films could not be read:\n" + "\n".join(faults))


def film_paths(names: Iterable[str | Path]) -> FolderFiles:
    """Files as they are named, and what lies below folders. ImageError for a folder without a film, or a file that is none."""
    found = FolderFiles()
    for name in names:
        if not os.path.isdir(name):  # unlike Path.is_dir, no error below a folder that cannot be opened
            probe_film(name)  # a mistyped name stops the command before a model is loaded; a folder may hold a bad film
            found.films.append(Path(name))
            continue
        inside = find_films(name)
        if not inside.films:
            raise ImageError("\n".join([f"{name}: a folder without a film ({', '.join(FILM_SUFFIXES)}, or a file without an "
                                        f"ending that is one); name another one", *inside.faults]))
        for part, more in vars(inside).items():
            getattr(found, part).extend(more)
    return found


def predict_files(
    model: MedBridge, paths: Iterable[str | Path], workers: int | None = None, least: int = 64,
    prints: dict[str | Path, bytes] | None = None,
) -> Iterator[tuple[Path, np.ndarray | ImageError]]:
    """Score film files one after the other, without the cache: ``workers`` threads decode and cut ahead of the experts, which
    get ``least`` views at a time; ``prints`` takes the print of each film (:mod:`medbridge.data.copies`).

    Yields, in the order of ``paths``, the path with its probabilities ``(C,)`` float64, or with the error that says why not.
    """
    kinds = {e.view_kind for e in model.experts}

    def cut(path: str | Path) -> tuple[tuple, dict]:
        try:
            pixels = read_film(path)
        except ImageError as error:  # one bad film of a thousand is reported, not the end
            return (path, error), {}
        if prints is not None:
            prints[path] = film_print(pixels)
        boxes = model.sampler.inference_boxes(*pixels.shape)
        return (path, relative_boxes(boxes, *pixels.shape)), film_views(lambda: pixels, boxes, kinds)

    model.eval()
    for group in groups_ahead(cut, paths, decode_threads(workers), least):
        good, scores = [(boxes, views) for (_, boxes), views in group if views], iter(())
        if good:
            with torch.inference_mode():
                output = model(collate(encode_films(model, good, keep_device=True)).to(model.device))
            scores = iter(output.logits.sigmoid().double().cpu().numpy())
        for (path, error), views in group:
            yield Path(path), next(scores) if views else error

"""Do the queries look where the finding is? Pointing game and IoU of attention maps against boxes, beside chance. [ours]

Pointing game (Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018, section 4.2): a hit where the maximum
of the map lies in a box. IoU: of the union of the boxes with the cells whose value is at least a share of the maximum.

Chance is what the very same map scores when it is laid over the film at random, all shifts being equally likely and what leaves
at one edge coming in at the other: for the pointing game that is the boxes' share of the film, for IoU the mean over all
shifts. A map is only worth looking at where it beats that; and it says where information was read, not why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from medbridge.benchmarks import Benchmark
from medbridge.bootstrap import EvaluationError, bootstrap_means, group_codes, percentiles
from medbridge.explain import explain
from medbridge.model import MedBridge

__all__ = ["box_mask", "film_scores", "localisation_table", "localise_film", "score_maps"]


def box_mask(boxes: np.ndarray, film: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Cells ``(rows, columns)`` of a map whose centre lies in any of the boxes ``(M, 4)``, pixels of a film ``(H, W)``: bool.

    A box smaller than a cell takes the cell that holds its centre.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    out = np.zeros(cells, dtype=bool)
    for x0, y0, x1, y1 in boxes:
        inside = []
        for low, high, size, count in ((y0, y1, film[0], cells[0]), (x0, x1, film[1], cells[1])):
            centre = (np.arange(count) + 0.5) * size / count
            held = (centre >= low) & (centre < high)
            if not held.any():
                held[min(max(int((low + high) / 2 * count / size), 0), count - 1)] = True
            inside.append(held)
        out |= inside[0][:, None] & inside[1][None, :]
    return out


def localise_film(heat: np.ndarray, boxes: np.ndarray, film: tuple[int, int], share: float = 0.5) -> dict[str, float]:
    """One map ``(rows, columns)`` against the boxes ``(M, 4)`` of one label on a film ``(H, W)``.

    Args:
        share: a cell counts as told where the map is at least this share of its maximum.

    Returns:
        hit (0 or 1; several maxima share), hit_chance, iou, iou_chance.

    Raises:
        EvaluationError: no box, a share outside (0, 1], or a map that is not finite.
    """
    if not 0 < share <= 1:
        raise EvaluationError(f"share={share}; give a share of the maximum in (0, 1]")
    if len(boxes) == 0 or not np.isfinite(heat).all():
        raise EvaluationError("a map must be finite and needs at least one box to be compared with")
    truth = box_mask(boxes, film, heat.shape)
    told = heat >= share * heat.max()
    # intersections for all shifts at once: a circular correlation
    both = np.fft.irfft2(np.fft.rfft2(truth) * np.conj(np.fft.rfft2(told)), s=heat.shape).round()
    ious = both / (truth.sum() + told.sum() - both)
    return {"hit": float(truth[heat == heat.max()].mean()), "hit_chance": float(truth.mean()), "iou": float(ious[0, 0]),
            "iou_chance": float(ious.mean())}


def localisation_table(
    model: MedBridge, benchmark: Benchmark, labels: Sequence[str] | None = None, share: float = 0.5, n_boot: int = 1000,
    seed: int = 0, level: float = 0.95, progress: bool = True,
) -> pd.DataFrame:
    """Pointing game and IoU of a model's query attention on all films that have boxes.

    Args:
        model: trained. benchmark: with ``boxes``. labels: default those of the model that have boxes.
        share, n_boot, seed, level: as in :func:`localise_film` and :func:`medbridge.evaluate.evaluate`.

    Returns:
        One row a label: label, films, patients, hit, hit_lo, hit_hi, hit_chance, iou, iou_lo, iou_hi, iou_chance, and the
        intervals of hit and IoU minus chance (hit_gain_lo ...), all over patients.

    Raises:
        EvaluationError: a benchmark without boxes of these labels.
    """
    wanted = tuple(model.labels if labels is None else labels)
    return score_maps(lambda film: explain(model, film).heatmap, benchmark, wanted, share, n_boot, seed, level, progress)


def score_maps(
    maps: Callable[[np.ndarray], Callable[[str], np.ndarray]], benchmark: Benchmark, labels: Sequence[str], share: float = 0.5,
    n_boot: int = 1000, seed: int = 0, level: float = 0.95, progress: bool = True,
) -> pd.DataFrame:
    """Pointing game and IoU of maps of any source on all films that have boxes, by label.

    Args:
        maps, benchmark, labels, share, progress: as for :func:`film_scores`.
        The others, and what is returned and raised: as for :func:`localisation_table`.
    """
    return _summary(film_scores(maps, benchmark, labels, share, progress), labels, n_boot, seed, level)


def film_scores(
    maps: Callable[[np.ndarray], Callable[[str], np.ndarray]], benchmark: Benchmark, labels: Sequence[str], share: float = 0.5,
    progress: bool = True,
) -> pd.DataFrame:
    """The same, one row a film and label: two sources of maps can so be compared film by film.

    Args:
        maps: a film ``(H, W)`` in [0, 1] -> (label -> map ``(rows, columns)``); called once a film.
        benchmark, labels, share: as for :func:`localisation_table`.

    Returns:
        label, image, patient, and what :func:`localise_film` returns.

    Raises:
        EvaluationError: a benchmark without boxes of these labels.
    """
    boxes, wanted = benchmark.boxes, tuple(labels)
    if boxes is None or not boxes["label"].isin(wanted).any():
        raise EvaluationError(f"benchmark {benchmark.name!r} has no boxes of {', '.join(wanted)}; choose one with boxes")
    boxes = boxes[boxes["label"].isin(wanted)]
    rows = {image: i for i, image in enumerate(benchmark.image_ids())}
    found = []
    groups = boxes.groupby("image", sort=False)
    for image, part in tqdm(groups, f"maps on {benchmark.name}", unit="film", disable=not progress):
        if image not in rows:
            continue
        film = benchmark.read(rows[image])
        heat = maps(film)
        for label, own in part.groupby("label", sort=False):
            corners = own[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float64)
            found.append({"label": label, "image": image, "patient": benchmark.table["patient_id"].iloc[rows[image]],
                          **localise_film(heat(label), corners, film.shape, share)})
    return pd.DataFrame(found)


def _summary(films: pd.DataFrame, labels: Sequence[str], n_boot: int, seed: int, level: float) -> pd.DataFrame:
    rows = []
    for label in labels:
        own = films[films["label"] == label]
        if len(own) == 0:
            continue
        codes = group_codes(own["patient"], len(own))
        row = {"label": label, "films": len(own), "patients": int(codes.max()) + 1}
        for name in ("hit", "iou"):
            gain = own[name] - own[f"{name}_chance"]
            draws = bootstrap_means(np.stack([own[name], gain], axis=1), codes, n_boot, seed)
            lo, hi = percentiles(draws, level)
            row |= {name: own[name].mean(), f"{name}_lo": lo[0], f"{name}_hi": hi[0],
                    f"{name}_chance": own[f"{name}_chance"].mean(), f"{name}_gain_lo": lo[1], f"{name}_gain_hi": hi[1]}
        rows.append(row)
    return pd.DataFrame(rows)

"""Do the queries look where the finding is? Pointing game and IoU of attention maps against boxes, beside chance. [ours]

Pointing game (Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018, section 4.2): a hit where the maximum
of the map lies in a box. IoU: of the union of the boxes with the cells whose value is at least a share of the maximum.

Chance is what the very same map scores when it is laid over the film at random, all shifts being equally likely and what leaves
at one edge coming in at the other: for the pointing game that is the boxes' share of the film, for IoU the mean over all
shifts. A map is only worth looking at where it beats that; and it says where information was read, not why.

A heart is always in the same place, and a map that points there on every film beats that chance without having looked at any.
So there is a stricter comparison: what the maps of the same label on other patients' films score on this film's boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from medbridge.data import Benchmark
from medbridge.explain.attention import explain
from medbridge.metrics.bootstrap import EvaluationError, bootstrap_means, group_codes, percentiles
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


def _against_others(found: list[dict], share: float, others: int, seed: int) -> None:
    """Add hit_other and iou_other to each: mean over maps of its label from up to ``others`` films of other patients."""
    rng = np.random.default_rng(seed)
    for own in found:
        pool = [f for f in found if f["label"] == own["label"] and f["patient"] != own["patient"]]
        drawn = [pool[i] for i in rng.permutation(len(pool))[:others]]
        truth, scores = box_mask(own["boxes"], own["film"], own["heat"].shape), []
        for other in drawn:
            heat = other["heat"]
            if heat.shape != truth.shape:  # films of another shape: the map is stretched over this one
                heat = F.interpolate(torch.from_numpy(heat)[None, None], truth.shape, mode="bilinear")[0, 0].numpy()
            told = heat >= share * heat.max()
            scores.append((truth[heat == heat.max()].mean(), (truth & told).sum() / (truth | told).sum()))
        own["hit_other"], own["iou_other"] = np.mean(scores, axis=0) if scores else (np.nan, np.nan)


def localisation_table(
    model: MedBridge, benchmark: Benchmark, labels: Sequence[str] | None = None, share: float = 0.5, others: int = 20,
    n_boot: int = 1000, seed: int = 0, level: float = 0.95, progress: bool = True,
) -> pd.DataFrame:
    """Pointing game and IoU of a model's query attention on all films that have boxes.

    Args:
        model: trained. benchmark: with ``boxes``. labels: default those of the model that have boxes.
        others: films of other patients whose maps are laid over each film's boxes.
        share, n_boot, seed, level: as in :func:`localise_film` and :func:`medbridge.metrics.evaluate.evaluate`.

    Returns:
        One row a label: label, films, patients, and for ``hit`` and ``iou``: the mean with its interval (hit, hit_lo, hit_hi);
        what chance scores (hit_chance) and the interval of the gain over it (hit_gain_lo, hit_gain_hi); what other patients'
        maps score (hit_other) and the interval of the gain over them (hit_other_gain_lo ...), NaN for a label of one patient.
        All intervals are over patients; where other patients' maps are used they are taken as given.

    Raises:
        EvaluationError: a benchmark without boxes of these labels, or a box whose centre is outside its film.
    """
    wanted = tuple(model.labels if labels is None else labels)
    return score_maps(lambda film: explain(model, film).heatmap, benchmark, wanted, share, others, n_boot, seed, level,
                      progress)


def score_maps(
    maps: Callable[[np.ndarray], Callable[[str], np.ndarray]], benchmark: Benchmark, labels: Sequence[str], share: float = 0.5,
    others: int = 20, n_boot: int = 1000, seed: int = 0, level: float = 0.95, progress: bool = True,
) -> pd.DataFrame:
    """Pointing game and IoU of maps of any source on all films that have boxes, by label.

    Args:
        maps, benchmark, labels, share, others, progress: as for :func:`film_scores`.
        The rest, and what is returned and raised: as for :func:`localisation_table`.
    """
    return _summary(film_scores(maps, benchmark, labels, share, others, seed, progress), labels, n_boot, seed, level)


def film_scores(
    maps: Callable[[np.ndarray], Callable[[str], np.ndarray]], benchmark: Benchmark, labels: Sequence[str], share: float = 0.5,
    others: int = 20, seed: int = 0, progress: bool = True,
) -> pd.DataFrame:
    """The same, one row a film and label: two sources of maps can so be compared film by film.

    Args:
        maps: a film ``(H, W)`` in [0, 1] -> (label -> map ``(rows, columns)``); called once a film.
        benchmark, labels, share, others, seed: as for :func:`localisation_table`.

    Returns:
        label, image, patient, what :func:`localise_film` returns, hit_other and iou_other.

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
        heat = lru_cache(maps(film))
        for label, own in part.groupby("label", sort=False):
            corners = own[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float64)
            _check_inside(corners, film.shape, f"{benchmark.root / image}: the box of {label}")
            found.append({"label": label, "image": image, "patient": benchmark.table["patient_id"].iloc[rows[image]],
                          "heat": heat(label), "boxes": corners, "film": film.shape,
                          **localise_film(heat(label), corners, film.shape, share)})
    _against_others(found, share, others, seed)
    return pd.DataFrame(found).drop(columns=["heat", "boxes", "film"], errors="ignore")


def _check_inside(boxes: np.ndarray, film: tuple[int, int], what: str) -> None:
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    if ((centre < 0) | (centre >= film[::-1])).any():
        raise EvaluationError(f"{what} lies outside the film of {film[1]} x {film[0]} pixels; boxes must be in pixels of the "
                              f"film that is read: where films were resized, scale their boxes too")


def _summary(films: pd.DataFrame, labels: Sequence[str], n_boot: int, seed: int, level: float) -> pd.DataFrame:
    rows = []
    for label in labels:
        own = films[films["label"] == label]
        if len(own) == 0:
            continue
        codes = group_codes(own["patient"], len(own))
        row = {"label": label, "films": len(own), "patients": int(codes.max()) + 1}
        for name in ("hit", "iou"):
            gains = [own[name] - own[f"{name}_{control}"] for control in ("chance", "other")]
            lo, hi = percentiles(bootstrap_means(np.stack([own[name], *gains], axis=1), codes, n_boot, seed), level)
            row |= {name: own[name].mean(), f"{name}_lo": lo[0], f"{name}_hi": hi[0],
                    f"{name}_chance": own[f"{name}_chance"].mean(), f"{name}_gain_lo": lo[1], f"{name}_gain_hi": hi[1],
                    f"{name}_other": own[f"{name}_other"].mean(), f"{name}_other_gain_lo": lo[2],
                    f"{name}_other_gain_hi": hi[2]}
        rows.append(row)
    return pd.DataFrame(rows)

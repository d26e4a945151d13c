"""Does a map point at the finding? Pointing game and IoU against boxes, over all films that have some, beside chance. [ours]

Pointing game (Zhang et al., IJCV 2018, section 4.2): a hit where the map's maximum lies in a box. IoU: of the boxes' union with
the cells of at least a share of the maximum. Chance: the mean over all circular shifts of the map (for hits the boxes' share).
A map that always points at the heart beats chance without having looked: the stricter comparison is other patients' maps.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from medbridge.data import Benchmark
from medbridge.errors import EvaluationError
from medbridge.explain.attention import explain
from medbridge.metrics.bootstrap import label_means
from medbridge.model import MedBridge

Maps = Callable[[np.ndarray], Callable[[str], np.ndarray]]  # a film (H, W) in [0, 1] -> (label -> map (rows, columns))


def box_mask(boxes: np.ndarray, film: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Cells ``(rows, columns)`` of a map whose centre lies in any of the boxes ``(M, 4)``, pixels of a film ``(H, W)``: bool."""
    out = np.zeros(cells, dtype=bool)
    for x0, y0, x1, y1 in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        inside = []
        for low, high, size, count in ((y0, y1, film[0], cells[0]), (x0, x1, film[1], cells[1])):
            centre = (np.arange(count) + 0.5) * size / count
            held = (centre >= low) & (centre < high)
            if not held.any():  # a box smaller than a cell takes the cell that holds its centre
                held[min(max(int((low + high) / 2 * count / size), 0), count - 1)] = True
            inside.append(held)
        out |= inside[0][:, None] & inside[1][None, :]
    return out


def localise_film(heat: np.ndarray, boxes: np.ndarray, film: tuple[int, int], share: float = 0.5) -> dict[str, float]:
    """Hit, hit_chance, iou and iou_chance of one map ``(rows, columns)`` for a label's boxes ``(M, 4)`` on a film ``(H, W)``.

    A cell is predicted positive where the map is at least ``share`` of its maximum; several maxima share a hit.
    """
    if not 0 < share <= 1:
        raise EvaluationError(f"share={share}; give a share of the maximum in (0, 1]")
    if len(boxes) == 0 or not np.isfinite(heat).all():
        raise EvaluationError("a map must be finite and needs at least one box to be compared with")
    truth = box_mask(boxes, film, heat.shape)
    predicted = heat >= share * heat.max()
    # intersections for all shifts at once: a circular correlation
    both = np.fft.irfft2(np.fft.rfft2(truth) * np.conj(np.fft.rfft2(predicted)), s=heat.shape).round()
    ious = both / (truth.sum() + predicted.sum() - both)
    return {"hit": float(truth[heat == heat.max()].mean()), "hit_chance": float(truth.mean()),
            "iou": float(ious[0, 0]), "iou_chance": float(ious.mean())}


def film_scores(maps: Maps, benchmark: Benchmark, labels: Sequence[str], seed: int = 0, progress: bool = True) -> pd.DataFrame:
    """Scores of maps of any source, one row per film and label, so that two sources can be compared film by film.

    Columns: label, image, patient, those of :func:`localise_film`, and hit_other and iou_other: the mean over up to 20 maps of
    the label from other patients' films; NaN where no other patient has the label.
    """
    boxes = benchmark.boxes
    if boxes is None or not boxes["label"].isin(labels).any():
        raise EvaluationError(f"benchmark {benchmark.name!r} has no boxes of {', '.join(labels)}; choose one with boxes")
    row_of = {image: i for i, image in enumerate(benchmark.image_ids())}
    boxes = boxes[boxes["label"].isin(labels) & boxes["image"].isin(row_of)]
    rows = []
    for image, part in tqdm(boxes.groupby("image", sort=False), f"maps on {benchmark.name}", unit="film", disable=not progress):
        film = benchmark.read(row_of[image])
        heat_of = maps(film)
        for label, own in part.groupby("label", sort=False):
            corners = own[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float64)
            centre = (corners[:, :2] + corners[:, 2:]) / 2
            if ((centre < 0) | (centre >= film.shape[::-1])).any():
                raise EvaluationError(
                    f"{benchmark.root / image}: the box of {label} lies outside the film of {film.shape[1]} x {film.shape[0]} "
                    f"pixels; boxes must be in pixels of the film that is read: where films were resized, scale their boxes too")
            heat = heat_of(label)
            rows.append({"label": label, "image": image, "patient": benchmark.table["patient_id"].iloc[row_of[image]],
                         **localise_film(heat, corners, film.shape),
                         "heat": heat, "truth": box_mask(corners, film.shape, heat.shape)})
    rng = np.random.default_rng(seed)
    for row in rows:
        pool = [other["heat"] for other in rows if other["label"] == row["label"] and other["patient"] != row["patient"]]
        scores = [_score(pool[i], row["truth"]) for i in rng.permutation(len(pool))[:20]]
        row["hit_other"], row["iou_other"] = np.mean(scores, axis=0) if scores else (np.nan, np.nan)
    return pd.DataFrame(rows).drop(columns=["heat", "truth"], errors="ignore")


def _score(heat: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    if heat.shape != truth.shape:  # films of another shape: the map is stretched over this one
        heat = F.interpolate(torch.from_numpy(heat)[None, None], truth.shape, mode="bilinear")[0, 0].numpy()
    predicted = heat >= 0.5 * heat.max()
    return truth[heat == heat.max()].mean(), (truth & predicted).sum() / (truth | predicted).sum()


def localisation_table(
    source: MedBridge | Maps, benchmark: Benchmark, labels: Sequence[str] | None = None, n_boot: int = 1000, seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Pointing game and IoU of a trained model's query attention, or of maps of any source, on all films that have boxes.

    One row per label that has boxes (default: of the model's): label, films, patients, and for ``hit`` and ``iou`` the mean
    (hit), that of chance (hit_chance) and of other patients' maps (hit_other; NaN for a label of one patient), the gains over
    them (hit_gain, hit_other_gain), and intervals over patients of mean and gains (hit_lo, hit_hi ...).
    """
    maps = (lambda film: explain(source, film).heatmap) if isinstance(source, MedBridge) else source
    labels = tuple(source.labels if labels is None else labels)
    films = film_scores(maps, benchmark, labels, seed, progress)
    for name in ("hit", "iou"):
        films[f"{name}_gain"] = films[name] - films[f"{name}_chance"]
        films[f"{name}_other_gain"] = films[name] - films[f"{name}_other"]
    columns = [name + of for name in ("hit", "iou") for of in ("", "_gain", "_other_gain")]
    return label_means(films, labels, columns, n_boot, seed)

"""Does a score need what the queries looked at? Hide the brightest cells of a map, and other cells for comparison. [ours]

Attention shows where information was read; only a change of the film shows what a score depends on (Samek et al., "Evaluating
the visualization of what a deep neural network has learned", 2017: hide regions in the order of a heat map). What a hidden cell
is filled with is a choice that the result depends on: 'mean' takes the film's mean grey value, which is denser than a lung;
'blur' keeps what a grid of 16 x 16 cells would see, so that large findings stay. Hiding anything at all moves a score, so each
film is compared with itself, hidden elsewhere:

- *moved*: the same cells at a random place, what leaves at one edge coming in at the other: same number, same shapes, same edges;
- *other*: the brightest cells of the same label's map on another patient's film: cells where such findings usually are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from medbridge.data import Benchmark
from medbridge.explain.attention import explain
from medbridge.features.batch import collate
from medbridge.metrics.bootstrap import EvaluationError, bootstrap_means, group_codes, percentiles
from medbridge.model import MedBridge
from medbridge.predict import film_features

__all__ = ["FILLS", "film_logits", "hide_cells", "move_cells", "occlusion_table", "top_cells"]

FILLS = ("blur", "mean")


def top_cells(heat: np.ndarray, share: float = 0.1) -> np.ndarray:
    """The brightest cells of a map ``(rows, columns)``, as many as ``share`` of all (at least one): bool, same shape.

    Raises:
        EvaluationError: a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise EvaluationError(f"share={share}; give a share of the map's cells in (0, 1)")
    out = np.zeros(heat.size, dtype=bool)
    out[np.argsort(-heat, axis=None, kind="stable")[: max(1, round(share * heat.size))]] = True
    return out.reshape(heat.shape)


def move_cells(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same cells at a random place: a circular shift, all shifts but none at all being equally likely."""
    step = int(rng.integers(1, cells.size))
    return np.roll(cells, divmod(step, cells.shape[1]), axis=(0, 1))


def hide_cells(film: np.ndarray, cells: np.ndarray, fill: str = "blur") -> np.ndarray:
    """The film ``(H, W)`` without what is in the cells ``(rows, columns)`` that are True; float32.

    Raises:
        EvaluationError: a fill other than 'blur' and 'mean'.
    """
    if fill not in FILLS:
        raise EvaluationError(f"fill={fill!r}; choose from {', '.join(FILLS)}")
    (height, width), (rows, columns) = film.shape, cells.shape
    at = np.ix_(np.arange(height) * rows // height, np.arange(width) * columns // width)
    if fill == "mean":
        filled = np.float32(film.mean())
    else:
        coarse = F.interpolate(torch.from_numpy(film)[None, None].float(), (16, 16), mode="area")
        filled = F.interpolate(coarse, film.shape, mode="bilinear")[0, 0].numpy()
    return np.where(cells[at], filled, film).astype(np.float32)


def film_logits(model: MedBridge, films: Sequence[np.ndarray]) -> np.ndarray:
    """The mixture's logits of decoded films, each ``(H, W)`` in [0, 1]: float64 ``(n, C)``."""
    model.eval()
    with torch.inference_mode():
        features = [film_features(model, film)[0] for film in films]
        return model(collate(features).to(model.device)).logits.double().cpu().numpy()


def occlusion_table(
    model: MedBridge, benchmark: Benchmark, labels: Sequence[str] | None = None, share: float = 0.1, fill: str = "blur",
    draws: int = 2, n_boot: int = 1000, seed: int = 0, level: float = 0.95, progress: bool = True,
) -> pd.DataFrame:
    """How far the logit of a finding that is present falls when cells are hidden.

    Args:
        model: trained. benchmark: films with known labels; no boxes are needed. labels: default those of the model that it has.
        share: of the map's cells that are hidden. fill: with what, 'blur' or 'mean'.
        draws: random places, and maps of other patients, that each film is compared with.
        n_boot, seed, level: of the bootstrap over patients.

    Returns:
        One row a label, and 'all' of them: label, films, patients, drop (the logit falls by this much with the brightest cells
        hidden), drop_lo, drop_hi, drop_moved, drop_other (with the cells of comparison hidden), and the paired intervals of the
        differences (gain_moved, gain_moved_lo, gain_moved_hi, gain_other ...). NaN where no other patient has the label.

    Raises:
        EvaluationError: no film on which a label is present, draws below 1, a share outside (0, 1), or another fill.
    """
    wanted = [label for label in (model.labels if labels is None else labels) if label in benchmark.labels]
    present = benchmark.table[wanted].to_numpy(dtype=np.float64) == 1
    if draws < 1 or not present.any():
        raise EvaluationError(f"draws={draws}, and {int(present.sum())} findings are present in {benchmark.name!r}; both must be "
                              f"1 or more")
    rng, patients = np.random.default_rng(seed), benchmark.table["patient_id"].to_numpy()
    cells: dict[tuple[int, str], np.ndarray] = {}
    chosen = np.flatnonzero(present.any(axis=1))
    for i in tqdm(chosen, "maps", unit="film", disable=not progress):
        seen = explain(model, benchmark.read(i))
        cells |= {(i, wanted[c]): top_cells(seen.heatmap(wanted[c]), share) for c in np.flatnonzero(present[i])}
    found = []
    for i in tqdm(chosen, "hiding", unit="film", disable=not progress):
        film, films, plan = benchmark.read(i), [], []
        for label in (wanted[c] for c in np.flatnonzero(present[i])):
            own = cells[i, label]
            pool = [m for (j, other), m in cells.items()
                    if other == label and patients[j] != patients[i] and m.shape == own.shape]
            elsewhere = [pool[k] for k in rng.permutation(len(pool))[:draws]]
            for kind, masks in (("drop", [own]), ("moved", [move_cells(own, rng) for _ in range(draws)]), ("other", elsewhere)):
                films += [hide_cells(film, mask, fill) for mask in masks]
                plan += [(label, kind)] * len(masks)
        logits = film_logits(model, [film, *films])
        fallen = pd.DataFrame(plan, columns=["label", "kind"])
        columns = [model.labels.index(label) for label in fallen["label"]]
        fallen["by"] = logits[0, columns] - logits[np.arange(1, len(logits)), columns]
        for label, part in fallen.groupby("label", sort=False):
            found.append({"label": label, "patient": patients[i], **part.groupby("kind")["by"].mean()})
    films = pd.DataFrame(found, columns=["label", "patient", "drop", "moved", "other"])
    return pd.DataFrame([_row(films[films["label"] == label] if label != "all" else films, label, n_boot, seed, level)
                         for label in (*wanted, "all") if label == "all" or (films["label"] == label).any()])


def _row(own: pd.DataFrame, label: str, n_boot: int, seed: int, level: float) -> dict:
    codes = group_codes(own["patient"], len(own))
    gains = {kind: own["drop"] - own[kind] for kind in ("moved", "other")}
    lo, hi = percentiles(bootstrap_means(np.stack([own["drop"], *gains.values()], axis=1), codes, n_boot, seed), level)
    row = {"label": label, "films": len(own), "patients": int(codes.max()) + 1, "drop": own["drop"].mean(), "drop_lo": lo[0],
           "drop_hi": hi[0], "drop_moved": own["moved"].mean(), "drop_other": own["other"].mean()}
    for k, (kind, gain) in enumerate(gains.items(), 1):
        row |= {f"gain_{kind}": gain.mean(), f"gain_{kind}_lo": lo[k], f"gain_{kind}_hi": hi[k]}
    return row

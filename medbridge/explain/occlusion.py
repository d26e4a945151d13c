"""Does a score need what the queries looked at? Hide the brightest cells of a map, and other cells for comparison. [ours]

Only a change of the film shows what a score depends on (Samek et al., 2017). A hidden cell is filled by 'mean', the film's mean
grey value, denser than a lung, or 'blur', what 16 x 16 cells would see: large findings stay. Hiding anything moves a score, so
each film is compared with itself, hidden elsewhere: *moved*, the same cells at a random place; *other*, another patient's map.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from medbridge.data import Benchmark
from medbridge.errors import EvaluationError
from medbridge.explain.attention import explain
from medbridge.features.batch import collate
from medbridge.metrics.bootstrap import label_means
from medbridge.model import MedBridge
from medbridge.predict import film_features

FILLS = ("blur", "mean")


def top_cells(heat: np.ndarray, share: float = 0.1) -> np.ndarray:
    """The brightest cells of a map ``(rows, columns)``, as many as ``share`` in (0, 1) of all, at least one: bool, same shape."""
    if not 0 < share < 1:
        raise EvaluationError(f"share={share}; give a share of the map's cells in (0, 1)")
    out = np.zeros(heat.size, dtype=bool)
    out[np.argsort(-heat, axis=None, kind="stable")[: max(1, round(share * heat.size))]] = True
    return out.reshape(heat.shape)


def move_cells(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same cells at a random place: a circular shift, each but none at all being equally likely."""
    return np.roll(cells, divmod(int(rng.integers(1, cells.size)), cells.shape[1]), axis=(0, 1))


def hide_cells(film: np.ndarray, cells: np.ndarray, fill: str = "blur") -> np.ndarray:
    """The film ``(H, W)`` with the cells ``(rows, columns)`` that are True filled with one of :data:`FILLS`: float32."""
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
    draws: int = 2, n_boot: int = 1000, seed: int = 0, progress: bool = True,
) -> pd.DataFrame:
    """How far the logit of a finding that is present falls when a share of the map's cells is hidden; no boxes are needed.

    Each film is compared with ``draws`` random places and with the maps of as many other patients. One row per label (default:
    the model's that the benchmark has), and 'all' of them: label, films, patients, drop (the logit falls by this much with the
    brightest cells hidden), drop_moved, drop_other (with the cells of comparison), gain_moved, gain_other (the differences; NaN
    where no other patient has the label), and intervals over patients (drop_lo, drop_hi, gain_moved_lo ...).
    """
    wanted = [label for label in (model.labels if labels is None else labels) if label in benchmark.labels]
    present = benchmark.table[wanted].to_numpy(dtype=np.float64) == 1
    if draws < 1 or not present.any():
        raise EvaluationError(f"draws={draws}, and {int(present.sum())} findings are present in {benchmark.name!r}; both must be "
                              f"1 or more")
    rng, patients = np.random.default_rng(seed), benchmark.table["patient_id"].to_numpy()
    chosen = {i: [wanted[c] for c in np.flatnonzero(present[i])] for i in np.flatnonzero(present.any(axis=1))}
    cells: dict[tuple[int, str], np.ndarray] = {}
    for i in tqdm(chosen, "maps", unit="film", disable=not progress):
        seen = explain(model, benchmark.read(i))
        cells |= {(i, label): top_cells(seen.heatmap(label), share) for label in chosen[i]}
    parts = []
    for i in tqdm(chosen, "hiding", unit="film", disable=not progress):
        film, hidden, plan = benchmark.read(i), [], []
        for label in chosen[i]:
            own = cells[i, label]
            pool = [m for (j, c), m in cells.items() if c == label and patients[j] != patients[i] and m.shape == own.shape]
            elsewhere = [pool[k] for k in rng.permutation(len(pool))[:draws]]
            for kind, masks in (
                ("drop", [own]), ("drop_moved", [move_cells(own, rng) for _ in range(draws)]), ("drop_other", elsewhere)):
                hidden += [hide_cells(film, mask, fill) for mask in masks]
                plan += [(label, kind, model.labels.index(label))] * len(masks)
        logits, drops = film_logits(model, [film, *hidden]), pd.DataFrame(plan, columns=["label", "kind", "column"])
        drops["by"] = logits[0, drops["column"]] - logits[np.arange(1, len(logits)), drops["column"]]
        parts.append(drops.pivot_table("by", "label", "kind", sort=False).assign(patient=patients[i]))
    films = pd.concat(parts).reset_index().reindex(columns=["label", "patient", "drop", "drop_moved", "drop_other"])
    gains = {f"gain_{kind}": films["drop"] - films[f"drop_{kind}"] for kind in ("moved", "other")}
    return label_means(films.assign(**gains), wanted, ["drop", *gains], n_boot, seed, every="all")

"""Does a map point at the finding? Pointing game and IoU of one map against boxes, beside chance. [ours]

Pointing game (Zhang et al., IJCV 2018, section 4.2): a hit where the map's maximum lies in a box. IoU: of the boxes' union with
the cells of at least a share of the maximum. Chance: the mean over all circular shifts of the map (for hits the boxes' share).
"""

import numpy as np

from medbridge.errors import EvaluationError


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

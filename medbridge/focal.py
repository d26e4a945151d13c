r"""Focal Sampling: one high-resolution film becomes N views at the expert's input size.

[abstract] High-resolution local regions make up for the limited input size of VLMs. [summary] They are N - 1 regions beside the
resized whole film, taken at random or by a sliding window with overlap. Why: a 20-pixel nodule in a 1024 x 1024 film is 2 to 4
pixels wide once the film is resized to what a frozen encoder accepts. A window of half the short side keeps twice the detail.

[ours] Windows are random in training, from a seed, and slide at inference, where the grid covers every pixel. Every view is a
*square* box ``x0, y0, x1, y1`` in pixels of the film, so nothing is stretched; the whole view is the smallest centred square that
holds the film and may reach past it (filled with zeros). Windows are measured against the short side. No flips: in a chest film
left and right mean something. Measured (earlier form, docs/results.md): without windows validation AUC changes by -0.024 [-0.044,
-0.005], with windows of 0.35 for 0.5 by -0.034 [-0.052, -0.016]. Squares, the order of windows and flips were not measured.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from medbridge.data.resize import resize_rows

MAX_WINDOWS = 10_000
"""Most windows that a film is cut into: a slip in ``crop`` or ``overlap`` is an error, not a full memory."""


def _check_crop(crop: float) -> None:
    if not 0.0 < crop <= 1.0:
        raise ValueError(f"crop={crop!r} must be in (0, 1]: it is the window's side relative to the film's short side")


def whole_box(height: int, width: int) -> np.ndarray:
    """Box of the whole film: the smallest centred square that holds it, float32 ``(4,)`` in pixels. [ours]"""
    side = max(height, width)
    x0, y0 = (width - side) / 2, (height - side) / 2
    return np.array([x0, y0, x0 + side, y0 + side], dtype=np.float32)


def _starts(length: int, side: float, overlap: float) -> np.ndarray:
    """Evenly spaced window starts that cover ``[0, length]`` with at least ``overlap`` between neighbours."""
    if length <= side:
        return np.array([(length - side) / 2], dtype=np.float32)
    count = math.ceil((length - side) / (side * (1.0 - overlap)) - 1e-6) + 1
    return np.linspace(0.0, length - side, count, dtype=np.float32)


def grid_boxes(height: int, width: int, crop: float = 0.5, overlap: float = 0.25) -> np.ndarray:
    """Sliding windows that together cover every pixel, row by row. [summary]

    Args:
        height, width: size of the film in pixels.
        crop: side of a window relative to the film's short side, in (0, 1].
        overlap: least overlap of neighbouring windows relative to their side, in [0, 1).

    Returns:
        float32 ``(G, 4)`` boxes ``x0, y0, x1, y1``.

    Raises:
        ValueError: ``crop`` or ``overlap`` out of range, or more than ``MAX_WINDOWS`` windows.
    """
    _check_crop(crop)
    if not 0.0 <= overlap < 1.0:
        raise ValueError(f"overlap={overlap!r} must be in [0, 1): it is a fraction of the window's side")
    side = crop * min(height, width)
    count = math.prod(max(0.0, length - side) / (side * (1.0 - overlap)) + 1 for length in (height, width))
    if count > MAX_WINDOWS:
        raise ValueError(f"crop={crop!r}, overlap={overlap!r} cut a film of {height} x {width} into {count:,.0f} windows; "
                         f"at most {MAX_WINDOWS:,} are taken: use a larger crop or less overlap")
    xs, ys = _starts(width, side, overlap), _starts(height, side, overlap)
    gy, gx = np.meshgrid(ys, xs, indexing="ij")
    corner = np.stack([gx.ravel(), gy.ravel()], axis=1)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def random_boxes(height: int, width: int, n: int, crop: float = 0.5, generator: np.random.Generator | None = None) -> np.ndarray:
    """``n`` windows at uniformly random places, float32 ``(n, 4)``; same arguments as :func:`grid_boxes`. [summary]"""
    _check_crop(crop)
    rng = generator or np.random.default_rng()
    side = crop * min(height, width)
    corner = np.stack([rng.uniform(0, max(width - side, 0), n), rng.uniform(0, max(height - side, 0), n)], axis=1)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def relative_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes in units of the whole view, so that films of any size compare: the whole view is ``0, 0, 1, 1``."""
    whole = whole_box(height, width)
    return ((boxes - whole[[0, 1, 0, 1]]) / (whole[2] - whole[0])).astype(np.float32)


def extract_views(film: np.ndarray, boxes: np.ndarray, size: int, interpolation: str = "bilinear") -> torch.Tensor:
    """Cut the boxes out of the film and resize each to ``size`` x ``size`` with antialiasing.

    Args:
        film: ``(H, W)`` float32 in [0, 1], decoded once however many views are taken.
        boxes: ``(N, 4)`` square boxes in pixels; parts outside the film are zero.
        size: side R of the views in pixels, the expert's input size.
        interpolation: 'bilinear' or 'bicubic', as the expert was trained.

    Returns:
        float32 tensor ``(N, size, size)`` in [0, 1].

    Raises:
        ValueError: ``film`` is not a 2-D array, or ``boxes`` is not ``(N, 4)``.
    """
    if film.ndim != 2:
        raise ValueError(f"film has shape {film.shape}; expected (H, W), one channel, as medbridge.data.images.read_film gives")
    boxes = np.asarray(boxes, dtype=np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes has shape {boxes.shape}; expected (N, 4): x0, y0, x1, y1")
    film = np.ascontiguousarray(film, dtype=np.float32)
    out = torch.zeros(len(boxes), size, size)
    beside: dict[tuple[int, int], list[tuple[int, int]]] = {}  # views of the same rows of the film are resized along them once
    for i, box in enumerate(np.rint(boxes).astype(int).tolist()):
        x0, y0, side = _square(*box, *film.shape)
        beside.setdefault((y0, side), []).append((i, x0))
    for (y0, side), views in beside.items():
        rows = film[max(y0, 0) : max(y0 + side, 0)]
        if not len(rows):
            continue
        above = max(-y0, 0)
        if side == size:
            band = np.pad(rows, ((above, side - above - len(rows)), (0, 0)))
        else:
            band = resize_rows(rows, size, interpolation, above, side - above - len(rows))
        for i, x0 in views:
            left, right = max(x0, 0), min(x0 + side, film.shape[1])
            if left < right:
                crop = F.pad(torch.from_numpy(band[:, left:right]), (left - x0, x0 + side - right))
                out[i] = crop if side == size else F.interpolate(
                    crop[None, None], (size, size), mode=interpolation, antialias=True)[0, 0]
    # antialiasing averages over the whole footprint of an output pixel; bicubic rings past [0, 1] at the edge of a bright
    # marker, where Pillow clips too
    return out.clamp_(0, 1) if interpolation == "bicubic" else out


def _square(x0: int, y0: int, x1: int, y1: int, height: int, width: int) -> tuple[int, int, int]:
    """Corner and side of a rounded box. Rounding may make it a pixel larger along one axis: it must not look past the film's edge
    for that."""
    side = max(x1 - x0, y1 - y0, 1)
    x0, y0 = (max(0, min(start, length - side)) if start >= 0 and end <= length else start
              for start, end, length in ((x0, x1, width), (y0, y1, height)))
    return x0, y0, side


@dataclass(frozen=True)
class FocalSampler:
    """Which boxes are looked at, in training and at inference.

    Attributes:
        crop: side of a local view relative to the film's short side. overlap: least overlap of the sliding windows.
        extra: random windows that a training film's pool holds beside the grid. [ours] Training draws as many
            local views as inference uses from this pool, so that the frozen maps of the pool can be cached.
        local: ``False`` keeps the whole view alone. seed: of the random windows, together with the film's name.
    """

    crop: float = 0.5
    overlap: float = 0.25
    extra: int = 4
    local: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        grid_boxes(8, 8, self.crop, self.overlap)  # raises on a bad crop or overlap, here and not in a worker
        if not 0 <= self.extra <= MAX_WINDOWS:
            raise ValueError(f"extra={self.extra!r} must be in [0, {MAX_WINDOWS}]")

    def inference_boxes(self, height: int, width: int) -> np.ndarray:
        """``(1 + G, 4)`` boxes: the whole film, then the sliding windows."""
        whole = whole_box(height, width)[None]
        return np.concatenate([whole, grid_boxes(height, width, self.crop, self.overlap)]) if self.local else whole

    def training_boxes(self, height: int, width: int, name: str) -> np.ndarray:
        """``(1 + G + extra, 4)`` boxes: the inference boxes, then random windows fixed by ``seed`` and ``name``."""
        boxes = self.inference_boxes(height, width)
        if not self.local or self.extra == 0:
            return boxes
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return np.concatenate([boxes, random_boxes(height, width, self.extra, self.crop, rng)])

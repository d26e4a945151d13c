"""The findings of PhantomCXR (synthetic), each drawn with its exact box. [ours]

Nodule, Pneumothorax and Infiltration live in fine detail: averaged over a few pixels they fade into the normal lung.
Cardiomegaly, Effusion, Atelectasis and Pneumonia are large and read from the whole film. Where a finding lies belongs
to the patient (``place``), how it looks to the film (``rng``). ``subtlety`` runs from 0 (plain) to 1 (limit of sight).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from medbridge.data.phantom.anatomy import SIDES, SIZE, Thorax, ribbon, smooth_field, smooth_line

__all__ = ["FINDINGS", "Box", "Scene", "draw_finding", "heart_ratio", "volume_loss"]

Box = tuple[float, float, float, float]
"""``x0, y0, x1, y1`` in pixels of the film, the far edges exclusive."""


@dataclass
class Scene:
    """A film being drawn: float32 density ``(1024, 1024)``, the share of it that is vessels, and the lungs (0 to 1)."""

    thorax: Thorax
    density: np.ndarray
    vessels: np.ndarray
    lung: np.ndarray


def heart_ratio(rng: np.random.Generator, subtlety: float) -> float:
    """Cardiothoracic ratio of an enlarged heart: 0.54 to 0.68."""
    return float(np.clip(0.66 - 0.115 * subtlety**0.6 + rng.uniform(-0.02, 0.02), 0.54, 0.68))


def volume_loss(place: np.random.Generator, rng: np.random.Generator, subtlety: float) -> dict[str, float]:
    """By how much atelectasis lifts the diaphragm: side -> share of the lung's height."""
    return {_side(place): (0.075 - 0.06 * subtlety) * rng.uniform(0.6, 1.2)}


def _side(place: np.random.Generator, right: float = 0.55) -> str:
    return "R" if place.random() < right else "L"


def _between(plain: float, subtle: float, subtlety: float) -> float:
    return plain + (subtle - plain) * subtlety


def _add(scene: Scene, patch: np.ndarray, x0: int, y0: int, least: float = 0.25, lung_only: bool = True) -> list[Box]:
    """Add a patch whose corner is (x0, y0); box what exceeds ``least`` of its peak."""
    height, width = patch.shape
    left, top = max(0, -x0), max(0, -y0)
    patch = patch[top : min(height, SIZE - y0), left : min(width, SIZE - x0)]
    x0, y0 = x0 + left, y0 + top
    window = (slice(y0, y0 + patch.shape[0]), slice(x0, x0 + patch.shape[1]))
    if lung_only:
        patch = patch * scene.lung[window]
    scene.density[window] += patch
    return _box_of(np.abs(patch), x0, y0, least)


def _box_of(patch: np.ndarray, x0: int, y0: int, least: float) -> list[Box]:
    seen = patch > max(least * patch.max(initial=0.0), 1e-3)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if len(rows) == 0:
        return []
    return [(float(x0 + columns[0]), float(y0 + rows[0]), float(x0 + columns[-1] + 1), float(y0 + rows[-1] + 1))]


def _grid(radius: float, reach: float = 1.5) -> tuple[np.ndarray, np.ndarray, int]:
    """Offsets from the centre of a square window: dy (k, 1), dx (1, k), and the window's half side."""
    half = int(np.ceil(radius * reach))
    offsets = np.arange(-half, half + 1, dtype=np.float32)
    return offsets[:, None], offsets[None, :], half


def _lump(rng: np.random.Generator, radius: float, stretch: float, rough: float, edge: float) -> tuple[np.ndarray, int]:
    """A round shadow with a lobulated outline: 1 inside, ``edge`` pixels to fall to 0."""
    dy, dx, half = _grid(radius * max(stretch, 1 / stretch), 1.45)
    angle, turn = np.arctan2(dy, dx), rng.uniform(0, np.pi)
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    distance = np.hypot(along / stretch, across * stretch)
    outline = np.ones_like(angle)
    for k in range(2, 8):
        outline += rough / k * rng.normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return 1 / (1 + np.exp(np.clip((distance - radius * outline) / (edge / 4), -30, 30))), half


def _nodule(scene: Scene, place: np.random.Generator, rng: np.random.Generator, subtlety: float) -> list[Box]:
    boxes: list[Box] = []
    for _ in range(1 + (place.random() < 0.25)):
        x, y = np.round(scene.thorax.at(_side(place), place.uniform(0.15, 0.82), place.uniform(0.14, 0.62))).astype(int)
        radius = _between(rng.uniform(8.5, 12), rng.uniform(7.2, 9), subtlety)
        # Only its sharp edge tells it from the summation shadows of every film: same size, same total density.
        lump, half = _lump(rng, radius, rng.uniform(0.94, 1.06), 0.05, 2.0)
        height = _between(0.27, 0.12, subtlety) * rng.uniform(0.9, 1.1)
        window = np.s_[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        scene.lung[window] = np.maximum(scene.lung[window], 0.6)
        boxes += _add(scene, (height * lump).astype(np.float32), x - half, y - half, 0.45)
    return boxes


def _mass(scene: Scene, place: np.random.Generator, rng: np.random.Generator, subtlety: float) -> list[Box]:
    x, y = np.round(scene.thorax.at(_side(place), place.uniform(0.2, 0.75), place.uniform(0.18, 0.6))).astype(int)
    radius = place.uniform(33, 58)
    lump, half = _lump(rng, radius, rng.uniform(0.92, 1.08), 0.16, _between(7, 18, subtlety))
    lump *= 0.85 + 0.15 * smooth_field(rng, 6, *lump.shape)
    return _add(scene, (_between(0.33, 0.09, subtlety) * lump).astype(np.float32), x - half, y - half, 0.4)


def _pneumonia(scene: Scene, place: np.random.Generator, rng: np.random.Generator, subtlety: float) -> list[Box]:
    side = _side(place)
    x, y = np.round(scene.thorax.at(side, place.uniform(0.3, 0.65), place.uniform(0.3, 0.74))).astype(int)
    radius = place.uniform(62, 108)
    lump, half = _lump(rng, radius, rng.uniform(0.85, 1.18), 0.30, _between(55, 85, subtlety))
    dy, dx, _ = _grid(half, 1.0)
    lump *= np.clip(1 - (np.hypot(dx, dy) / half) ** 6, 0, 1)
    patch = lump * np.clip(0.88 + 0.16 * smooth_field(rng, 9, *lump.shape), 0.3, 1.3)
    # Air bronchograms: airways stay black where the lung around them fills, running out from the hilum.
    image = Image.new("L", lump.shape[::-1])
    draw = ImageDraw.Draw(image)
    outward = np.array([SIDES[side], 0.5])
    for _ in range(rng.integers(2, 5)):
        begin = np.array([half, half]) - outward * radius * 0.75 + rng.normal(0, 0.25 * radius, 2)
        bend = rng.normal(0, 0.14 * radius, 2)
        line = smooth_line(np.array([begin, begin + outward * 0.6 * radius + bend, begin + outward * 1.2 * radius]), 12)
        draw.polygon(ribbon(line, np.linspace(6, 2.5, 12)), fill=255)
    patch *= 1 - 0.45 * np.asarray(image) / 255
    return _add(scene, (_between(0.38, 0.10, subtlety) * patch).astype(np.float32), x - half, y - half, 0.35)


def _infiltration(scene: Scene, place: np.random.Generator, rng: np.random.Generator, subtlety: float) -> list[Box]:
    boxes: list[Box] = []
    sides = ["R", "L"] if place.random() < 0.35 else [_side(place)]
    for side in sides:
        x, y = np.round(scene.thorax.at(side, place.uniform(0.35, 0.6), place.uniform(0.28, 0.7))).astype(int)
        radius = place.uniform(62, 100)
        lump, half = _lump(rng, radius, rng.uniform(0.85, 1.2), 0.25, 45)
        # Zero crossings of smooth noise make a mesh of fine lines; taking its mean out leaves texture, little haze.
        noise = gaussian_filter(rng.standard_normal(lump.shape, dtype=np.float32), 3.3, truncate=3.0)
        mesh = np.exp(-0.5 * (noise / (0.20 * noise.std())) ** 2)
        mesh -= mesh.mean()
        patchy = np.clip(0.85 + 0.3 * smooth_field(rng, 7, *lump.shape), 0.3, 1.5)
        strength = _between(0.24, 0.075, subtlety)
        boxes += _add(scene, (lump * patchy * strength * (mesh + 0.12)).astype(np.float32), x - half, y - half, 0.3)
    return boxes


def _pneumothorax(scene: Scene, place: np.random.Generator, rng: np.random.Generator, subtlety: float) -> list[Box]:
    side = _side(place)
    wall = scene.thorax.walls[side]
    depth = _between(62, 20, subtlety) * rng.uniform(0.8, 1.2)
    reach = int(_between(33, 20, subtlety) + rng.integers(0, 4))
    # Standing, air gathers at the apex: the visceral line leaves the wall below and stands off most at the top.
    share = np.interp(np.arange(reach), [0, 3, 10, reach - 6, reach - 1], [0.3, 0.85, 1.0, 0.55, 0.0])
    tangent = np.gradient(wall[:reach], axis=0)
    inward = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) * SIDES[side]
    inward /= np.linalg.norm(inward, axis=1)[:, None]
    offset = gaussian_filter1d(depth * share * (1 + 0.06 * rng.standard_normal(reach)), 1.5, axis=0)
    pleura = wall[:reach] + inward * offset[:, None]
    outline = np.concatenate([wall[:reach], pleura[::-1]])
    image, line = Image.new("L", (SIZE, SIZE)), Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(image).polygon(outline.ravel().tolist(), fill=255)
    ImageDraw.Draw(line).line(pleura.ravel().tolist(), fill=255, width=2 if subtlety > 0.5 else 3)
    x0, y0 = (np.maximum(outline.min(axis=0), 2) - 2).astype(int)
    x1, y1 = np.minimum(outline.max(axis=0) + 3, SIZE).astype(int)
    window = (slice(y0, y1), slice(x0, x1))
    lung = scene.lung[window]
    air = np.asarray(image)[window] / np.float32(255) * lung
    scene.density[window] -= air * (scene.vessels[window] + np.float32(_between(0.05, 0.012, subtlety)))
    scene.vessels[window] *= 1 - air
    scene.density[window] += np.asarray(line)[window] * np.float32(_between(0.15, 0.07, subtlety) / 255) * lung
    return _box_of(air, int(x0), int(y0), 0.5)


def _effusion(scene: Scene, place: np.random.Generator, rng: np.random.Generator, subtlety: float) -> list[Box]:
    boxes: list[Box] = []
    side = _side(place)
    sides = ["R", "L"] if place.random() < 0.3 else [side]
    for side in sides:
        height = _between(rng.uniform(150, 230), rng.uniform(28, 46), subtlety)
        angle, dome = scene.thorax.walls[side][-1], scene.thorax.domes[side]
        middle = dome[-1]
        low, high = sorted((angle[0], middle[0]))
        x = np.arange(max(0, int(low) - 45), min(SIZE, int(high) + 45))
        lateral = np.clip((x - middle[0]) / (angle[0] - middle[0]), 0, 1.05)
        # The meniscus climbs along the chest wall; a small effusion only fills the angle.
        top = angle[1] - height * (0.42 + 0.58 * lateral**3.5) + 2.5 * np.sin(x / 37 + rng.uniform(0, 6))
        top = top + (1 - lateral) * _between(0, 34, subtlety)
        y = np.arange(max(0, int(top.min()) - 30), min(SIZE, int(angle[1]) + 8))
        edge = _between(5, 8, subtlety) + 7 * (1 - lateral)[None]
        patch = 1 / (1 + np.exp(np.clip((top[None] - y[:, None]) / (edge / 2), -30, 30)))
        patch = (_between(0.46, 0.34, subtlety) * patch).astype(np.float32)
        boxes += _add(scene, patch, int(x[0]), int(y[0]), 0.4)
    return boxes


def _atelectasis(scene: Scene, place: np.random.Generator, rng: np.random.Generator, subtlety: float) -> list[Box]:
    side = _side(place)
    image = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(image)
    if place.random() < 0.45:
        # A wedge: its point at the hilum, its base on the pleura.
        t, span = place.uniform(0.5, 0.68), _between(0.14, 0.07, subtlety)
        tip = scene.thorax.at(side, 0.08, 0.52)
        upper, lower = scene.thorax.at(side, 0.92, t), scene.thorax.at(side, 0.86, t + span)
        bow = 10 * rng.standard_normal(2)
        draw.polygon(np.concatenate([
            smooth_line(np.array([tip, (tip + upper) / 2 + bow, upper]), 12), smooth_line(np.array([upper, lower]), 4),
            smooth_line(np.array([lower, (tip + lower) / 2 + bow, tip]), 12),
        ]).ravel().tolist(), fill=190)  # fmt: skip
        blur = _between(2.5, 7, subtlety)
    else:
        for _ in range(place.integers(1, 4)):
            u, t = place.uniform(0.12, 0.35), place.uniform(0.6, 0.8)
            begin = scene.thorax.at(side, u, t)
            end = scene.thorax.at(side, u + place.uniform(0.3, 0.55), t + place.uniform(-0.05, 0.03))
            line = smooth_line(np.array([begin, (begin + end) / 2 + rng.normal(0, 5, 2), end]), 14)
            taper = np.sin(np.linspace(0.35, np.pi - 0.35, 14))
            draw.polygon(ribbon(line, _between(rng.uniform(10, 17), rng.uniform(6, 9), subtlety) * taper), fill=255)
        blur = _between(1.6, 3.0, subtlety)
    x0, y0, x1, y1 = image.getbbox()
    x0, y0, x1, y1 = max(0, x0 - 20), max(0, y0 - 20), min(SIZE, x1 + 20), min(SIZE, y1 + 20)
    patch = gaussian_filter(np.asarray(image)[y0:y1, x0:x1] / np.float32(255), blur) * _between(0.34, 0.10, subtlety)
    return _add(scene, patch.astype(np.float32), x0, y0, 0.3)


def _cardiomegaly(scene: Scene, place: np.random.Generator, rng: np.random.Generator, subtlety: float) -> list[Box]:
    # The heart was drawn with the anatomy (heart_ratio); only its box is left to give.
    (x0, y0), (x1, y1) = scene.thorax.heart.min(axis=0), scene.thorax.heart.max(axis=0)
    return [(float(round(x0)), float(round(y0)), float(round(x1)), float(round(y1)))]


# In drawing order: what hides lung markings comes before what is laid over them.
_DRAW: dict[str, Callable[[Scene, np.random.Generator, np.random.Generator, float], list[Box]]] = {
    "Pneumothorax": _pneumothorax,
    "Cardiomegaly": _cardiomegaly,
    "Atelectasis": _atelectasis,
    "Pneumonia": _pneumonia,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Effusion": _effusion,
}
FINDINGS = tuple(_DRAW)


def draw_finding(
    name: str, scene: Scene, place: np.random.Generator, rng: np.random.Generator, subtlety: float
) -> list[Box]:
    """Draw one finding into the scene, in place, and return its boxes (at least one)."""
    return _DRAW[name](scene, place, rng, subtlety)

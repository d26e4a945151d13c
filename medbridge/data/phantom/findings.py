"""The findings of PhantomCXR (synthetic), each drawn with its exact box. [ours]

Nodule, Pneumothorax and Infiltration live in fine detail: averaged over a few pixels they fade into the normal lung.
Cardiomegaly, Effusion, Atelectasis and Pneumonia are large and read from the whole film.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from medbridge.data.phantom.anatomy import Thorax
from medbridge.data.phantom.shapes import CHEST, SIDES, SIZE, Canvas, closed, falloff, smooth_field, smooth_line

Box = tuple[int, int, int, int]
"""``x0, y0, x1, y1`` in pixels of the film, the far edges exclusive."""


@dataclass
class Scene:
    """A film, float32 ``(1024, 1024)`` each, to draw one finding into."""

    thorax: Thorax
    density: np.ndarray
    vessels: np.ndarray  # their share of the density
    lung: np.ndarray  # 0 to 1
    place: np.random.Generator  # of the patient: where the finding lies
    rng: np.random.Generator  # of the film: how it looks
    subtlety: float  # 0 (plain) to 1 (limit of sight)

    def grade(self, plain: float, subtle: float) -> float:
        """The value at this finding's subtlety."""
        return plain + (subtle - plain) * self.subtlety

    def add(self, patch: np.ndarray, x0: int, y0: int, least: float) -> Iterator[Box]:
        """Add a patch to the lungs, its corner at (x0, y0); box what exceeds ``least`` of its peak."""
        patch = patch[max(0, -y0) : SIZE - y0, max(0, -x0) : SIZE - x0].astype(np.float32)
        x0, y0 = max(0, x0), max(0, y0)
        window = np.s_[y0 : y0 + patch.shape[0], x0 : x0 + patch.shape[1]]
        patch = patch * self.lung[window]
        self.density[window] += patch
        return _box(np.abs(patch), x0, y0, least)


def draw_side(place: np.random.Generator) -> str:
    """The side of a finding, the right one a little more often."""
    return "R" if place.random() < 0.55 else "L"


def _box(patch: np.ndarray, x0: int, y0: int, least: float) -> Iterator[Box]:
    seen = patch > max(least * patch.max(initial=0.0), 1e-3)
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if len(rows):
        yield x0 + columns[0], y0 + rows[0], x0 + columns[-1] + 1, y0 + rows[-1] + 1


def _lump(scene: Scene, name: str, side: str, radius: float | None = None) -> tuple[np.ndarray, int, int, float]:
    """A shadow with a lobulated outline, 1 inside and 0 outside, the corner (x, y) where it lies, and its radius."""
    place, rng, look = scene.place, scene.rng, CHEST.lumps[name]
    x, y = np.round(scene.thorax.at(side, place.uniform(*look["u"]), place.uniform(*look["t"]))).astype(int)
    radius = radius or place.uniform(*look["radius"])
    stretch, edge = rng.uniform(*look["stretch"]), scene.grade(*look["edge"])
    half = int(np.ceil(radius * max(stretch, 1 / stretch) * 1.45))
    dx = np.arange(-half, half + 1, dtype=np.float32)
    dy = dx[:, None]
    angle, turn = np.arctan2(dy, dx), rng.uniform(0, np.pi)
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    outline = np.ones_like(angle)
    for k in range(2, 8):
        outline += look["rough"] / k * rng.normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    distance = np.hypot(along / stretch, across * stretch)
    return falloff((distance - radius * outline) / (edge / 4)), x - half, y - half, radius


def _nodule(scene: Scene) -> Iterator[Box]:
    for _ in range(1 + (scene.place.random() < 0.25)):
        # Only its sharp edge tells it from the summation shadows of every film: same size, same total density.
        radius = scene.grade(scene.rng.uniform(8.5, 12), scene.rng.uniform(7.2, 9))
        lump, x0, y0, _ = _lump(scene, "Nodule", draw_side(scene.place), radius)
        window = np.s_[max(0, y0) : y0 + len(lump), max(0, x0) : x0 + len(lump)]
        scene.lung[window] = np.maximum(scene.lung[window], 0.6)
        yield from scene.add(scene.grade(0.27, 0.12) * scene.rng.uniform(0.9, 1.1) * lump, x0, y0, 0.45)


def _mass(scene: Scene) -> Iterator[Box]:
    lump, x0, y0, _ = _lump(scene, "Mass", draw_side(scene.place))
    lump *= 0.85 + 0.15 * smooth_field(scene.rng, 6, lump.shape)
    return scene.add(scene.grade(0.33, 0.09) * lump, x0, y0, 0.4)


def _pneumonia(scene: Scene) -> Iterator[Box]:
    rng, side = scene.rng, draw_side(scene.place)
    lump, x0, y0, radius = _lump(scene, "Pneumonia", side)
    half = len(lump) // 2
    offset = np.arange(-half, half + 1, dtype=np.float32)
    lump *= np.clip(1 - (np.hypot(offset, offset[:, None]) / half) ** 6, 0, 1)
    lump *= np.clip(0.88 + 0.16 * smooth_field(rng, 9, lump.shape), 0.3, 1.3)
    # Air bronchograms: airways stay black where the lung around them fills, running out from the hilum.
    airways, outward = Canvas(shape=lump.shape), np.array([SIDES[side], 0.5])
    for _ in range(rng.integers(2, 5)):
        begin = np.array([half, half]) - outward * radius * 0.75 + rng.normal(0, 0.25 * radius, 2)
        bend = rng.normal(0, 0.14 * radius, 2)
        line = smooth_line([begin, begin + outward * 0.6 * radius + bend, begin + outward * 1.2 * radius], 12)
        airways.band(line, np.linspace(6, 2.5, 12))
    lump *= 1 - 0.45 * np.asarray(airways.image) / 255
    return scene.add(scene.grade(0.38, 0.10) * lump, x0, y0, 0.35)


def _infiltration(scene: Scene) -> Iterator[Box]:
    for side in ["R", "L"] if scene.place.random() < 0.35 else [draw_side(scene.place)]:
        lump, x0, y0, _ = _lump(scene, "Infiltration", side)
        # Zero crossings of smooth noise make a mesh of fine lines; taking its mean out leaves texture, little haze.
        noise = gaussian_filter(scene.rng.standard_normal(lump.shape, dtype=np.float32), 3.3, truncate=3.0)
        mesh = np.exp(-0.5 * (noise / (0.20 * noise.std())) ** 2)
        mesh -= mesh.mean()
        patchy = np.clip(0.85 + 0.3 * smooth_field(scene.rng, 7, lump.shape), 0.3, 1.5)
        yield from scene.add(lump * patchy * scene.grade(0.24, 0.075) * (mesh + 0.12), x0, y0, 0.3)


def _pneumothorax(scene: Scene) -> Iterator[Box]:
    rng, side = scene.rng, draw_side(scene.place)
    depth = scene.grade(62, 20) * rng.uniform(0.8, 1.2)
    reach = int(scene.grade(33, 20) + rng.integers(0, 4))
    wall = scene.thorax.walls[side][:reach]
    # Standing, air gathers at the apex: the visceral line leaves the wall below and stands off most at the top.
    share = np.interp(np.arange(reach), [0, 3, 10, reach - 6, reach - 1], [0.3, 0.85, 1.0, 0.55, 0.0])
    tangent = np.gradient(wall, axis=0)
    inward = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) * SIDES[side]
    inward /= np.linalg.norm(inward, axis=1)[:, None]
    offset = gaussian_filter1d(depth * share * (1 + 0.06 * rng.standard_normal(reach)), 1.5, axis=0)
    pleura = wall + inward * offset[:, None]
    outline, line = closed(wall, pleura), Canvas()
    x0, y0 = (np.maximum(outline.min(axis=0), 2) - 2).astype(int)
    x1, y1 = np.minimum(outline.max(axis=0) + 3, SIZE).astype(int)
    window = np.s_[y0:y1, x0:x1]
    line.draw.line(pleura.ravel().tolist(), fill=255, width=2 if scene.subtlety > 0.5 else 3)
    lung = scene.lung[window]
    air = np.asarray(Canvas().area(outline).image)[window] / np.float32(255) * lung
    scene.density[window] -= air * (scene.vessels[window] + np.float32(scene.grade(0.05, 0.012)))
    scene.vessels[window] *= 1 - air
    scene.density[window] += np.asarray(line.image)[window] * np.float32(scene.grade(0.15, 0.07) / 255) * lung
    return _box(air, x0, y0, 0.5)


def _effusion(scene: Scene) -> Iterator[Box]:
    rng, one_side = scene.rng, draw_side(scene.place)
    for side in ["R", "L"] if scene.place.random() < 0.3 else [one_side]:
        height = scene.grade(rng.uniform(150, 230), rng.uniform(28, 46))
        angle, middle = scene.thorax.walls[side][-1], scene.thorax.domes[side][-1]
        low, high = sorted((angle[0], middle[0]))
        x = np.arange(max(0, int(low) - 45), min(SIZE, int(high) + 45))
        lateral = np.clip((x - middle[0]) / (angle[0] - middle[0]), 0, 1.05)
        # The meniscus climbs along the chest wall; a small effusion only fills the angle.
        top = angle[1] - height * (0.42 + 0.58 * lateral**3.5) + 2.5 * np.sin(x / 37 + rng.uniform(0, 6))
        top = top + (1 - lateral) * scene.grade(0, 34)
        y = np.arange(max(0, int(top.min()) - 30), min(SIZE, int(angle[1]) + 8))
        fluid = falloff((top - y[:, None]) / ((scene.grade(5, 8) + 7 * (1 - lateral)) / 2))
        yield from scene.add(scene.grade(0.46, 0.34) * fluid, x[0], y[0], 0.4)


def _atelectasis(scene: Scene) -> Iterator[Box]:
    place, rng, at, canvas = scene.place, scene.rng, scene.thorax.at, Canvas()
    side = draw_side(place)
    if place.random() < 0.45:
        # A wedge: its point at the hilum, its base on the pleura.
        t, span = place.uniform(0.5, 0.68), scene.grade(0.14, 0.07)
        tip, upper, lower = at(side, 0.08, 0.52), at(side, 0.92, t), at(side, 0.86, t + span)
        bow = 10 * rng.standard_normal(2)
        roof, floor = ([tip, (tip + end) / 2 + bow, end] for end in (upper, lower))
        edges = [smooth_line(roof, 12), smooth_line([upper, lower], 4), smooth_line(floor[::-1], 12)]
        canvas.area(np.concatenate(edges), 190)
        sigma = scene.grade(2.5, 7)
    else:
        for _ in range(place.integers(1, 4)):
            u, t = place.uniform(0.12, 0.35), place.uniform(0.6, 0.8)
            begin, end = at(side, u, t), at(side, u + place.uniform(0.3, 0.55), t + place.uniform(-0.05, 0.03))
            line = smooth_line([begin, (begin + end) / 2 + rng.normal(0, 5, 2), end], 14)
            canvas.band(line, scene.grade(rng.uniform(10, 17), rng.uniform(6, 9)) * np.sin(np.linspace(0.35, np.pi - 0.35, 14)))
        sigma = scene.grade(1.6, 3.0)
    x0, y0, x1, y1 = canvas.image.getbbox()
    x0, y0, x1, y1 = max(0, x0 - 20), max(0, y0 - 20), min(SIZE, x1 + 20), min(SIZE, y1 + 20)
    patch = gaussian_filter(np.asarray(canvas.image)[y0:y1, x0:x1] / np.float32(255), sigma)
    return scene.add(patch * scene.grade(0.34, 0.10), x0, y0, 0.3)


def _cardiomegaly(scene: Scene) -> Iterator[Box]:
    # The heart was drawn with the anatomy; only its box is left to give.
    yield tuple(np.concatenate([scene.thorax.heart.min(axis=0), scene.thorax.heart.max(axis=0)]).round())


# In drawing order: what hides lung markings comes before what is laid over them.
DRAW: dict[str, Callable[[Scene], Iterator[Box]]] = {
    "Pneumothorax": _pneumothorax, "Cardiomegaly": _cardiomegaly, "Atelectasis": _atelectasis, "Pneumonia": _pneumonia,
    "Infiltration": _infiltration, "Mass": _mass, "Nodule": _nodule, "Effusion": _effusion,
}

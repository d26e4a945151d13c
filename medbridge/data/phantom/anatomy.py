"""The normal chest of PhantomCXR (synthetic): where each structure lies, and how dense it is. [ours]

Structures are smooth curves in a patient's own frame (``chest.yaml``); a film's pose maps them to pixels. Density is additive, as
attenuation is along a ray; about 0.25 is aerated lung and 1 the mediastinum.
"""

from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageChops, ImageFilter
from scipy.ndimage import gaussian_filter

from medbridge.data.phantom.shapes import CHEST, SIDES, SIZE, Canvas, blur, closed, falloff, resized, smooth_field, smooth_line


class Thorax:
    """One patient's chest on one film.

    ``patient_seed`` fixes the anatomy, ``rng`` draws pose and inspiration; ``tilt`` scales the pose, 1 is a standing patient.
    ``ctr`` is a cardiothoracic ratio set by disease, else the patient's own. ``raised``: side -> share of the lung's height by
    which volume loss lifts the diaphragm. ``walls`` (apex to angle), ``domes`` (angle to midline) and closed ``lungs``: side ->
    float64 ``(n, 2)`` line in pixels; ``heart`` is a closed outline; ``unit`` the pixels of one ``dx``.
    """

    def __init__(self, patient_seed: int, rng: np.random.Generator, tilt: float = 1.0, ap: bool = False, female: bool = False,
                 age: int = 50, ctr: float | None = None, raised: dict[str, float] | None = None) -> None:
        self.patient_seed, self.female, self.age, self.ap = patient_seed, female, age, ap
        patient = np.random.default_rng([patient_seed, 1])
        frame = {name: patient.uniform(*ends) for name, ends in CHEST.frame.items()}
        self._jitter = {side: patient.normal(0, 0.012, CHEST.wall.shape) for side in SIDES}
        self.shape = shape = SimpleNamespace(**frame, **{name: patient.uniform(*ends) for name, ends in CHEST.parts.items()})
        self._center = np.array([SIZE / 2, shape.top + 0.55 * shape.length])
        self._shift, self._scale = rng.normal(0, 11, 2) * tilt, rng.uniform(0.965, 1.03) * (0.975 if ap else 1.0)
        angle = np.deg2rad(rng.normal(0, 1.1) * tilt)
        self._turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self._breath = rng.uniform(0.93, 1.03) - (0.05 if ap else 0.0)
        self._rotation = rng.normal(0, 0.012) * tilt
        self.unit = shape.half_width * self._scale
        # A shallow breath and an AP film widen the heart's shadow: a healthy one can look large.
        apparent = rng.normal(0, 0.018) + 0.4 * (1 - self._breath) + (rng.uniform(0.0, 0.02) if ap else 0.0)
        self.ctr = min(0.70, (shape.ctr if ctr is None else ctr) + float(np.clip(apparent, -0.03, 0.05)))
        self.walls, self.domes, self.lungs, self._wall_curves = {}, {}, {}, {}
        for side, lift in (("R", shape.lift_R), ("L", shape.lift_L)):
            wall = self._wall_curves[side] = smooth_line(CHEST.wall + self._jitter[side])
            dome = smooth_line([wall[-1], *(CHEST.dome - (0, lift + (raised or {}).get(side, 0.0)))])
            medial = self.curve(side, [dome[-1], *CHEST.medial, wall[0]])
            self.walls[side], self.domes[side] = self.px(side, wall), self.px(side, dome)
            self.lungs[side] = np.concatenate([self.walls[side], self.domes[side][1:], medial[1:-1]])
        # Of the heart's width about a third lies right of the midline. The chest is 2 dx wide at its widest.
        width, grow = 2 * 0.985 * self.ctr, self.ctr - 0.46
        right, left = 0.33 * width, 0.67 * width
        self.heart = closed(
            self.curve("L", [(0.10, 0.36), (0.19, 0.44), (0.5 * left, 0.52), (0.86 * left, 0.66 - grow * 0.3), (left, 0.78),
                             (0.93 * left, 0.87), (0.55 * left, 0.91)]),
            self.curve("R", [(0.10, 0.36), (0.14, 0.44), (0.80 * right, 0.55 - grow * 0.3), (right, 0.70), (0.90 * right, 0.83),
                             (0.55 * right, 0.90)]),
        )

    def px(self, side: str, points: np.ndarray | list) -> np.ndarray:
        """Patient frame ``(..., 2)`` (dx, t) to pixels ``(..., 2)`` (x, y)."""
        points = np.asarray(points, dtype=np.float64)
        t = points[..., 1] * np.where(points[..., 1] > 0, self._breath, 1.0)
        x = SIZE / 2 + (SIDES[side] * points[..., 0] + self._rotation * (t > 0.3)) * self.shape.half_width
        canonical = np.stack([x, self.shape.top + t * self.shape.length], axis=-1)
        return (canonical - self._center) @ self._turn.T * self._scale + self._center + self._shift

    def curve(self, side: str, points: np.ndarray | list, n: int = 40) -> np.ndarray:
        """The smooth line through points of the patient's frame, in pixels ``(n, 2)``."""
        return self.px(side, smooth_line(points, n))

    def wall_dx(self, side: str, t: float) -> float:
        """The chest wall's dx at height t."""
        dx, heights = self._wall_curves[side][10:].T
        return float(np.interp(t, heights, dx))

    def at(self, side: str, u: float, t: float) -> np.ndarray:
        """The pixel (2,) at fraction u from mediastinum (0) to chest wall (1), at height t of a lung."""
        return self.px(side, [0.17 + u * (self.wall_dx(side, t) - 0.17), t])

    def lung_mask(self) -> Image.Image:
        """8-bit 1024 x 1024 mask: 255 inside either lung outline (the heart overlaps them)."""
        return Canvas().area(self.lungs["R"]).area(self.lungs["L"]).image

    def soft_tissue(self, rng: np.random.Generator, lung_mask: Image.Image) -> np.ndarray:
        """Everything that has no fine detail: float32 density ``(1024, 1024)``, drawn at half size."""
        margin, knob = self.shape.margin, self.shape.knob + max(0, self.age - 60) * 0.0008
        flank = [(0.30, -0.40), (0.30, -0.19), (0.48, -0.115), (0.95, -0.05), (1.30, 0.06), (1.48, 0.26), (1.47, 0.42),
                 (1.0 + margin, 0.55), (1.03 + margin, 0.8), (1.06 + margin, 1.9)]
        aorta = [(0.13, -0.05), (0.13, 0.12), (0.145, 0.21), (knob, 0.29), (0.16, 0.36), (0.19, 0.43), (0.18, 0.55), (0.15, 1.7)]
        spine, airway = Canvas(2), Canvas(2)
        spine.band(self.px("L", CHEST.spine), 0.155 * self.unit, 85)
        for t in np.arange(-0.25, 1.6, 0.078):
            spine.area(self.px("L", CHEST.vertebra + (0, t)), 140)
            for dx in (-0.05, 0.05):
                spine.disc(self.px("L", [dx, t + 0.02]), 6, 8, 175)
        airway.band(self.curve("R", CHEST.trachea, 12), 0.09 * self.unit)
        for side, far in (("R", (0.17, 0.43)), ("L", (0.2, 0.45))):
            airway.band(self.px(side, [(-0.01, 0.325), (0.07, 0.37), far]), np.array([0.07, 0.064, 0.044]) * self.unit, 190)
        body = Canvas(2).area(closed(self.curve("R", flank, 60), self.curve("L", flank, 60)))
        mediastinum = Canvas(2).area(closed(self.curve("L", aorta, 60), self.curve("R", CHEST.vena_cava)))
        center = ImageChops.lighter(Canvas(2).area(self.heart).image, mediastinum.image).filter(ImageFilter.GaussianBlur(1.2))
        center = np.asarray(center) * np.float32(1 / 255)
        lung = np.asarray(lung_mask.reduce(2)) * np.float32(1 / 255)
        rough = body.density(1 / 255)[::4, ::4]
        low = rough * (0.40 * gaussian_filter(rough, 9) + 0.035 * smooth_field(rng, 9, rough.shape))
        stomach = self.px("L", [0.52 + self._jitter["L"][0, 0] * 4, 0.905 - self.shape.lift_L])
        low -= rough * _blob(stomach, 0.20 * self.unit, 0.08 * self.unit, 0.26, len(rough))
        if self.female:
            radius = np.random.default_rng([self.patient_seed, 2]).uniform(0.31, 0.46) * self.unit
            low += rough * sum(_blob(self.px(side, [0.62, 0.70]), radius, radius, 0.11, len(rough)) for side in SIDES)
        density = body.density(0.42 / 255) + spine.density(0.10 / 150) + airway.density(-0.14 / 255)
        density += mediastinum.density(0.12 / 255)
        density = blur(density, 0.9)
        density += resized(low, lung.shape)
        # Heart and great vessels displace lung; they add little to what lies beside it.
        depth = resized(gaussian_filter(lung[::4, ::4], 5), lung.shape)
        density += 0.05 * center - lung * (0.30 + 0.32 * depth) * (1 - 0.80 * center)
        return _doubled(density)


def _blob(center: np.ndarray, rx: float, ry: float, height: float, size: int) -> np.ndarray:
    """A soft ellipse on a grid of ``(size, size)``; centre and radii in pixels of the film."""
    y, x = (axis * (SIZE / size) for axis in np.ogrid[:size, :size])
    distance = ((x - center[0]) / rx) ** 2 + ((y - center[1]) / ry) ** 2
    return falloff((distance - 1) * 5, height).astype(np.float32)


def _doubled(array: np.ndarray) -> np.ndarray:
    """Bilinear upsampling by two, as :func:`resized` does it, only faster."""
    for axis in (0, 1):
        padded = np.pad(array, [(1 - axis, 1 - axis), (axis, axis)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        halves = [0.75 * array + 0.25 * before, 0.75 * array + 0.25 * after]
        array = np.stack(halves, axis=axis + 1).reshape((2 - axis) * len(array), -1)
    return array

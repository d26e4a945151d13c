"""The normal chest of PhantomCXR (synthetic): where each structure lies, and how dense it is. [ours]

Structures are smooth curves in a patient's own frame: ``dx`` in half chest widths from the midline, ``t`` from the
lung apices (0) to the costophrenic angles (1). A film's pose maps them to pixels. Density is additive, as attenuation
is along a ray; about 0.25 is aerated lung and 1 the mediastinum. Side 'R' is the patient's right: left in the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

__all__ = ["SIDES", "SIZE", "Thorax", "blur", "ribbon", "smooth_field", "smooth_line"]

SIZE = 1024
SIDES = {"R": -1.0, "L": 1.0}

# Control points (dx, t) of one lung: chest wall from the medial apex to the costophrenic angle, dome of the
# diaphragm back to the midline, mediastinal edge up again.
_WALL = np.array([(0.17, 0.10), (0.25, 0.025), (0.42, -0.005), (0.60, 0.045), (0.76, 0.16), (0.88, 0.34), (0.955, 0.56),
                  (0.99, 0.78), (0.985, 0.93), (0.965, 1.0)])  # fmt: skip
_DOME = np.array([(0.965, 1.0), (0.90, 0.93), (0.76, 0.865), (0.56, 0.835), (0.36, 0.85), (0.17, 0.90)])
_MEDIAL = np.array([(0.17, 0.90), (0.16, 0.70), (0.15, 0.50), (0.13, 0.34), (0.14, 0.20), (0.17, 0.10)])


def smooth_line(points: np.ndarray, n: int = 40) -> np.ndarray:
    """A cubic curve through ``(k, 2)`` points, sampled at ``(n, 2)``."""
    return CubicSpline(np.linspace(0, 1, len(points)), points)(np.linspace(0, 1, n))


def ribbon(line: np.ndarray, width: float | np.ndarray) -> list[float]:
    """The outline of a band of this width (pixels) along a ``(n, 2)`` line, flat as ImageDraw takes it."""
    step = line[1:] - line[:-1]
    tangent = np.concatenate([step[:1], step[1:] + step[:-1], step[-1:]])
    half = tangent[:, ::-1] * (np.asarray(width) / 2 / (np.hypot(tangent[:, 0], tangent[:, 1]) + 1e-9))[:, None]
    half[:, 0] *= -1
    return np.concatenate([line + half, (line - half)[::-1]]).ravel().tolist()


def smooth_field(rng: np.random.Generator, cells: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Smooth noise, float32 ``(height, width)``, about unit variance, ``cells`` random values along each side."""
    grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))


def blur(array: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of a 2-D float32 array for small sigma (pixels): as scipy's, and several times faster."""
    radius = int(np.ceil(2.5 * sigma))
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2, dtype=np.float32)
    weights /= 2 * weights.sum() - weights[0]
    height, width = array.shape
    padded = np.pad(array, radius, mode="edge")
    out = np.empty_like(array)
    # A strip at a time stays in the processor's cache; that is where the speed comes from.
    for y in range(0, height, 32):
        strip = padded[y : min(y + 32, height) + 2 * radius]
        n = len(strip) - 2 * radius
        rows = weights[0] * strip[radius : radius + n]
        for k in range(1, radius + 1):
            rows += weights[k] * (strip[radius - k : radius - k + n] + strip[radius + k : radius + k + n])
        columns = np.multiply(rows[:, radius : radius + width], weights[0], out=out[y : y + n])
        for k in range(1, radius + 1):
            left, right = rows[:, radius - k : radius - k + width], rows[:, radius + k : radius + k + width]
            columns += weights[k] * (left + right)
    return out


@dataclass
class _Shape:
    """What a patient keeps from film to film."""

    half_width: float
    top: float
    length: float
    jitter: dict[str, np.ndarray]
    dome_lift: dict[str, float]
    ctr: float
    rib_step: float
    rib_width: float
    rib_drop: float
    margin: float
    knob: float
    vessels: float


def _patient(patient_seed: int) -> _Shape:
    rng = np.random.default_rng([patient_seed, 1])
    return _Shape(
        half_width=rng.uniform(330, 385),
        top=rng.uniform(118, 160),
        length=rng.uniform(610, 690),
        jitter={side: rng.normal(0, 0.012, (len(_WALL), 2)) for side in SIDES},
        dome_lift={"R": rng.uniform(0.0, 0.05), "L": rng.uniform(-0.04, 0.02)},
        ctr=rng.uniform(0.42, 0.50),
        rib_step=rng.uniform(0.090, 0.102),
        rib_width=rng.uniform(0.85, 1.15),
        rib_drop=rng.uniform(0.85, 1.25),
        margin=rng.uniform(0.14, 0.34),
        knob=rng.uniform(0.165, 0.205),
        vessels=rng.uniform(0.85, 1.15),
    )


class Thorax:
    """One patient's chest on one film.

    Args:
        patient_seed: anatomy; the same number gives the same chest.
        rng: the film's own draws (pose, inspiration).
        tilt: scale of pose differences; 1 is a standing patient.
        ap: AP projection: a magnified heart.
        female, age: breast shadows; calcified rib cartilage and a wider aorta.
        ctr: cardiothoracic ratio where disease sets it; None takes the patient's own (0.42 to 0.50). Breath and
            projection change what the film shows by -0.03 to 0.05.
        raised: by how much of the lung's height each hemidiaphragm is lifted by volume loss.

    Attributes:
        walls, domes, lungs: side -> float64 ``(n, 2)`` pixel lines: chest wall from apex to angle, dome from angle to
            midline, closed lung outline.
        heart: ``(n, 2)`` closed outline in pixels.
        unit: pixels of one ``dx``.
    """

    def __init__(
        self,
        patient_seed: int,
        rng: np.random.Generator,
        tilt: float = 1.0,
        ap: bool = False,
        female: bool = False,
        age: int = 50,
        ctr: float | None = None,
        raised: dict[str, float] | None = None,
    ) -> None:
        self.patient_seed, self.female, self.age, self.ap = patient_seed, female, age, ap
        self.shape = shape = _patient(patient_seed)
        self._center = np.array([SIZE / 2, shape.top + 0.55 * shape.length])
        self._shift = rng.normal(0, 11, 2) * tilt
        self._scale = rng.uniform(0.965, 1.03) * (0.975 if ap else 1.0)
        angle = np.deg2rad(rng.normal(0, 1.1) * tilt)
        self._turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self._breath = rng.uniform(0.93, 1.03) - (0.05 if ap else 0.0)
        self._rotation = rng.normal(0, 0.012) * tilt
        self.unit = shape.half_width * self._scale
        # A shallow breath and an AP film widen the heart's shadow: a healthy one can look large.
        apparent = rng.normal(0, 0.018) + 0.4 * (1 - self._breath) + (rng.uniform(0.0, 0.02) if ap else 0.0)
        self.ctr = min(0.70, (shape.ctr if ctr is None else ctr) + float(np.clip(apparent, -0.03, 0.05)))
        self.walls, self.domes, self.lungs, self._wall_curves = {}, {}, {}, {}
        for side in SIDES:
            wall = smooth_line(_WALL + shape.jitter[side])
            dome = _DOME.copy()
            dome[0] = wall[-1]
            dome[1:, 1] -= shape.dome_lift[side] + (raised or {}).get(side, 0.0)
            dome, medial = smooth_line(dome), _MEDIAL.copy()
            medial[0], medial[-1] = dome[-1], wall[0]
            self._wall_curves[side] = wall
            self.walls[side], self.domes[side] = self.px(side, wall), self.px(side, dome)
            self.lungs[side] = np.concatenate(
                [self.walls[side], self.domes[side][1:], self.px(side, smooth_line(medial))[1:-1]]
            )
        self.heart = self._heart()

    def px(self, side: str, points: np.ndarray) -> np.ndarray:
        """Patient frame ``(..., 2)`` (dx, t) to pixels ``(..., 2)`` (x, y)."""
        points = np.asarray(points, dtype=np.float64)
        shape, sign = self.shape, SIDES[side]
        t = points[..., 1] * np.where(points[..., 1] > 0, self._breath, 1.0)
        x = SIZE / 2 + (sign * points[..., 0] + self._rotation * (t > 0.3)) * shape.half_width
        canonical = np.stack([x, shape.top + t * shape.length], axis=-1)
        return (canonical - self._center) @ self._turn.T * self._scale + self._center + self._shift

    def wall_dx(self, side: str, t: float) -> float:
        """The chest wall's dx at height t."""
        wall = self._wall_curves[side][10:]
        return float(np.interp(t, wall[:, 1], wall[:, 0]))

    def at(self, side: str, u: float, t: float) -> np.ndarray:
        """The pixel (2,) at fraction u from mediastinum (0) to chest wall (1), at height t of a lung."""
        return self.px(side, np.array([0.17 + u * (self.wall_dx(side, t) - 0.17), t]))

    def _heart(self) -> np.ndarray:
        # Of the heart's width about a third lies right of the midline. The chest is 2 dx wide at its widest.
        width = 2 * 0.985 * self.ctr
        right, left = 0.33 * width, 0.67 * width
        grow = self.ctr - 0.46
        left_edge = [(0.10, 0.36), (0.19, 0.44), (0.5 * left, 0.52), (0.86 * left, 0.66 - grow * 0.3), (left, 0.78),
                     (0.93 * left, 0.87), (0.55 * left, 0.91)]  # fmt: skip
        right_edge = [(0.10, 0.36), (0.14, 0.44), (0.80 * right, 0.55 - grow * 0.3), (right, 0.70),
                      (0.90 * right, 0.83), (0.55 * right, 0.90)]  # fmt: skip
        return np.concatenate(
            [self.px("L", smooth_line(np.array(left_edge))), self.px("R", smooth_line(np.array(right_edge)))[::-1]]
        )

    def lung_mask(self) -> Image.Image:
        """8-bit 1024 x 1024 mask: 255 inside either lung outline (the heart overlaps them)."""
        image = Image.new("L", (SIZE, SIZE))
        for outline in self.lungs.values():
            ImageDraw.Draw(image).polygon(outline.ravel().tolist(), fill=255)
        return image

    def soft_tissue(self, rng: np.random.Generator, lung_mask: Image.Image) -> np.ndarray:
        """Everything that has no fine detail: float32 density ``(1024, 1024)``, drawn at half size."""
        body = np.asarray(self._filled(self._body()))
        mediastinum = self._filled(self._mediastinum())
        center = ImageChops.lighter(self._filled(self.heart), mediastinum).filter(ImageFilter.GaussianBlur(1.2))
        center = np.asarray(center) * np.float32(1 / 255)
        lung = np.asarray(lung_mask.reduce(2)) * np.float32(1 / 255)
        rough = body[::4, ::4] * np.float32(1 / 255)
        size = len(rough)
        low = rough * (0.40 * gaussian_filter(rough, 9) + 0.035 * smooth_field(rng, 9, size, size))
        stomach = self.px("L", np.array([0.52 + self.shape.jitter["L"][0, 0] * 4, 0.905 - self.shape.dome_lift["L"]]))
        low -= rough * self._blob(stomach, (0.20 * self.unit, 0.08 * self.unit), 0.26, size)
        if self.female:
            low += rough * self._breasts(size)
        density = body * np.float32(0.42 / 255) + self._spine() + self._airway()
        density += np.asarray(mediastinum) * np.float32(0.12 / 255)
        density = blur(density, 0.9)
        density += _resized(low, SIZE // 2)
        # Heart and great vessels displace lung; they add little to what lies beside it.
        depth = _resized(gaussian_filter(lung[::4, ::4], 5), SIZE // 2)
        density += 0.05 * center - lung * (0.30 + 0.32 * depth) * (1 - 0.80 * center)
        return _doubled(density)

    def _filled(self, outline: np.ndarray) -> Image.Image:
        """An outline filled with 255 on the half-size grid."""
        image = Image.new("L", (SIZE // 2, SIZE // 2))
        ImageDraw.Draw(image).polygon((outline / 2).ravel().tolist(), fill=255)
        return image

    def _blob(self, center: np.ndarray, radii: tuple[float, float], height: float, size: int) -> np.ndarray:
        y, x = np.ogrid[:size, :size]
        step = SIZE / size
        distance = ((x * step - center[0]) / radii[0]) ** 2 + ((y * step - center[1]) / radii[1]) ** 2
        return (height / (1 + np.exp(np.clip((distance - 1) * 5, -30, 30)))).astype(np.float32)

    def _body(self) -> np.ndarray:
        margin = self.shape.margin
        flank = [(0.30, -0.40), (0.30, -0.19), (0.48, -0.115), (0.95, -0.05), (1.30, 0.06), (1.48, 0.26), (1.47, 0.42),
                 (1.0 + margin, 0.55), (1.03 + margin, 0.8), (1.06 + margin, 1.9)]  # fmt: skip
        sides = [self.px(side, smooth_line(np.array(flank), 60)) for side in SIDES]
        return np.concatenate([sides[0], sides[1][::-1]])

    def _mediastinum(self) -> np.ndarray:
        knob = self.shape.knob + max(0, self.age - 60) * 0.0008
        left = [(0.13, -0.05), (0.13, 0.12), (0.145, 0.21), (knob, 0.29), (0.16, 0.36), (0.19, 0.43), (0.18, 0.55),
                (0.15, 1.7)]  # fmt: skip
        right = [(0.13, -0.05), (0.14, 0.14), (0.16, 0.24), (0.155, 0.34), (0.16, 0.44), (0.15, 1.7)]
        return np.concatenate(
            [self.px("L", smooth_line(np.array(left), 60)), self.px("R", smooth_line(np.array(right)))[::-1]]
        )

    def _spine(self) -> np.ndarray:
        image = Image.new("L", (SIZE // 2, SIZE // 2))
        draw = ImageDraw.Draw(image)
        column = self.px("L", np.array([(0.0, -0.4), (0.0, 0.5), (0.0, 1.8)]))
        draw.polygon(ribbon(column / 2, 0.155 * self.unit / 2), fill=85)
        for t in np.arange(-0.25, 1.6, 0.078):
            corners = [(-0.085, t), (0.085, t), (0.078, t + 0.03), (0.085, t + 0.062), (-0.085, t + 0.062),
                       (-0.078, t + 0.03)]  # fmt: skip
            draw.polygon((self.px("L", np.array(corners)) / 2).ravel().tolist(), fill=140)
            for dx in (-0.05, 0.05):
                x, y = self.px("L", np.array([dx, t + 0.02])) / 2
                draw.ellipse((x - 3, y - 4, x + 3, y + 4), fill=175)
        return np.asarray(image) * np.float32(0.10 / 150)

    def _airway(self) -> np.ndarray:
        image = Image.new("L", (SIZE // 2, SIZE // 2))
        draw = ImageDraw.Draw(image)
        trachea = self.px("R", smooth_line(np.array([(0.0, -0.3), (0.005, 0.0), (0.015, 0.2), (0.02, 0.34)]), 12))
        draw.polygon(ribbon(trachea / 2, 0.045 * self.unit), fill=255)
        for side, far in (("R", (0.17, 0.43)), ("L", (0.2, 0.45))):
            bronchus = self.px(side, np.array([(-0.01, 0.325), (0.07, 0.37), far]))
            draw.polygon(ribbon(bronchus / 2, np.array([0.035, 0.032, 0.022]) * self.unit), fill=190)
        return np.asarray(image) * np.float32(-0.14 / 255)

    def _breasts(self, size: int) -> np.ndarray:
        radius = np.random.default_rng([self.patient_seed, 2]).uniform(0.31, 0.46) * self.unit
        return sum(self._blob(self.px(side, np.array([0.62, 0.70])), (radius, radius), 0.11, size) for side in SIDES)


def _doubled(array: np.ndarray) -> np.ndarray:
    """Bilinear upsampling by two, as :func:`_resized` does it, only faster."""
    for axis in (0, 1):
        padded = np.pad(array, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        halves = [0.75 * array + 0.25 * before, 0.75 * array + 0.25 * after]
        shape = [n * (2 if a == axis else 1) for a, n in enumerate(array.shape)]
        array = np.stack(halves, axis=axis + 1).reshape(shape)
    return array


def _resized(array: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BILINEAR))

"""What PhantomCXR (synthetic) is drawn with: smooth lines and noise, areas, bands, discs, soft edges and blur. [ours]"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml
from PIL import Image, ImageDraw
from scipy.interpolate import CubicSpline

SIZE = 1024
SIDES = {"R": -1.0, "L": 1.0}  # the patient's right is left in the image
_TABLES = yaml.safe_load(Path(__file__).with_name("chest.yaml").read_text(encoding="utf-8"))
CHEST = SimpleNamespace(**_TABLES, **{name: np.array(points) for name, points in _TABLES["lines"].items()})


def falloff(distance: np.ndarray, height: float = 1.0) -> np.ndarray:
    """``height`` far inside an edge (negative distance), 0 far outside, half of it on the edge."""
    return height / (1 + np.exp(np.clip(distance, -30, 30)))


def smooth_line(points: np.ndarray | list, n: int = 40) -> np.ndarray:
    """A cubic curve through ``(k, 2)`` points, sampled at ``(n, 2)``."""
    return CubicSpline(np.linspace(0, 1, len(points)), points)(np.linspace(0, 1, n))


def closed(down: np.ndarray, up: np.ndarray) -> np.ndarray:
    """An outline of two ``(n, 2)`` lines that run the same way: down one, back along the other."""
    return np.concatenate([down, up[::-1]])


def resized(array: np.ndarray, shape: tuple[int, int], how: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """A 2-D float32 array at another shape."""
    return np.asarray(Image.fromarray(array).resize(shape[::-1], how))


def smooth_field(rng: np.random.Generator, cells: int, shape: tuple[int, int]) -> np.ndarray:
    """Smooth noise, float32 ``shape``, about unit variance, ``cells`` random values along each side."""
    return resized(rng.standard_normal((cells, cells)).astype(np.float32), shape, Image.Resampling.BICUBIC)


class Canvas:
    """A drawing of 8 bits, ``shape`` pixels of the film at ``1 / step`` of their size; points and widths are in film pixels."""

    def __init__(self, step: int = 1, shape: tuple[int, int] = (SIZE, SIZE)) -> None:
        self.step, self.image = step, Image.new("L", (shape[1] // step, shape[0] // step))
        self.draw = ImageDraw.Draw(self.image)

    def area(self, outline: np.ndarray, shade: int = 255) -> Canvas:
        """Fill a closed ``(n, 2)`` outline."""
        self.draw.polygon((outline / self.step).ravel().tolist(), fill=shade)
        return self

    def band(self, line: np.ndarray, width: float | np.ndarray, shade: int = 255) -> None:
        """A band of this width along a ``(n, 2)`` line."""
        line, width = line / self.step, np.asarray(width) / self.step
        stride = line[1:] - line[:-1]
        tangent = np.concatenate([stride[:1], stride[1:] + stride[:-1], stride[-1:]])
        half = tangent[:, ::-1] * (-1, 1) * (width / 2 / (np.hypot(tangent[:, 0], tangent[:, 1]) + 1e-9))[:, None]
        self.draw.polygon(closed(line + half, line - half).ravel().tolist(), fill=shade)

    def disc(self, center: np.ndarray, rx: float, ry: float, shade: int | None = None, **style: int) -> None:
        """An ellipse of radii ``rx`` and ``ry``."""
        (x, y), rx, ry = np.asarray(center) / self.step, rx / self.step, ry / self.step
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=shade, **style)

    def density(self, unit: float) -> np.ndarray:
        """The drawing as float32, ``unit`` for each level of grey."""
        return np.asarray(self.image) * np.float32(unit)


def blur(array: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of a 2-D float32 array for small sigma (pixels): as scipy's, and several times faster."""
    radius = int(np.ceil(2.5 * sigma))
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2, dtype=np.float32)
    weights /= 2 * weights.sum() - weights[0]
    (height, width), padded, out = array.shape, np.pad(array, radius, mode="edge"), np.empty_like(array)
    # A strip at a time stays in the processor's cache; that is where the speed comes from.
    for y in range(0, height, 32):
        n = min(32, height - y)
        strip = padded[y : y + n + 2 * radius]
        rows = weights[0] * strip[radius : radius + n]
        for k in range(1, radius + 1):
            rows += weights[k] * (strip[radius - k : radius - k + n] + strip[radius + k : radius + k + n])
        columns = np.multiply(rows[:, radius : radius + width], weights[0], out=out[y : y + n])
        for k in range(1, radius + 1):
            columns += weights[k] * (rows[:, radius - k : radius - k + width] + rows[:, radius + k : radius + k + width])
    return out

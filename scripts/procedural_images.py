"""Procedural captioned images of general things: the pre-training diets of the tiny experts.

Two diets. ``scenes``: one to eight simple shapes (discs, rings, lines, blobs, ...) on plain, striped, cloudy or grainy
backgrounds. ``textures``: materials (stripes, grids, clouds, cracks, ...), often a patch of one inside another,
sometimes with a flaw. Both are general-domain: shapes, textures, sizes, places, brightness; neither draws or names a
body.

Everything is rendered for a whole batch at once and follows from the seed, so nothing is stored on disk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CELLS", "DIETS", "MARKS", "SIZE", "WORDS", "Batch", "place_name", "scenes", "spot_images", "textures"]

SIZE = 128  # pixels
CELLS = 8  # the dense labels lie on an 8 x 8 grid
MARKS = 32  # the maps of bright and dark marks lie on a 32 x 32 grid

SHAPES = ("disc", "ring", "square", "frame", "triangle", "bar", "line", "cross", "blob", "arc")
PLURALS = {"cross": "crosses"}
SIZES = ("tiny", "small", "medium", "large")
RADII = ((1.5, 3.2), (3.5, 7.0), (9.0, 15.0), (19.0, 32.0))  # pixels
BACKGROUNDS = ("plain", "striped", "cloudy", "grainy", "gradient")
TEXTURES = ("stripes", "grid", "checks", "dots", "waves", "hatching", "clouds", "grain", "fibres", "cracks", "rings",
            "smooth")
ORIENTED = ("stripes", "waves", "fibres")
SCALES = ("fine", "medium", "coarse")
FREQUENCIES = ((17.0, 26.0), (8.0, 12.0), (3.0, 5.5))  # periods across the image
ORIENTATIONS = ("horizontal", "rising", "vertical", "falling")
FLAWS = ("speck", "scratch", "stain", "no flaw")
PLACES = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
TINTS = {"red": (1.0, 0.35, 0.3), "green": (0.35, 1.0, 0.4), "blue": (0.35, 0.5, 1.0), "yellow": (1.0, 0.9, 0.3)}
COUNTS = ("one", "two", "three", "four")

_GLUE = """a and of on in the with under background picture surface patch haze spot spots crosses above below faint
strong bright dark blurry"""
WORDS = frozenset(" ".join([_GLUE, *SHAPES, *(f"{shape}s" for shape in SHAPES), *SIZES, *BACKGROUNDS, *TEXTURES,
                            *SCALES, *ORIENTATIONS, *FLAWS, *PLACES, *TINTS, *COUNTS]).split())
"""Every word that a caption can hold."""


@dataclass
class Batch:
    """A batch of captioned images and everything that the generator knows about them.

    Attributes:
        images: float32 ``(B, 3, 128, 128)`` in [0, 1].
        captions: B English captions.
        cells: float32 ``(B, L, 8, 8)`` in {0, 1}: which of L attributes are present in each cell.
        marks: float32 ``(B, 2, 32, 32)`` in [0, 1]: how much of each cell bright and dark marks cover.
        attributes: name -> int64 ``(B,)`` class index, -1 where the attribute does not apply.
    """

    images: Tensor
    captions: list[str]
    cells: Tensor
    marks: Tensor
    attributes: dict[str, Tensor]


def place_name(x: float, y: float) -> str:
    """Name of a place in the image; ``x`` and ``y`` in pixels from the top left."""
    return PLACES[int(min(y * 3 // SIZE, 2)) * 3 + int(min(x * 3 // SIZE, 2))]


def _sources(seed: int | tuple[int, ...]) -> tuple[np.random.Generator, torch.Generator]:
    rng = np.random.default_rng(seed)
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


def _grid() -> tuple[Tensor, Tensor]:
    axis = torch.arange(SIZE, dtype=torch.float32) + 0.5
    return axis.view(1, 1, SIZE), axis.view(1, SIZE, 1)


def _clouds(n: int, cells: int, noise: torch.Generator) -> Tensor:
    """Smooth noise with ``cells`` bumps across, ``(n, 128, 128)``, standard deviation about 0.7."""
    coarse = torch.randn(n, 1, cells, cells, generator=noise)
    return F.interpolate(coarse, (SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]


def _distance(kind: str, x: Tensor, y: Tensor, r: Tensor, phase: Tensor) -> Tensor:
    """Signed distance in pixels (negative inside) to a shape of radius ``r`` around the origin."""
    stroke = (0.14 * r).clamp(min=1.0)
    if kind == "disc":
        return torch.hypot(x, y) - r
    if kind == "ring":
        return (torch.hypot(x, y) - r).abs() - stroke
    if kind == "arc":
        return torch.maximum((torch.hypot(x, y) - r).abs() - stroke, -y)
    if kind == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.9 * r
    if kind == "frame":
        return (torch.maximum(x.abs(), y.abs()) - 0.9 * r).abs() - stroke
    if kind == "triangle":
        return torch.maximum(0.866 * x.abs() + 0.5 * y, -y) - 0.6 * r
    if kind == "bar":
        return torch.maximum(x.abs() - 1.2 * r, y.abs() - 0.35 * r)
    if kind == "line":
        return torch.maximum(x.abs() - 2.5 * r, (y - x * x * phase * 0.03 / r).abs() - 0.7)
    if kind == "cross":
        ax, ay = x.abs(), y.abs()
        arm = 0.25 * r
        return torch.minimum(torch.maximum(ax - r, ay - arm), torch.maximum(ay - r, ax - arm))
    angle = torch.atan2(y, x)
    edge = 1 + 0.25 * torch.cos(2 * angle + 6 * phase) + 0.15 * torch.cos(5 * angle - 9 * phase)
    return torch.hypot(x, 1.3 * y) - r * edge


def _draw_shapes(kind: np.ndarray, x: np.ndarray, y: np.ndarray, radius: np.ndarray, angle: np.ndarray,
                 soft: np.ndarray, phase: np.ndarray) -> Tensor:
    """Opacities ``(n, 128, 128)`` of n shapes; the arguments hold one number a shape."""
    gx, gy = _grid()
    out = torch.empty(len(kind), SIZE, SIZE)
    for index, name in enumerate(SHAPES):
        rows = np.flatnonzero(kind == index)
        if not len(rows):
            continue
        cx, cy, r, a, w, p = (torch.from_numpy(v[rows].astype(np.float32)).view(-1, 1, 1)
                              for v in (x, y, radius, angle, soft, phase))
        dx, dy = gx - cx, gy - cy
        u, v = dx * a.cos() + dy * a.sin(), dy * a.cos() - dx * a.sin()
        out[torch.from_numpy(rows)] = torch.sigmoid(-_distance(name, u, v, r, p) / w)
    return out


def _backgrounds(kind: np.ndarray, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
    """Grey backgrounds ``(n, 128, 128)`` around 0.5; every one has some gradient, clouds and noise of its own."""
    n = len(kind)
    gx, gy = (g / SIZE - 0.5 for g in _grid())

    def column(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).view(-1, 1, 1)

    angle = column(rng.uniform(0, 2 * math.pi, n))
    slope = column(np.where(kind == 4, rng.uniform(0.35, 0.7, n), rng.uniform(0, 0.15, n)))
    image = column(rng.uniform(0.35, 0.65, n)) + slope * (gx * angle.cos() + gy * angle.sin())
    image += column(np.where(kind == 2, rng.uniform(0.1, 0.2, n), rng.uniform(0, 0.04, n))) * _clouds(n, 7, noise)
    image += column(np.where(kind == 3, rng.uniform(0.05, 0.11, n), rng.uniform(0, 0.03, n))) * torch.randn(
        n, SIZE, SIZE, generator=noise)
    rows = np.flatnonzero((kind == 1) | (rng.random(n) < 0.12))
    if len(rows):
        tilt, bend = column(rng.uniform(0, math.pi, len(rows))), column(rng.uniform(-0.8, 0.8, len(rows)))
        across, along = gx * tilt.cos() + gy * tilt.sin(), gy * tilt.cos() - gx * tilt.sin()
        wave = torch.sin(2 * math.pi * column(rng.uniform(4, 14, len(rows))) * (across + bend * along * along)
                         + column(rng.uniform(0, 6.3, len(rows))))
        strength = np.where(kind[rows] == 1, rng.uniform(0.06, 0.18, len(rows)), 0.03)
        image[torch.from_numpy(rows)] += column(strength) * wave
    return image


def _finish(grey: Tensor, rng: np.random.Generator, noise: torch.Generator) -> tuple[Tensor, np.ndarray]:
    """Blur some, change contrast and brightness, tint a fifth; ``(n, 3, 128, 128)`` and tint numbers (4: grey)."""
    n = len(grey)
    rows = torch.from_numpy(np.flatnonzero(rng.random(n) < 0.3))
    if len(rows):
        kernel = torch.tensor([0.25, 0.5, 0.25])
        kernel = (kernel[:, None] * kernel).view(1, 1, 3, 3)
        grey[rows] = F.conv2d(F.pad(grey[rows, None], (1, 1, 1, 1), mode="replicate"), kernel)[:, 0]
    gain = torch.from_numpy(rng.uniform(0.6, 1.3, n).astype(np.float32)).view(-1, 1, 1)
    shift = torch.from_numpy(rng.uniform(-0.12, 0.12, n).astype(np.float32)).view(-1, 1, 1)
    grey = ((grey - 0.5) * gain + 0.5 + shift).clamp(0, 1)
    tint = np.where(rng.random(n) < 0.2, rng.integers(0, len(TINTS), n), len(TINTS))
    colours = torch.tensor([*TINTS.values(), (1.0, 1.0, 1.0)])[torch.from_numpy(tint)]
    return grey[:, None] * colours.view(n, 3, 1, 1), tint


def _cells(mask: Tensor, grid: int, how: str = "max") -> Tensor:
    pool = F.max_pool2d if how == "max" else F.avg_pool2d
    return pool(mask[:, None], SIZE // grid)[:, 0]


def _scene_phrase(rng: np.random.Generator, group: dict, place: bool) -> str:
    words = [COUNTS[group["count"] - 1] if group["count"] > 1 else "a"]
    words.append(SIZES[group["size"]])
    if group["faint"] and rng.random() < 0.7:
        words.append("faint")
    words.append("bright" if group["bright"] else "dark")
    if group["blurry"] and rng.random() < 0.8:
        words.append("blurry")
    name = SHAPES[group["shape"]]
    if name == "disc" and group["size"] < 2 and rng.random() < 0.6:
        name = "spot"
    words.append(name if group["count"] == 1 else PLURALS.get(name, name + "s"))
    if group["count"] == 1 and place:
        words.append(f"in the {group['place']}")
    return " ".join(words)


def _scene_caption(rng: np.random.Generator, groups: list[dict], background: str, tint: str | None) -> str:
    if len(groups) == 2 and all(g["count"] == 1 for g in groups) and rng.random() < 0.3:
        first, second = groups
        dx, dy = second["x"] - first["x"], second["y"] - first["y"]
        horizontal = abs(dx) >= abs(dy)
        relation = ("left of" if dx > 0 else "right of") if horizontal else ("above" if dy > 0 else "below")
        text = f"{_scene_phrase(rng, first, False)} {relation} {_scene_phrase(rng, second, False)}"
    else:
        text = " and ".join(_scene_phrase(rng, g, rng.random() < 0.9) for g in groups)
    if rng.random() < 0.8:
        text += f" on a {background} background"
    if tint is not None and rng.random() < 0.8:
        text += f", {tint} picture"
    return text


def scenes(n: int, seed: int | tuple[int, ...], single: bool = False) -> Batch:
    """Shapes on backgrounds.

    Args:
        n: number of images.
        seed: everything follows from it.
        single: one group of equal shapes an image, so that its attributes are those of the image (for testing).
    """
    rng, noise = _sources(seed)
    background = rng.integers(0, len(BACKGROUNDS), n)
    owner, texts = [], []
    drawn = {k: [] for k in ("kind", "x", "y", "r", "angle", "soft", "phase", "amp", "size", "blurry")}
    names = ("shape", "size", "bright", "blurry", "count", "place")
    attributes = {name: np.full(n, -1) for name in names}
    for i in range(n):
        groups = []
        named = 1 if single or rng.random() < 0.4 else 2
        for _ in range(named if single else named + rng.integers(0, 4)):
            size = int(rng.choice(4, p=(0.28, 0.3, 0.24, 0.18)))
            shape = int(rng.integers(len(SHAPES)))
            if size == 0 and SHAPES[shape] != "line":
                shape = 0  # nothing but a spot or a dash can be told apart in five pixels
            blurry = bool(rng.random() < (0.8 if SHAPES[shape] == "blob" else 0.25))
            count = int(rng.integers(1, 5)) if size < 2 and rng.random() < 0.4 and len(groups) < named else 1
            amplitude = float(rng.uniform(0.12, 0.5))
            group = {"shape": shape, "size": size, "blurry": blurry, "count": count, "faint": amplitude < 0.2,
                     "bright": bool(rng.random() < 0.6)}
            margin = 6 + 0.6 * RADII[size][1]
            for _ in range(count):
                x, y = rng.uniform(margin, SIZE - margin, 2)
                radius = rng.uniform(*RADII[size])
                soft = max(1.2, 0.3 * radius) if blurry else 0.45
                signed = amplitude if group["bright"] else -amplitude
                row = (shape, x, y, radius, rng.uniform(0, 2 * math.pi), soft, rng.uniform(-1, 1), signed, size, blurry)
                for key, value in zip(drawn, row, strict=True):
                    drawn[key].append(value)
                owner.append(i)
            groups.append(group | {"x": x, "y": y, "place": place_name(x, y)})
        first = groups[0]
        row = (first["shape"] if first["size"] else -1, first["size"], int(first["bright"]), int(first["blurry"]),
               first["count"] - 1 if first["size"] < 2 else -1,
               PLACES.index(first["place"]) if first["count"] == 1 else -1)
        for name, value in zip(names, row, strict=True):
            attributes[name][i] = value
        texts.append(groups[:named])  # what is left out is drawn and labelled, but no caption tells everything

    part = {key: np.asarray(value) for key, value in drawn.items()}
    alpha = _draw_shapes(*(part[k] for k in ("kind", "x", "y", "r", "angle", "soft", "phase")))
    index = torch.tensor(owner)
    amp = torch.from_numpy(part["amp"].astype(np.float32)).view(-1, 1, 1)
    grey = _backgrounds(background, rng, noise).index_add_(0, index, alpha * amp)

    marks = torch.zeros(n, 2, MARKS, MARKS)
    small = _cells(alpha, MARKS)
    for channel, chosen in enumerate((part["amp"] > 0, part["amp"] < 0)):
        rows = torch.from_numpy(np.flatnonzero(chosen))
        marks[:, channel].index_add_(0, index[rows], small[rows])
    touched = F.max_pool2d(small[:, None], MARKS // CELLS)[:, 0] > 0.5
    labels = [part["kind"], len(SHAPES) + part["size"], 14 + (part["amp"] > 0), np.where(part["blurry"], 16, 17)]
    cells = torch.zeros(n, 18, CELLS, CELLS)
    for column in labels:
        cells.index_put_((index, torch.from_numpy(column)), touched.float(), accumulate=True)
    images, tint = _finish(grey, rng, noise)
    tints = [*TINTS, None]
    captions = [_scene_caption(rng, g, BACKGROUNDS[background[i]], tints[tint[i]]) for i, g in enumerate(texts)]
    attributes |= {"background": background, "tint": tint}
    return Batch(images, captions, cells.clamp(max=1), marks.clamp(max=1),
                 {k: torch.from_numpy(np.asarray(v)).long() for k, v in attributes.items()})


def _draw_textures(kind: np.ndarray, frequency: np.ndarray, angle: np.ndarray, rng: np.random.Generator,
                   noise: torch.Generator) -> Tensor:
    """Textures ``(n, 128, 128)`` in about [-1, 1]; ``frequency`` in periods an image, ``angle`` in radians."""
    gx, gy = (g / SIZE - 0.5 for g in _grid())
    out = torch.zeros(len(kind), SIZE, SIZE)
    for index, name in enumerate(TEXTURES):
        rows = np.flatnonzero(kind == index)
        if not len(rows):
            continue
        m = len(rows)
        f, a = (torch.from_numpy(v[rows].astype(np.float32)).view(-1, 1, 1) for v in (frequency, angle))
        phase = torch.from_numpy(rng.uniform(0, 1, (2, m, 1, 1)).astype(np.float32))
        u, v = (gx * a.sin() + gy * a.cos()) * f + phase[0], (gx * a.cos() - gy * a.sin()) * f + phase[1]
        wave_u, wave_v = torch.sin(2 * math.pi * u), torch.sin(2 * math.pi * v)
        if name == "stripes":
            value = torch.tanh(3 * wave_u)
        elif name == "grid":
            value = 2 * torch.sigmoid(12 * (torch.maximum(wave_u, wave_v) - 0.85)) - 1
        elif name == "checks":
            value = torch.tanh(5 * wave_u * wave_v)
        elif name == "dots":
            value = 2 * torch.sigmoid(6 * (wave_u + wave_v - 0.9)) - 1
        elif name == "waves":
            value = torch.sin(2 * math.pi * (u + 0.45 * torch.sin(2 * math.pi * v * 0.4)))
        elif name == "hatching":
            skew = torch.sin(2 * math.pi * (0.5 * u + 0.87 * v))
            value = 2 * torch.sigmoid(12 * (torch.maximum(wave_u, skew) - 0.85)) - 1
        elif name == "rings":
            centre = torch.from_numpy(rng.uniform(-0.4, 0.4, (2, m, 1, 1)).astype(np.float32))
            value = torch.sin(2 * math.pi * f * torch.hypot(gx - centre[0], gy - centre[1]))
        elif name == "smooth":
            value = torch.zeros(m, SIZE, SIZE)
        else:
            stretch = (0.12, 1.0) if name == "fibres" else (1.0, 1.0)
            where = torch.stack([v * stretch[0], u * stretch[1]], dim=-1) / 32.0  # 64 x 64 cells span [-1, 1]
            field = torch.randn(m, 1, 64, 64, generator=noise)
            value = F.grid_sample(field, where, mode="bilinear", padding_mode="reflection", align_corners=False)[:, 0]
            if name == "grain":
                value = torch.tanh(4 * (value - 0.5))
            elif name == "cracks":
                value = 1 - 2 * torch.exp(-((value / 0.12) ** 2))
        out[torch.from_numpy(rows)] = value.clamp(-1.6, 1.6)
    return out


def _texture_name(rng: np.random.Generator, kind: int, scale: int, turn: int) -> str:
    name = TEXTURES[kind]
    words = [] if name == "smooth" else [SCALES[scale]]
    if name in ORIENTED and rng.random() < 0.85:
        words.append(ORIENTATIONS[turn])
    return " ".join([*words, "smooth surface" if name == "smooth" else name])


def textures(n: int, seed: int | tuple[int, ...], single: bool = False) -> Batch:
    """Textures and materials; same arguments as :func:`scenes` (``single``: no second texture)."""
    rng, noise = _sources(seed)
    kind, scale = rng.integers(0, len(TEXTURES), (2, n)), rng.integers(0, len(SCALES), (2, n))
    turn = rng.integers(0, 4, (2, n))
    low, high = np.asarray(FREQUENCIES)[scale].transpose(2, 0, 1)
    frequency = rng.uniform(low, high)
    angle = turn * math.pi / 4 + rng.uniform(-0.2, 0.2, (2, n))
    strong = rng.random((2, n)) < 0.6
    amplitude = np.where(strong, rng.uniform(0.15, 0.3, (2, n)), rng.uniform(0.04, 0.1, (2, n)))
    kind[1] = np.where(kind[1] == kind[0], (kind[0] + 1 + scale[1]) % len(TEXTURES), kind[1])
    patched = np.zeros(n, dtype=bool) if single else rng.random(n) < 0.6

    layers = [_draw_textures(kind[j], frequency[j], angle[j], rng, noise) for j in (0, 1)]
    level = rng.uniform(-0.12, 0.12, (2, n))
    layers = [torch.from_numpy(amplitude[j].astype(np.float32)).view(-1, 1, 1) * layer
              + torch.from_numpy(level[j].astype(np.float32)).view(-1, 1, 1) for j, layer in enumerate(layers)]
    px, py = rng.uniform(20, SIZE - 20, (2, n))
    patch = _draw_shapes(rng.choice((0, 2, 8), n), px, py, rng.uniform(18, 36, n), rng.uniform(0, 6.3, n),
                         rng.uniform(0.5, 6, n), rng.uniform(-1, 1, n))
    patch *= torch.from_numpy(patched.astype(np.float32)).view(-1, 1, 1)

    flaws = rng.choice(4, (1 if single else 4, n), p=(0.35, 0.15, 0.2, 0.3))  # the first of each image is named
    owner = np.tile(np.arange(n), len(flaws))[flaws.ravel() < 3]
    index, kinds, m = torch.from_numpy(owner), flaws[flaws < 3], len(owner)
    fx, fy = rng.uniform(10, SIZE - 10, (2, m))
    radius = np.choose(kinds, (rng.uniform(2, 5, m), rng.uniform(8, 16, m), rng.uniform(7, 16, m)))
    light = rng.random(m) < 0.55
    spots = _draw_shapes(np.array([0, 6, 8])[kinds], fx, fy, radius, rng.uniform(0, 6.3, m),
                         np.where(kinds == 2, 0.35 * radius, 0.5), rng.uniform(-1, 1, m))
    sign = torch.from_numpy(np.where(light, 1, -1) * rng.uniform(0.15, 0.5, m)).float().view(-1, 1, 1)

    grey = 0.5 + layers[0] * (1 - patch) + layers[1] * patch
    grey.index_add_(0, index, sign * spots)
    hazy = rng.random(n) < 0.2
    fog = torch.sigmoid(1.5 * _clouds(n, 3, noise)) * torch.from_numpy(hazy.astype(np.float32)).view(-1, 1, 1)
    grey = grey * (1 - 0.7 * fog) + 0.62 * 0.7 * fog
    gx, gy = _grid()
    tilt = torch.from_numpy(rng.uniform(-0.15, 0.15, (2, n, 1, 1)).astype(np.float32))
    grey += tilt[0] * (gx / SIZE - 0.5) + tilt[1] * (gy / SIZE - 0.5)
    grey += torch.from_numpy(rng.uniform(0, 0.05, n).astype(np.float32)).view(-1, 1, 1) * torch.randn(
        n, SIZE, SIZE, generator=noise)
    images, tint = _finish(grey, rng, noise)

    area = _cells(patch, CELLS, "mean") > 0.5
    cells = torch.zeros(n, 23, CELLS, CELLS)
    everyone = torch.arange(n)
    for j, mask in ((0, ~area), (1, area)):
        oriented = np.isin(kind[j], [TEXTURES.index(name) for name in ORIENTED])
        for column in (kind[j], 12 + scale[j], np.where(oriented, 15 + turn[j], 19)):
            cells.index_put_((everyone, torch.from_numpy(column)), mask.float(), accumulate=True)
    cells.index_put_((index, torch.from_numpy(20 + kinds)), (_cells(spots, CELLS) > 0.5).float(), accumulate=True)
    marks = torch.zeros(n, 2, MARKS, MARKS)
    marks.index_put_((index, torch.from_numpy(np.where(light, 0, 1))), _cells(spots, MARKS), accumulate=True)

    tints, captions, place, flaw = [*TINTS, None], [], np.full(n, -1), flaws[0]
    told = {image: row for row, image in enumerate(owner[: (flaw < 3).sum()])}
    for i in range(n):
        main = _texture_name(rng, kind[0, i], scale[0, i], turn[0, i])
        text = f"{'strong' if strong[0, i] else 'faint'} {main}" if rng.random() < 0.7 else main
        if patched[i]:
            text += f" with a patch of {_texture_name(rng, kind[1, i], scale[1, i], turn[1, i])}"
            text += f" in the {place_name(px[i], py[i])}"
        if flaw[i] < 3:
            row = told[i]
            place[i] = PLACES.index(place_name(fx[row], fy[row]))
            text += f" and a {'bright' if light[row] else 'dark'} {FLAWS[flaw[i]]} in the {PLACES[place[i]]}"
        if hazy[i] and rng.random() < 0.8:
            text += " under haze"
        if tints[tint[i]] is not None and rng.random() < 0.8:
            text += f", {tints[tint[i]]} picture"
        captions.append(text)
    is_oriented = np.isin(kind[0], [TEXTURES.index(name) for name in ORIENTED])
    smooth = kind[0] == TEXTURES.index("smooth")
    attributes = {"texture": kind[0], "scale": np.where(smooth, -1, scale[0]),
                  "strength": np.where(smooth, -1, strong[0]), "orientation": np.where(is_oriented, turn[0], -1),
                  "flaw": flaw, "place": place, "haze": hazy, "tint": tint}
    return Batch(images, captions, cells.clamp(max=1), marks.clamp(max=1),
                 {k: torch.from_numpy(np.asarray(v)).long() for k, v in attributes.items()})


def spot_images(n: int, seed: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The spot test: one bright spot, 6 to 12 pixels wide, among lines, blobs, stripes and noise, or none.

    Returns:
        images float32 ``(n, 3, 128, 128)`` in [0, 1] and labels int64 ``(n,)``: 1 where there is a spot.
    """
    rng, noise = _sources(seed)
    kind = rng.integers(1, 4, n)
    grey = _backgrounds(kind, rng, noise) + 0.05 * torch.randn(n, SIZE, SIZE, generator=noise)
    for shape in (6, 8, 9):  # a line, a blurry blob and an arc in every image are no clue
        soft = np.full(n, 0.8) if shape != 8 else rng.uniform(4, 8, n)
        alpha = _draw_shapes(np.full(n, shape), *rng.uniform(10, SIZE - 10, (2, n)), rng.uniform(14, 30, n),
                             rng.uniform(0, 6.3, n), soft, rng.uniform(-1, 1, n))
        grey += torch.from_numpy(rng.uniform(-0.25, 0.25, n).astype(np.float32)).view(-1, 1, 1) * alpha
    label = rng.integers(0, 2, n)
    nothing = np.zeros(n)
    spot = _draw_shapes(nothing.astype(int), *rng.uniform(10, SIZE - 10, (2, n)), rng.uniform(3, 6, n), nothing,
                        rng.uniform(0.6, 1.5, n), nothing)
    grey += torch.from_numpy((label * rng.uniform(0.15, 0.4, n)).astype(np.float32)).view(-1, 1, 1) * spot
    return grey.clamp(0, 1)[:, None].expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(label)


DIETS = {"scenes": scenes, "textures": textures}

"""Fine detail of PhantomCXR's chest (synthetic), at full resolution: bones, vessels, and shadows that are no findings. [ours]"""

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from medbridge.data.phantom.anatomy import Thorax
from medbridge.data.phantom.shapes import CHEST, SIDES, SIZE, Canvas, falloff, smooth_line

_ELECTRODES = (("R", 0.75, 0.08), ("L", 0.75, 0.08), ("L", 0.85, 0.72), ("R", 0.8, 0.75))


def bones(thorax: Thorax) -> np.ndarray:
    """Ribs, clavicles, shoulder blades and calcified cartilage: float32 density ``(1024, 1024)``."""
    shape, rng = thorax.shape, np.random.default_rng([thorax.patient_seed, 3])
    back, front, blades = Canvas(), Canvas(), Canvas()
    curve, width = np.linspace(0, np.pi / 2, 18), 24 * shape.rib_width
    over, lift = (0.14, 0.035) if thorax.ap else (0.0, 0.0)
    for side in SIDES:
        for i in range(10):
            start = -0.035 + i * shape.rib_step + rng.normal(0, 0.004)
            drop = (0.085 + 0.011 * i) * shape.rib_drop
            dx = thorax.wall_dx(side, start + drop) + 0.03
            fall = start + drop * (1 - np.cos(curve)) - 0.02 * np.sin(2 * curve)
            posterior = thorax.px(side, np.stack([0.09 + (dx - 0.09) * np.sin(curve), fall], axis=1))
            back.band(posterior, width, 88)
            back.band(posterior, width - 5, 58)
            if i > 7:
                continue
            inner = 0.34 + 0.035 * max(0, i - 2)
            fall = start + drop + (0.10 + 0.012 * i) * np.sin(curve)
            anterior = thorax.px(side, np.stack([dx - (dx - inner) * (1 - np.cos(curve)), fall], axis=1))
            # Cartilage is radiolucent: an anterior rib thins out where it begins.
            for shade, stop in ((26, 18), (38, 13)):
                front.band(anterior[:stop], width * 0.95, shade + 10)
                front.band(anterior[:stop], width * 0.95 - 5, shade)
            if thorax.age > 55 and rng.random() < 0.45:
                for spot in thorax.px(side, [inner - 0.02, fall[-1]] + rng.normal(0, 0.016, (7, 2))):
                    r = rng.uniform(1.5, 4)
                    front.disc(spot, r * 1.8, r, int(rng.integers(50, 100)))
        clavicle = thorax.curve(side, CHEST.clavicle - (0, lift), 24)
        front.band(clavicle, width * 1.15, 112)
        front.band(clavicle, width * 1.15 - 7, 84)
        blade = [(0.98 - over, -0.02), (0.90 - over, 0.16), (0.95 - over, 0.34), (1.02 - over, 0.46), (1.22, 0.24), (1.28, 0.05)]
        blades.area(thorax.curve(side, blade), 34)
        front.disc(thorax.px(side, [1.25, 0.11]), 0.13 * thorax.unit, 0.13 * thorax.unit, 60)
        front.band(thorax.px(side, CHEST.arm), 0.11 * thorax.unit, 60)
    return np.asarray(ImageChops.add(ImageChops.add(back.image, front.image), blades.image)) * np.float32(0.17 / 100)


def vessels(thorax: Thorax, lung_mask: Image.Image) -> np.ndarray:
    """Vessels branching from the hila, clipped to the lungs: float32 density ``(1024, 1024)``."""
    rng, canvas, steps = np.random.default_rng([thorax.patient_seed, 4]), Canvas(), 6
    for side, sign in SIDES.items():
        root = thorax.px(side, [0.235, 0.46])
        # Straight down is 0, lateral is 90, up is 180 degrees; more and larger vessels run to the bases.
        angle = np.deg2rad(np.array([4, 22, 40, 58, 78, 98, 122, 145, 166]) + rng.normal(0, 5, 9))
        start = root + np.stack([sign * rng.uniform(-6, 10, 9), np.linspace(28, -40, 9)], axis=1)
        width = (12.5 - 0.022 * np.rad2deg(angle)) * rng.uniform(0.85, 1.1, 9) * thorax.shape.vessels
        length = rng.uniform(85, 125, 9)
        lines: list[tuple[float, np.ndarray]] = []
        for _ in range(6):
            turn = angle[:, None] + np.cumsum(rng.normal(0, 0.085, (len(angle), steps)), axis=1)
            stride = (length / steps)[:, None, None] * np.stack([sign * np.sin(turn), np.cos(turn)], axis=2)
            path = start[:, None] + np.concatenate([np.zeros((len(angle), 1, 2)), np.cumsum(stride, axis=1)], axis=1)
            lines += zip(width, path, strict=True)
            spread = rng.uniform(0.22, 0.55, (2, len(angle)))
            angle = np.concatenate([turn[:, -1] + spread[0], turn[:, -1] - spread[1]])
            start = np.concatenate([path[:, -1], path[:, -1 - steps // 3]])
            width = np.concatenate([width * 0.78, width * 0.66])
            length = np.tile(length, 2) * rng.uniform(0.62, 0.95, len(angle))
            keep = (width > 1.2) & (np.abs(start - SIZE / 2) < SIZE * 0.45).all(axis=1)
            angle, start, width, length = angle[keep], start[keep], width[keep], length[keep]
        for w, path in sorted(lines, key=lambda line: line[0]):
            shade = int(min(12 + 13 * w, 150))
            canvas.draw.line(path.ravel().tolist(), fill=shade, width=max(1, round(w)), joint="curve" if w > 7 else None)
        # The hilum itself, and vessels seen end-on: sharp dots, smaller than any nodule.
        for center, r in zip(root + rng.normal(0, 14, (7, 2)), rng.uniform(9, 17, 7), strict=True):
            canvas.disc(center, r * 0.8, r, 128)
        for center in root + np.stack([sign * rng.uniform(15, 150, 8), rng.normal(0, 90, 8)], axis=1):
            r = rng.uniform(2.2, 4.3)
            canvas.disc(center, r, r, 170)
    mask = lung_mask.copy()
    ImageDraw.Draw(mask).polygon(thorax.heart.ravel().tolist(), fill=60)
    return np.asarray(ImageChops.multiply(canvas.image, ImageChops.darker(mask, lung_mask))) * np.float32(0.24 / 170)


def _add_disc(density: np.ndarray, center: np.ndarray, radius: float, height: float, soft: float) -> None:
    """Add a round shadow; ``soft`` is the width of its edge in pixels (a Gaussian where it is at least the radius)."""
    (x, y), reach = center, int(radius + 2.5 * min(soft, radius)) + 2
    window = np.s_[max(0, int(y) - reach) : min(SIZE, int(y) + reach), max(0, int(x) - reach) : min(SIZE, int(x) + reach)]
    yy, xx = np.ogrid[window]
    distance = np.sqrt((xx - x) ** 2 + (yy - y) ** 2)
    bell = np.exp(-0.5 * (distance / (0.75 * radius)) ** 2)
    patch = bell if soft >= radius else falloff((distance - radius) / (soft / 4))
    density[window] += (height * patch).astype(np.float32)


def shadows(density: np.ndarray, thorax: Thorax, rng: np.random.Generator) -> None:
    """Add shadows that mimic findings and carry no label: summation (vessel over rib), nipples, a skin fold."""
    # Summation shadows have a nodule's size and total density but no edge: once the film is shrunk, the two look alike.
    for _ in range(rng.integers(7, 14)):
        center = thorax.at(rng.choice(["R", "L"]), rng.uniform(0.15, 0.9), rng.uniform(0.1, 0.8))
        # A disc of height h and radius r has the total density of a Gaussian of height h r^2 / (2 sigma^2).
        sigma, mass = rng.uniform(5.0, 9.0), rng.uniform(0.08, 0.27) * rng.uniform(7.2, 12) ** 2
        _add_disc(density, center, sigma / 0.75, min(0.32, mass / (2 * sigma**2)), 99)
    if rng.random() < 0.22:  # nipples come in pairs, larger and softer than nodules
        radius, height = rng.uniform(13, 17), rng.uniform(0.05, 0.11)
        u, t = rng.uniform(0.5, 0.65), rng.uniform(0.68, 0.78)
        for side in SIDES:
            if rng.random() < 0.85:
                _add_disc(density, thorax.at(side, u + rng.normal(0, 0.03), t + rng.normal(0, 0.012)), radius, height, 12)
    if rng.random() < (0.30 if thorax.ap else 0.08):  # a skin fold is an edge without a line
        side = rng.choice(["R", "L"])
        upper, lower = thorax.at(side, rng.uniform(0.55, 0.9), 0.05), thorax.at(side, rng.uniform(0.55, 0.9), 0.75)
        y = np.arange(int(upper[1]), int(lower[1]))
        bend = rng.uniform(-25, 25) * np.sin(np.linspace(0, np.pi, len(y)))
        edge = np.interp(y, (upper[1], lower[1]), (upper[0], lower[0])) + bend
        x0, x1 = max(0, int(edge.min()) - 70), min(SIZE, int(edge.max()) + 70)
        beyond = (np.arange(x0, x1)[None] - edge[:, None]) * -SIDES[side]
        fade = np.sin(np.linspace(0, np.pi, len(y)))[:, None] ** 0.5
        density[y[0] : y[-1] + 1, x0:x1] += (0.07 * fade * (beyond > 0) * np.exp(-beyond / 22)).astype(np.float32)


def devices(density: np.ndarray, thorax: Thorax, rng: np.random.Generator, share: dict[str, float]) -> None:
    """Draw leads, lines, a pacemaker, a tube and buttons in place, each with the hospital's own probability."""
    canvas = Canvas()

    def wire(width: int, shade: int, *points: np.ndarray | tuple) -> None:
        """Through pixels, or through ``(side, dx, t)`` of the patient's frame."""
        line = smooth_line([thorax.px(point[0], point[1:]) if len(point) == 3 else point for point in points])
        canvas.draw.line(line.ravel().tolist(), fill=shade, width=width, joint="curve")

    used = {name for name, probability in share.items() if rng.random() < probability}
    if "ecg" in used:
        for side, u, t in _ELECTRODES[: rng.integers(2, 5)]:
            x, y = spot = thorax.at(side, u + rng.normal(0, 0.08), t + rng.normal(0, 0.05))
            canvas.disc(spot, 13, 13, outline=80, width=3)
            canvas.disc(spot, 5, 5, 170)
            end = (x + SIDES[side] * rng.uniform(60, 260), SIZE + 5 if rng.random() < 0.7 else -5)
            wire(3, 95, spot, (x + rng.normal(0, 50), 0.6 * y + 0.4 * end[1]), end)
    if "line" in used:
        side, tip = rng.choice(["R", "L"], p=[0.7, 0.3]), ("R", 0.10, rng.uniform(0.36, 0.5))
        begin = (side, 0.24, -0.25) if rng.random() < 0.6 else (side, 0.85, 0.06)
        wire(4, 75, begin, (side, 0.16, 0.10), ("R", 0.11, 0.24), tip)
    if "tube" in used:
        wire(8, 55, ("R", 0.0, -0.3), ("R", 0.01, 0.1), ("R", 0.01, rng.uniform(0.2, 0.28)))
    if "pacemaker" in used:
        x, y = thorax.px("L", [0.72, 0.12]) + rng.normal(0, 12, 2)
        canvas.draw.rounded_rectangle((x - 46, y - 36, x + 46, y + 36), radius=26, fill=235)
        wire(4, 130, (x - 30, y - 30), ("L", 0.3, 0.0), ("R", 0.09, 0.2), ("R", 0.1, 0.6), ("L", 0.35, 0.84))
    if "buttons" in used:
        for t in np.arange(0.15, 0.95, 0.2):
            spot = thorax.px("L", [0.06 + rng.normal(0, 0.01), t])
            canvas.disc(spot, 8, 8, 140)
            canvas.disc(spot, 2, 2, 60)
    if used:
        density += canvas.density(0.9 / 235)

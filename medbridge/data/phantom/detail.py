"""The fine detail of PhantomCXR's chest (synthetic): bones, vessels, and shadows that are no findings. [ours]

All of it is drawn at the film's full resolution, because what hides or mimics a small finding is small too.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from medbridge.data.phantom.anatomy import SIDES, SIZE, Thorax, ribbon, smooth_line

__all__ = ["bones", "devices", "shadows", "vessels"]


def bones(thorax: Thorax) -> np.ndarray:
    """Ribs, clavicles, shoulder blades and calcified cartilage: float32 density ``(1024, 1024)``."""
    shape, rng = thorax.shape, np.random.default_rng([thorax.patient_seed, 3])
    layers = [Image.new("L", (SIZE, SIZE)) for _ in range(3)]
    draw_back, draw_front, draw_blade = (ImageDraw.Draw(layer) for layer in layers)
    curve = np.linspace(0, np.pi / 2, 18)
    width = 24 * shape.rib_width
    for side in SIDES:
        for i in range(10):
            start = -0.035 + i * shape.rib_step + rng.normal(0, 0.004)
            drop = (0.085 + 0.011 * i) * shape.rib_drop
            dx = thorax.wall_dx(side, start + drop) + 0.03
            fall = start + drop * (1 - np.cos(curve)) - 0.02 * np.sin(2 * curve)
            posterior = np.stack([0.09 + (dx - 0.09) * np.sin(curve), fall], axis=1)
            inner = 0.34 + 0.035 * max(0, i - 2)
            fall = start + drop + (0.10 + 0.012 * i) * np.sin(curve)
            anterior = np.stack([dx - (dx - inner) * (1 - np.cos(curve)), fall], axis=1)
            line = thorax.px(side, posterior)
            draw_back.polygon(ribbon(line, width), fill=88)
            draw_back.polygon(ribbon(line, width - 5), fill=58)
            if i > 7:
                continue
            # Cartilage is radiolucent: an anterior rib thins out where it begins.
            line = thorax.px(side, anterior)
            for shade, stop in ((52, 18), (76, 13)):
                draw_front.polygon(ribbon(line[:stop], width * 0.95), fill=shade // 2 + 10)
                draw_front.polygon(ribbon(line[:stop], width * 0.95 - 5), fill=shade // 2)
            if thorax.age > 55 and rng.random() < 0.45:
                for x, y in thorax.px(side, [inner - 0.02, anterior[-1, 1]] + rng.normal(0, 0.016, (7, 2))):
                    r = rng.uniform(1.5, 4)
                    draw_front.ellipse((x - r * 1.8, y - r, x + r * 1.8, y + r), fill=int(rng.integers(50, 100)))
        lift = 0.035 if thorax.ap else 0.0
        clavicle = np.array([(0.07, 0.125), (0.3, 0.085), (0.6, 0.015), (0.9, -0.012), (1.08, -0.01)]) - (0, lift)
        clavicle = thorax.px(side, smooth_line(clavicle, 24))
        draw_front.polygon(ribbon(clavicle, width * 1.15), fill=112)
        draw_front.polygon(ribbon(clavicle, width * 1.15 - 7), fill=84)
        over = 0.14 if thorax.ap else 0.0
        blade = np.array([(0.98 - over, -0.02), (0.90 - over, 0.16), (0.95 - over, 0.34), (1.02 - over, 0.46),
                          (1.22, 0.24), (1.28, 0.05)])  # fmt: skip
        draw_blade.polygon(thorax.px(side, smooth_line(blade)).ravel().tolist(), fill=34)
        x, y = thorax.px(side, np.array([1.25, 0.11]))
        r = 0.13 * thorax.unit
        draw_front.ellipse((x - r, y - r, x + r, y + r), fill=60)
        arm = thorax.px(side, np.array([(1.27, 0.12), (1.34, 0.26), (1.42, 0.42)]))
        draw_front.polygon(ribbon(arm, 0.11 * thorax.unit), fill=60)
    return np.asarray(ImageChops.add(ImageChops.add(*layers[:2]), layers[2])) * np.float32(0.17 / 100)


def vessels(thorax: Thorax, lung_mask: Image.Image) -> np.ndarray:
    """Vessels branching from the hila, clipped to the lungs: float32 density ``(1024, 1024)``."""
    rng = np.random.default_rng([thorax.patient_seed, 4])
    image = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(image)
    steps = 6
    for side, sign in SIDES.items():
        root = thorax.px(side, np.array([0.235, 0.46]))
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
            lines += list(zip(width, path, strict=True))
            spread = rng.uniform(0.22, 0.55, (2, len(angle)))
            angle = np.concatenate([turn[:, -1] + spread[0], turn[:, -1] - spread[1]])
            start = np.concatenate([path[:, -1], path[:, -1 - steps // 3]])
            width = np.concatenate([width * 0.78, width * 0.66])
            length = np.tile(length, 2) * rng.uniform(0.62, 0.95, len(angle))
            keep = (width > 1.2) & (np.abs(start - SIZE / 2) < SIZE * 0.45).all(axis=1)
            angle, start, width, length = angle[keep], start[keep], width[keep], length[keep]
        for w, path in sorted(lines, key=lambda line: line[0]):
            shade = int(min(12 + 13 * w, 150))
            draw.line(path.ravel().tolist(), fill=shade, width=max(1, round(w)), joint="curve" if w > 7 else None)
        # The hilum itself, and vessels seen end-on: sharp dots, smaller than any nodule.
        for center, r in zip(root + rng.normal(0, 14, (7, 2)), rng.uniform(9, 17, 7), strict=True):
            draw.ellipse((center[0] - r * 0.8, center[1] - r, center[0] + r * 0.8, center[1] + r), fill=128)
        for x, y in root + np.stack([sign * rng.uniform(15, 150, 8), rng.normal(0, 90, 8)], axis=1):
            r = rng.uniform(2.2, 4.3)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=170)
    mask = lung_mask.copy()
    ImageDraw.Draw(mask).polygon(thorax.heart.ravel().tolist(), fill=60)
    return np.asarray(ImageChops.multiply(image, ImageChops.darker(mask, lung_mask))) * np.float32(0.24 / 170)


def add_disc(density: np.ndarray, x: float, y: float, radius: float, height: float, soft: float) -> None:
    """Add a round shadow in place; ``soft`` is the width of its edge in pixels (a Gaussian where it equals radius)."""
    reach = int(radius + 2.5 * min(soft, radius)) + 2
    x0, y0 = max(0, int(x) - reach), max(0, int(y) - reach)
    x1, y1 = min(SIZE, int(x) + reach), min(SIZE, int(y) + reach)
    if x0 >= x1 or y0 >= y1:
        return
    yy, xx = np.ogrid[y0:y1, x0:x1]
    distance = np.sqrt((xx - x) ** 2 + (yy - y) ** 2)
    if soft >= radius:
        patch = np.exp(-0.5 * (distance / (0.75 * radius)) ** 2)
    else:
        patch = 1 / (1 + np.exp(np.clip((distance - radius) / (soft / 4), -30, 30)))
    density[y0:y1, x0:x1] += (height * patch).astype(np.float32)


def shadows(density: np.ndarray, thorax: Thorax, rng: np.random.Generator) -> None:
    """Shadows that mimic findings and carry no label, added in place.

    Summation shadows (vessel over rib) have a nodule's size and total density but no edge: once the film is shrunk,
    the two look alike. Nipples come in pairs, larger and softer than nodules. A skin fold is an edge without a line.
    """
    for _ in range(rng.integers(7, 14)):
        x, y = thorax.at(rng.choice(["R", "L"]), rng.uniform(0.15, 0.9), rng.uniform(0.1, 0.8))
        # A disc of height h and radius r has the total density of a Gaussian of height h r^2 / (2 sigma^2).
        sigma, mass = rng.uniform(5.0, 9.0), rng.uniform(0.08, 0.27) * rng.uniform(7.2, 12) ** 2
        add_disc(density, x, y, sigma / 0.75, min(0.32, mass / (2 * sigma**2)), 99)
    if rng.random() < 0.22:
        radius, height = rng.uniform(13, 17), rng.uniform(0.05, 0.11)
        u, t = rng.uniform(0.5, 0.65), rng.uniform(0.68, 0.78)
        for side in SIDES:
            if rng.random() < 0.85:
                x, y = thorax.at(side, u + rng.normal(0, 0.03), t + rng.normal(0, 0.012))
                add_disc(density, x, y, radius, height, 12)
    if rng.random() < (0.30 if thorax.ap else 0.08):
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
    image = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(image)

    def wire(points: list, width: int, shade: int) -> None:
        draw.line(smooth_line(np.array(points), 40).ravel().tolist(), fill=shade, width=width, joint="curve")

    used = {name: rng.random() < p for name, p in share.items()}
    if used.get("ecg"):
        spots = (("R", 0.75, 0.08), ("L", 0.75, 0.08), ("L", 0.85, 0.72), ("R", 0.8, 0.75))
        for side, u, t in spots[: rng.integers(2, 5)]:
            x, y = thorax.at(side, u + rng.normal(0, 0.08), t + rng.normal(0, 0.05))
            draw.ellipse((x - 13, y - 13, x + 13, y + 13), outline=80, width=3)
            draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=170)
            out = (x + SIDES[side] * rng.uniform(60, 260), SIZE + 5 if rng.random() < 0.7 else -5)
            wire([(x, y), (x + rng.normal(0, 50), 0.6 * y + 0.4 * out[1]), out], 3, 95)
    if used.get("line"):
        side = rng.choice(["R", "L"], p=[0.7, 0.3])
        tip = thorax.px("R", np.array([0.10, rng.uniform(0.36, 0.5)]))
        begin = thorax.px(side, np.array([0.24, -0.25] if rng.random() < 0.6 else [0.85, 0.06]))
        wire([begin, thorax.px(side, np.array([0.16, 0.10])), thorax.px("R", np.array([0.11, 0.24])), tip], 4, 75)
    if used.get("tube"):
        wire([thorax.px("R", np.array([0.0, -0.3])), thorax.px("R", np.array([0.01, 0.1])),
              thorax.px("R", np.array([0.01, rng.uniform(0.2, 0.28)]))], 8, 55)  # fmt: skip
    if used.get("pacemaker"):
        x, y = thorax.px("L", np.array([0.72, 0.12])) + rng.normal(0, 12, 2)
        draw.rounded_rectangle((x - 46, y - 36, x + 46, y + 36), radius=26, fill=235)
        wire([(x - 30, y - 30), thorax.px("L", np.array([0.3, 0.0])), thorax.px("R", np.array([0.09, 0.2])),
              thorax.px("R", np.array([0.1, 0.6])), thorax.px("L", np.array([0.35, 0.84]))], 4, 130)  # fmt: skip
    if used.get("buttons"):
        for t in np.arange(0.15, 0.95, 0.2):
            x, y = thorax.px("L", np.array([0.06 + rng.normal(0, 0.01), t]))
            draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=140)
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=60)
    if any(used.values()):
        density += np.asarray(image) * np.float32(0.9 / 235)

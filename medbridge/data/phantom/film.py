"""One film of PhantomCXR (synthetic): a chest, its findings, and how a hospital takes and prints the picture. [ours]

The steps follow a radiograph's own: densities add up along the ray, quanta bring noise that grows where few get
through, the detector blurs, a characteristic curve turns exposure into grey values, and the room leaves its
collimator's edges and its side marker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medbridge.data.phantom.anatomy import SIZE, Thorax, blur
from medbridge.data.phantom.detail import bones, devices, shadows, vessels
from medbridge.data.phantom.findings import FINDINGS, Box, Scene, draw_finding, heart_ratio, volume_loss

__all__ = ["HOSPITALS", "Film", "Hospital", "draw_film"]


@dataclass(frozen=True)
class Film:
    """One synthetic film: image uint8 ``(1024, 1024)``, white = dense.

    ``labels`` maps each of the eight names to 0 or 1; ``boxes`` holds ``(label, x0, y0, x1, y1)`` in pixels;
    ``meta`` holds hospital, age (years), sex ('F' or 'M') and view ('PA' or 'AP').
    """

    image: np.ndarray
    labels: dict[str, int]
    boxes: list[tuple[str, float, float, float, float]]
    meta: dict[str, str | int]


@dataclass(frozen=True)
class Hospital:
    """How one synthetic hospital works.

    Attributes:
        ap, female: shares of AP films and of women; age: mean and standard deviation in years.
        noise: quantum noise (density) in the open lung; blur: detector blur in pixels (sigma).
        sharpen: strength of edge enhancement; center, slope: of the characteristic curve.
        exposure: film-to-film spread of ``center``; tilt: spread of poses, 1 = standing.
        collimated: share of films with visible collimator edges; marker: the side marker's text.
        devices: probability of each device; prevalence: of each label.
    """

    ap: float
    female: float
    age: tuple[float, float]
    noise: float
    blur: float
    sharpen: float
    center: float
    slope: float
    exposure: float
    tilt: float
    collimated: float
    marker: str
    devices: Mapping[str, float] = field(default_factory=dict)
    prevalence: Mapping[str, float] = field(default_factory=dict)


HOSPITALS: dict[str, Hospital] = {
    # A teaching hospital: balanced, well exposed.
    "A": Hospital(
        ap=0.15, female=0.48, age=(56, 16), noise=0.022, blur=0.9, sharpen=0.0, center=0.60, slope=4.6, exposure=0.025,
        tilt=1.0, collimated=0.25, marker="R",
        devices={"ecg": 0.08, "line": 0.08, "pacemaker": 0.06, "buttons": 0.03},
        prevalence={"Atelectasis": 0.18, "Cardiomegaly": 0.16, "Effusion": 0.20, "Infiltration": 0.22, "Mass": 0.13,
                    "Nodule": 0.20, "Pneumonia": 0.14, "Pneumothorax": 0.11},
    ),
    # An outpatient clinic: younger, hard contrast, edge enhancement, tight collimation.
    "B": Hospital(
        ap=0.03, female=0.56, age=(46, 15), noise=0.016, blur=0.75, sharpen=0.7, center=0.55, slope=6.2, exposure=0.03,
        tilt=0.8, collimated=0.75, marker="L",
        devices={"ecg": 0.01, "line": 0.02, "pacemaker": 0.04, "buttons": 0.08},
        prevalence={"Atelectasis": 0.12, "Cardiomegaly": 0.12, "Effusion": 0.13, "Infiltration": 0.20, "Mass": 0.16,
                    "Nodule": 0.26, "Pneumonia": 0.15, "Pneumothorax": 0.09},
    ),
    # Intensive care: portable AP films, noisy and flat, many devices.
    "C": Hospital(
        ap=0.96, female=0.42, age=(65, 14), noise=0.058, blur=1.15, sharpen=0.0, center=0.56, slope=3.7, exposure=0.06,
        tilt=2.0, collimated=0.10, marker="AP PORT",
        devices={"ecg": 0.85, "line": 0.60, "tube": 0.35, "pacemaker": 0.12},
        prevalence={"Atelectasis": 0.30, "Cardiomegaly": 0.24, "Effusion": 0.34, "Infiltration": 0.24, "Mass": 0.09,
                    "Nodule": 0.10, "Pneumonia": 0.20, "Pneumothorax": 0.17},
    ),
}  # fmt: skip


def draw_film(
    seed: int,
    patient_seed: int,
    hospital: str,
    findings: tuple[str, ...],
    subtlety: float | None,
    age: int,
    female: bool,
) -> Film:
    """Draw one film. Arguments are taken as checked; :func:`medbridge.data.phantom.benchmark.make_film` checks them."""
    site = HOSPITALS[hospital]
    rng = np.random.default_rng([seed, 10])
    ap = bool(rng.random() < site.ap)
    looks = {name: np.random.default_rng([seed, 20 + i]) for i, name in enumerate(FINDINGS)}
    degree = {name: subtlety if subtlety is not None else float(looks[name].random()) for name in FINDINGS}
    thorax = Thorax(
        patient_seed, rng, site.tilt, ap, female, age,
        ctr=heart_ratio(looks["Cardiomegaly"], degree["Cardiomegaly"]) if "Cardiomegaly" in findings else None,
        raised=volume_loss(_place(patient_seed, "Atelectasis"), looks["Atelectasis"], degree["Atelectasis"])
        if "Atelectasis" in findings else None,
    )  # fmt: skip
    mask = thorax.lung_mask()
    markings = vessels(thorax, mask)
    density = thorax.soft_tissue(rng, mask) + bones(thorax)
    density += markings
    scene = Scene(thorax, density, markings, np.asarray(mask) * np.float32(1 / 255))
    shadows(scene.density, thorax, rng)
    boxes: list[tuple[str, float, float, float, float]] = []
    for name in FINDINGS:
        if name in findings:
            drawn = draw_finding(name, scene, _place(patient_seed, name), looks[name], degree[name])
            boxes += [(name, *_inside(box)) for box in drawn]
    devices(scene.density, thorax, rng, site.devices)
    image = _expose(scene.density, site, rng)
    _print(image, site, rng)
    meta: dict[str, str | int] = {
        "hospital": hospital, "age": age, "sex": "F" if female else "M", "view": "AP" if ap else "PA"
    }  # fmt: skip
    return Film(image, {name: int(name in findings) for name in sorted(FINDINGS)}, boxes, meta)


def _place(patient_seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([patient_seed, 40 + FINDINGS.index(name)])


def _inside(box: Box) -> Box:
    return tuple(float(np.clip(value, 0, SIZE)) for value in box)


def _expose(density: np.ndarray, site: Hospital, rng: np.random.Generator) -> np.ndarray:
    """Density to grey values: noise, blur, edge enhancement, characteristic curve; uint8 (1024, 1024)."""
    center = site.center + rng.normal(0, site.exposure)
    slope = site.slope * rng.uniform(0.92, 1.08)
    # Quanta fall by e per unit of density: in density, the noise of few quanta grows by the root of that. The even
    # noise drawn here turns normal in the blur.
    gain = np.clip(density, 0, 1.4)
    gain *= 0.9
    gain += 0.75
    gain *= rng.integers(-128, 128, (SIZE, SIZE), dtype=np.int8)
    gain *= np.float32(site.noise * rng.uniform(0.85, 1.2) / 74)
    gain += density
    seen = blur(gain, site.blur)
    if site.sharpen:
        coarse = Image.fromarray(seen).reduce(4).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        seen *= np.float32(1 + site.sharpen)
        seen -= np.float32(site.sharpen) * np.asarray(coarse)
    levels = np.arange(-512, 1537) / 1024 * 1.6
    curve = 1 / (1 + np.exp(-slope * (levels - center)))
    floor = 1 / (1 + np.exp(slope * center))
    table = np.clip(252 * (curve - floor) / (0.97 - floor) + 3, 0, 255).astype(np.uint8)
    seen *= np.float32(1024 / 1.6)
    seen += 512
    np.clip(seen, 0, 2048, out=seen)
    return table.take(seen.astype(np.int16))


def _print(image: np.ndarray, site: Hospital, rng: np.random.Generator) -> None:
    """Collimator edges and the side marker, in place."""
    top, bottom, left, right = (rng.integers(12, 70, 4) * (rng.random(4) < site.collimated)).tolist()
    image[:top] = image[SIZE - bottom :] = 4
    image[:, :left] = image[:, SIZE - right :] = 4
    height = int(rng.integers(34, 46))
    marker = Image.new("L", (height * len(site.marker) + 20, height + 20))
    ImageDraw.Draw(marker).text((10, 4), site.marker, fill=255, font=ImageFont.load_default(height))
    marker = np.asarray(marker.rotate(rng.normal(0, 6 * site.tilt), expand=True))
    x = 80 if site.marker == "R" else 930 if site.marker == "L" else 150
    x, y = int(x + rng.normal(0, 14)), int(86 + rng.normal(0, 18))
    y0, x0 = max(0, y - marker.shape[0] // 2), max(0, x - marker.shape[1] // 2)
    window = image[y0 : y0 + marker.shape[0], x0 : x0 + marker.shape[1]]
    np.maximum(window, marker[: window.shape[0], : window.shape[1]], out=window)

"""One film of PhantomCXR (synthetic): a patient of a hospital, the chest and its findings, and how the hospital prints it. [ours]

As in a radiograph, densities add up along the ray, quanta bring noise, the detector blurs, a characteristic curve turns exposure
into grey values, and the room leaves its collimator's edges and its marker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import norm

from medbridge.data.phantom.anatomy import Thorax
from medbridge.data.phantom.detail import bones, devices, shadows, vessels
from medbridge.data.phantom.findings import DRAW, Scene, draw_side
from medbridge.data.phantom.shapes import SIZE, blur
from medbridge.data.table import check_choice, check_whole_number
from medbridge.errors import BenchmarkError

_TABLES = yaml.safe_load(Path(__file__).with_name("hospitals.yaml").read_text(encoding="utf-8"))
HOSPITALS = {name: SimpleNamespace(**site) for name, site in _TABLES["hospitals"].items()}
LABELS = tuple(HOSPITALS["A"].prevalence)

_CORRELATION = np.eye(len(LABELS))
for one, other, correlation in _TABLES["together"]:
    _CORRELATION[LABELS.index(one), LABELS.index(other)] = _CORRELATION[LABELS.index(other), LABELS.index(one)] = correlation
_SEVERITY = np.linalg.cholesky(_CORRELATION)
_PRESENT = {name: norm.isf(list(site.prevalence.values())) for name, site in HOSPITALS.items()}


@dataclass(frozen=True)
class Film:
    """One synthetic film."""

    image: np.ndarray  # uint8 (1024, 1024), white = dense
    labels: dict[str, int]  # each of the eight names -> 0 or 1
    boxes: list[tuple[str, float, float, float, float]]  # label, x0, y0, x1, y1 in pixels
    meta: dict[str, str | int]  # hospital, age (years), sex ('F' or 'M') and view ('PA' or 'AP')


def age_and_sex(patient_seed: int, hospital: str) -> tuple[int, bool]:
    """Age in years, and whether the patient is a woman."""
    site, rng = HOSPITALS[hospital], np.random.default_rng([patient_seed, 0])
    return int(np.clip(rng.normal(*site.age), 18, 95)), bool(rng.random() < site.female)


def draw_labels(seed: int, hospital: str, patient_seed: int) -> list[str]:
    """A film's findings: a multivariate probit, correlated severities cut where each label's prevalence says."""
    patient = np.random.default_rng([patient_seed, 6]).standard_normal(len(LABELS))
    film = np.random.default_rng([seed, 7]).standard_normal(len(LABELS))
    severity = _SEVERITY @ (np.sqrt(0.75) * patient + np.sqrt(0.25) * film)
    return [label for label, present in zip(LABELS, severity > _PRESENT[hospital], strict=True) if present]


def make_film(seed: int, hospital: str = "A", findings: Sequence[str] | None = None, patient_seed: int | None = None,
              subtlety: float | None = None) -> Film:
    """Draw one synthetic film; the same arguments give the same pixels.

    ``seed`` is the film: pose, noise, devices and how its findings look; ``patient_seed`` (None: the same) the patient: anatomy,
    and what and where the findings tend to be. ``hospital`` is 'A' (teaching), 'B' (outpatient) or 'C' (intensive care).
    ``findings`` are exactly these labels, or by the hospital's prevalence (None). ``subtlety`` of every finding goes from 0,
    plain, to 1, at the limit of sight; None draws one for each. BenchmarkError: any of them out of range.
    """
    patient_seed = seed if patient_seed is None else patient_seed
    check_whole_number("make_film: seed", seed, 0)
    check_whole_number("make_film: patient_seed", patient_seed, 0)
    check_choice("make_film: hospital", hospital, HOSPITALS)
    if subtlety is not None and not 0 <= subtlety <= 1:
        raise BenchmarkError(f"make_film: subtlety={subtlety!r}; give a number from 0 (plain) to 1 (limit of sight)")
    if isinstance(findings, str):
        raise BenchmarkError(f"make_film: findings={findings!r} is a string; give a list, e.g. [{findings!r}]")
    findings = draw_labels(seed, hospital, patient_seed) if findings is None else findings
    for name in findings:
        check_choice("make_film: findings", name, LABELS)
    site, (age, female), rng = HOSPITALS[hospital], age_and_sex(patient_seed, hospital), np.random.default_rng([seed, 10])
    ap = bool(rng.random() < site.ap)
    looks = {name: np.random.default_rng([seed, 20 + i]) for i, name in enumerate(DRAW)}
    degree = {name: subtlety if subtlety is not None else float(looks[name].random()) for name in DRAW}
    places = {name: [patient_seed, 40 + i] for i, name in enumerate(DRAW)}
    ctr, raised = None, {}
    if "Cardiomegaly" in findings:
        ratio = 0.66 - 0.115 * degree["Cardiomegaly"] ** 0.6 + looks["Cardiomegaly"].uniform(-0.02, 0.02)
        ctr = float(np.clip(ratio, 0.54, 0.68))
    if "Atelectasis" in findings:
        lift = (0.075 - 0.06 * degree["Atelectasis"]) * looks["Atelectasis"].uniform(0.6, 1.2)
        raised = {draw_side(np.random.default_rng(places["Atelectasis"])): lift}
    thorax = Thorax(patient_seed, rng, site.tilt, ap, female, age, ctr, raised)
    mask = thorax.lung_mask()
    markings = vessels(thorax, mask)
    density = thorax.soft_tissue(rng, mask) + bones(thorax)
    density += markings
    shadows(density, thorax, rng)
    lung, boxes = np.asarray(mask) * np.float32(1 / 255), []
    for name, draw in DRAW.items():
        if name in findings:
            place = np.random.default_rng(places[name])
            drawn = draw(Scene(thorax, density, markings, lung, place, looks[name], degree[name]))
            boxes += [(name, *np.clip(box, 0.0, SIZE).tolist()) for box in drawn]
    devices(density, thorax, rng, site.devices)
    image = _expose(density, site, rng)
    _print(image, site, rng)
    meta = {"hospital": hospital, "age": age, "sex": "F" if female else "M", "view": "AP" if ap else "PA"}
    return Film(image, {name: int(name in findings) for name in LABELS}, boxes, meta)


def _expose(density: np.ndarray, site: SimpleNamespace, rng: np.random.Generator) -> np.ndarray:
    """Density to grey values: noise, blur, edge enhancement, characteristic curve; uint8 (1024, 1024)."""
    center = site.center + rng.normal(0, site.exposure)
    slope = site.slope * rng.uniform(0.92, 1.08)
    # Quanta fall by e per unit of density: in density, the noise of few quanta grows by the root of that. The even noise drawn
    # here turns normal in the blur.
    gain = np.clip(density, 0, 1.4)
    gain *= 0.9
    gain += 0.75
    gain *= rng.integers(-128, 128, (SIZE, SIZE), dtype=np.int8)
    gain *= np.float32(site.noise * rng.uniform(0.85, 1.2) / 74)
    gain += density
    seen = blur(gain, site.blur)
    if site.sharpen:
        coarse = np.asarray(Image.fromarray(seen).reduce(4).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        seen *= np.float32(1 + site.sharpen)
        seen -= np.float32(site.sharpen) * coarse
    levels = np.arange(-512, 1537) / 1024 * 1.6
    curve = 1 / (1 + np.exp(-slope * (levels - center)))
    floor = 1 / (1 + np.exp(slope * center))
    table = np.clip(252 * (curve - floor) / (0.97 - floor) + 3, 0, 255).astype(np.uint8)
    seen *= np.float32(1024 / 1.6)
    seen += 512
    np.clip(seen, 0, 2048, out=seen)
    return table.take(seen.astype(np.int16))


def _print(image: np.ndarray, site: SimpleNamespace, rng: np.random.Generator) -> None:
    """Collimator edges and the side marker, in place."""
    top, bottom, left, right = (rng.integers(12, 70, 4) * (rng.random(4) < site.collimated)).tolist()
    image[:top] = image[SIZE - bottom :] = 4
    image[:, :left] = image[:, SIZE - right :] = 4
    height = int(rng.integers(34, 46))
    marker = Image.new("L", (height * len(site.marker) + 20, height + 20))
    ImageDraw.Draw(marker).text((10, 4), site.marker, fill=255, font=ImageFont.load_default(height))
    marker = np.asarray(marker.rotate(rng.normal(0, 6 * site.tilt), expand=True))
    x, y = int({"R": 80, "L": 930}.get(site.marker, 150) + rng.normal(0, 14)), int(86 + rng.normal(0, 18))
    window = image[max(0, y - marker.shape[0] // 2) :, max(0, x - marker.shape[1] // 2) :][: marker.shape[0], : marker.shape[1]]
    np.maximum(window, marker[: window.shape[0], : window.shape[1]], out=window)

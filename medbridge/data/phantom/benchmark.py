"""PhantomCXR: synthetic frontal chest films that this package draws itself, for runs without data. [ours]

No film shows a person. Eight of the NIH ChestX-ray14 labels, exact boxes, and three hospitals that differ in how they
take pictures and in whom they see. A seed fixes everything. The drawing itself is in ``film.py`` (one film),
``anatomy.py`` and ``detail.py`` (the normal chest) and ``findings.py``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import norm
from tqdm import tqdm

from medbridge.data.base import Benchmark
from medbridge.data.phantom.film import HOSPITALS, Film, draw_film
from medbridge.errors import BenchmarkError

__all__ = ["LABELS", "Film", "load_phantom", "make_film"]

LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"
)  # fmt: skip
GENERATOR_VERSION = 1

# Correlations of the labels' latent severities, after the co-occurrence table of NIH ChestX-ray14 (Wang et al. 2017).
_TOGETHER = {
    ("Atelectasis", "Effusion"): 0.50, ("Cardiomegaly", "Effusion"): 0.40, ("Infiltration", "Pneumonia"): 0.45,
    ("Atelectasis", "Infiltration"): 0.20, ("Effusion", "Infiltration"): 0.20, ("Mass", "Nodule"): 0.35,
    ("Atelectasis", "Cardiomegaly"): 0.15, ("Effusion", "Pneumonia"): 0.20, ("Atelectasis", "Pneumothorax"): 0.15,
    ("Effusion", "Mass"): 0.10, ("Infiltration", "Nodule"): 0.10, ("Atelectasis", "Pneumonia"): 0.15,
}  # fmt: skip
_PATIENT_SHARE = 0.75
"""Share of a latent severity that belongs to the patient; the rest changes from film to film."""


def make_film(
    seed: int,
    hospital: str = "A",
    findings: Sequence[str] | None = None,
    patient_seed: int | None = None,
    subtlety: float | None = None,
) -> Film:
    """Draw one synthetic film; the same arguments give the same pixels.

    Args:
        seed: the film (>= 0): pose, noise, devices and how its findings look.
        hospital: 'A' (teaching), 'B' (outpatient) or 'C' (intensive care).
        findings: exactly these labels; an empty list is a normal film; None draws them by the hospital's prevalence.
        patient_seed: the patient (>= 0): anatomy, and what and where the findings tend to be; None follows ``seed``.
        subtlety: of every finding, 0 = plain to 1 = at the limit of sight; None draws one for each finding.

    Raises:
        BenchmarkError: unknown hospital or finding, subtlety outside [0, 1], or a seed that is no whole number >= 0.
    """
    patient_seed = seed if patient_seed is None else patient_seed
    for name, value in (("seed", seed), ("patient_seed", patient_seed)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise BenchmarkError(f"make_film: {name}={value!r}; give a whole number >= 0")
    if hospital not in HOSPITALS:
        raise BenchmarkError(f"make_film: unknown hospital={hospital!r}; choose from {', '.join(HOSPITALS)}")
    if subtlety is not None and not 0 <= subtlety <= 1:
        raise BenchmarkError(f"make_film: subtlety={subtlety!r}; give a number from 0 (plain) to 1 (limit of sight)")
    if findings is None:
        findings = _draw_labels(seed, hospital, patient_seed)
    elif isinstance(findings, str):
        raise BenchmarkError(f"make_film: findings={findings!r} is a string; give a list, e.g. [{findings!r}]")
    unknown = [name for name in findings if name not in LABELS]
    if unknown:
        raise BenchmarkError(f"make_film: unknown findings {unknown!r}; choose from {', '.join(LABELS)}")
    return draw_film(seed, patient_seed, hospital, tuple(findings), subtlety, *_age_and_sex(patient_seed, hospital))


def _age_and_sex(patient_seed: int, hospital: str) -> tuple[int, bool]:
    """Age in years, and whether the patient is a woman."""
    site, rng = HOSPITALS[hospital], np.random.default_rng([patient_seed, 0])
    return int(np.clip(rng.normal(*site.age), 18, 95)), bool(rng.random() < site.female)


@lru_cache(maxsize=1)
def _severity_factor() -> np.ndarray:
    correlation = np.eye(len(LABELS))
    for (a, b), r in _TOGETHER.items():
        i, j = LABELS.index(a), LABELS.index(b)
        correlation[i, j] = correlation[j, i] = r
    return np.linalg.cholesky(correlation)


@lru_cache(maxsize=len(HOSPITALS))
def _severity_cut(hospital: str) -> np.ndarray:
    return norm.isf([HOSPITALS[hospital].prevalence[label] for label in LABELS])


def _draw_labels(seed: int, hospital: str, patient_seed: int) -> list[str]:
    # A multivariate probit: correlated severities, cut where each label's prevalence says.
    patient = np.random.default_rng([patient_seed, 6]).standard_normal(len(LABELS))
    film = np.random.default_rng([seed, 7]).standard_normal(len(LABELS))
    severity = _severity_factor() @ (np.sqrt(_PATIENT_SHARE) * patient + np.sqrt(1 - _PATIENT_SHARE) * film)
    return [label for label, above in zip(LABELS, severity > _severity_cut(hospital), strict=True) if above]


def _films_of(hospital: str, seed: int) -> Iterator[dict[str, Any]]:
    """The endless list of a hospital's films: every shorter list is its beginning."""
    which = list(HOSPITALS).index(hospital)
    for patient in count():
        rng = np.random.default_rng([seed, which, patient])
        patient_seed, *seeds = (int(value) for value in rng.integers(0, 2**62, 4))
        for k in range(int(rng.choice([1, 2, 3], p=[0.55, 0.30, 0.15]))):
            name = f"{hospital}{patient:05d}_{k}"
            yield {
                "image": f"images/{hospital}/{name}.jpg",
                "patient_id": f"{hospital}{patient:05d}",
                "split": _split(which, patient, seed),
                "hospital": hospital,
                "seed": seeds[k],
                "patient_seed": patient_seed,
            }


@lru_cache(maxsize=256)
def _split_block(which: int, block: int, seed: int) -> tuple[str, ...]:
    # 15 : 3 : 7 of 25 patients; each block opens with one of each, so that a short list has all three splits.
    rest = ["train"] * 14 + ["val"] * 2 + ["test"] * 6
    order = np.random.default_rng([seed, which, block, 8]).permutation(len(rest))
    return ("train", "test", "val", *(rest[i] for i in order))


def _split(which: int, patient: int, seed: int) -> str:
    return _split_block(which, patient // 25, seed)[patient % 25]


def _folder_name(seed: int) -> str:
    # The drawing code's own checksum is part of the name: a changed generator never reuses an older one's films.
    modules = [sys.modules[f"{__package__}.{name}"] for name in ("benchmark", "film", "anatomy", "detail", "findings")]
    checksum = 0
    for module in modules:
        checksum = zlib.crc32(Path(module.__file__).read_bytes(), checksum)
    return f"phantom-v{GENERATOR_VERSION}-{checksum:08x}-seed{seed}"


def _record_path(folder: Path, row: dict[str, Any]) -> Path:
    return folder / "records" / row["image"].removeprefix("images/").replace(".jpg", ".json")


def _read_record(folder: Path, row: dict[str, Any]) -> dict[str, Any] | None:
    """What was written about a film; None where film or record is missing, or the film is not of the recorded size."""
    try:
        record = json.loads(_record_path(folder, row).read_text(encoding="utf-8"))
        return record if (folder / row["image"]).stat().st_size == record["bytes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_film(folder: Path, row: dict[str, Any]) -> None:
    film = make_film(row["seed"], row["hospital"], patient_seed=row["patient_seed"])
    path, record_path = folder / row["image"], _record_path(folder, row)
    # Two processes may make the same film; each writes a file of its own and the last rename wins with equal bytes.
    part, record_part = (p.with_name(f"{p.name}.{os.getpid()}.part") for p in (path, record_path))
    Image.fromarray(film.image).save(part, format="JPEG", quality=95)
    record = {"labels": film.labels, "boxes": film.boxes, "meta": film.meta, "bytes": part.stat().st_size}
    record_part.write_text(json.dumps(record), encoding="utf-8")
    os.replace(record_part, record_path)
    os.replace(part, path)


def _make_missing(folder: Path, rows: list[dict[str, Any]], workers: int) -> None:
    for row in rows:
        (folder / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        _record_path(folder, row).parent.mkdir(parents=True, exist_ok=True)
    progress = partial(tqdm, total=len(rows), desc="PhantomCXR (synthetic)", unit="film")
    # A child started by spawn runs an unguarded script again; there it must not start a pool of its own.
    if workers == 1 or len(rows) < 4 or multiprocessing.parent_process() is not None:
        for row in progress(rows):
            _write_film(folder, row)
        return
    # Forked workers need no importable __main__ (notebooks, scripts without a guard). Off Linux fork is unsafe.
    context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
    with context.Pool(min(workers, len(rows))) as pool:
        for _ in progress(pool.imap_unordered(partial(_write_film, folder), rows, chunksize=2)):
            pass


def load_phantom(
    root: str | Path | None = None,
    hospitals: str = "ABC",
    n_films: int = 900,
    seed: int = 0,
    workers: int | None = None,
) -> Benchmark:
    """PhantomCXR as a benchmark; films that are not there yet are drawn once and kept.

    Args:
        root: where to keep them; None takes ``$MEDBRIDGE_CACHE``, else ``~/.cache/medbridge``. In it, a folder is
            named after generator and seed.
        hospitals: one or more of 'A', 'B', 'C'; films are spread evenly over them.
        n_films: how many films; a smaller number is the beginning of a larger one, with the same splits.
        seed: which patients.
        workers: processes that draw; None takes all cores, 1 draws in this process.

    Returns:
        Benchmark with ``synthetic=True``, 8 labels, boxes, and metadata columns ``hospital``, ``age`` (years), ``sex``,
        ``view``. Patients are split about 60 : 12 : 28 into train, val and test.

    Raises:
        BenchmarkError: unknown or repeated hospital, n_films or workers below 1, or a folder that cannot be written.
    """
    if not hospitals or len(set(hospitals)) != len(hospitals) or not set(hospitals) <= set(HOSPITALS):
        known = ", ".join(HOSPITALS)
        raise BenchmarkError(f"load_phantom: hospitals={hospitals!r}; give one or more of {known}, each once")
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value, least in (("n_films", n_films, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise BenchmarkError(f"load_phantom: {name}={value!r}; give a whole number >= {least}")
    base = Path(root or os.environ.get("MEDBRIDGE_CACHE") or Path.home() / ".cache" / "medbridge").expanduser()
    folder = base / _folder_name(seed)
    lists = [_films_of(hospital, seed) for hospital in sorted(hospitals)]
    rows = [next(lists[i % len(lists)]) for i in range(n_films)]
    missing = [row for row in rows if _read_record(folder, row) is None]
    if missing:
        try:
            _make_missing(folder, missing, workers)
        except OSError as error:
            raise BenchmarkError(
                f"load_phantom: cannot write films to {folder}: {error}; set root= or MEDBRIDGE_CACHE"
            ) from error
    records = [_read_record(folder, row) for row in rows]
    if None in records:
        changed = folder / rows[records.index(None)]["image"]
        raise BenchmarkError(f"load_phantom: {changed} was changed while loading; load again")
    table, boxes = _table(rows, records), _boxes(rows, records)
    return Benchmark("PhantomCXR (synthetic)", folder, LABELS, table, synthetic=True, boxes=boxes)


def _table(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)[["image", "patient_id", "split"]]
    for label in LABELS:
        table[label] = [float(record["labels"][label]) for record in records]
    for column in ("hospital", "age", "sex", "view"):
        table[column] = [record["meta"][column] for record in records]
    return table


def _boxes(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> pd.DataFrame:
    boxes = [(row["image"], *box) for row, record in zip(rows, records, strict=True) for box in record["boxes"]]
    return pd.DataFrame(boxes, columns=["image", "label", "x0", "y0", "x1", "y1"])

"""PhantomCXR: synthetic frontal chest films that this package draws itself, for runs without data. [ours]

No film shows a person. Eight of the NIH ChestX-ray14 labels, exact boxes, and three hospitals that differ in how they take
pictures and in whom they see; ``film.py`` draws one film.
"""

import json
import os
import zlib
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from medbridge.data.base import Benchmark
from medbridge.data.folder import BOX_COLUMNS
from medbridge.data.phantom.film import HOSPITALS, LABELS, make_film
from medbridge.data.table import REQUIRED_COLUMNS, check_whole_number
from medbridge.errors import BenchmarkError
from medbridge.support.files import write_atomic
from medbridge.support.processes import unordered

GENERATOR_VERSION = 1
_SPLITS = ["train"] * 14 + ["val"] * 2 + ["test"] * 6


def _films_of(hospital: str, seed: int) -> Iterator[dict[str, Any]]:
    """The endless list of a hospital's films: every shorter list is its beginning."""
    which = list(HOSPITALS).index(hospital)
    for patient in count():
        rng = np.random.default_rng([seed, which, patient])
        patient_seed, *seeds = (int(value) for value in rng.integers(0, 2**62, 4))
        patient_id = f"{hospital}{patient:05d}"
        if patient % 25 == 0:  # 15 : 3 : 7 of 25 patients; each block opens with one of each, so that a short list has all three
            rest = np.random.default_rng([seed, which, patient // 25, 8]).permutation(_SPLITS).tolist()
            splits = ["train", "test", "val", *rest]
        for k in range(int(rng.choice([1, 2, 3], p=[0.55, 0.30, 0.15]))):
            name = f"{hospital}/{patient_id}_{k}"
            yield {"image": f"images/{name}.jpg", "record": f"records/{name}.json", "patient_id": patient_id,
                   "split": splits[patient % 25], "hospital": hospital, "seed": seeds[k], "patient_seed": patient_seed}


def _read_record(folder: Path, row: dict[str, Any]) -> dict[str, Any] | None:
    """What was written about a film; None where film or record is missing, or the film is not of the recorded size."""
    try:
        record = json.loads((folder / row["record"]).read_text(encoding="utf-8"))
        return record if (folder / row["image"]).stat().st_size == record["bytes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_film(folder: Path, row: dict[str, Any]) -> None:
    film, jpeg = make_film(row["seed"], row["hospital"], patient_seed=row["patient_seed"]), BytesIO()
    Image.fromarray(film.image).save(jpeg, format="JPEG", quality=95)
    record = {"labels": film.labels, "boxes": film.boxes, "meta": film.meta, "bytes": jpeg.tell()}
    # Two processes may make the same film: the last one wins, with equal bytes.
    write_atomic(folder / row["record"], json.dumps(record))
    write_atomic(folder / row["image"], jpeg.getvalue())


def load_phantom(root: str | Path | None = None, hospitals: str = "ABC", n_films: int = 900, seed: int = 0,
                 workers: int | None = None) -> Benchmark:
    """PhantomCXR with boxes and the columns hospital, age (years), sex, view; films that are not there yet are drawn and kept.

    They lie in ``root`` (None: ``$MEDBRIDGE_CACHE`` or ``~/.cache/medbridge``), spread evenly over the ``hospitals``, one or more
    of 'A', 'B', 'C'; a smaller ``n_films`` is the beginning of a larger one. ``seed`` says which patients; they are split about
    60 : 12 : 28. ``workers`` are processes that draw: None takes all cores, 1 draws in this process. BenchmarkError: unknown or
    repeated hospital, n_films or workers below 1, or a folder that cannot be written.
    """
    if not hospitals or len(set(hospitals)) != len(hospitals) or not set(hospitals) <= set(HOSPITALS):
        raise BenchmarkError(f"load_phantom: hospitals={hospitals!r}; give one or more of {', '.join(HOSPITALS)}, each once")
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value, least in (("n_films", n_films, 1), ("seed", seed, 0), ("workers", workers, 1)):
        check_whole_number(f"load_phantom: {name}", value, least)
    base = Path(root or os.environ.get("MEDBRIDGE_CACHE") or Path.home() / ".cache" / "medbridge").expanduser()
    # The drawing code's own checksum is part of the name: a changed generator never reuses an older one's films.
    sources = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".py", ".yaml"))
    checksum = zlib.crc32(b"".join(path.read_bytes() for path in sources))
    folder = base / f"phantom-v{GENERATOR_VERSION}-{checksum:08x}-seed{seed}"
    lists = [_films_of(hospital, seed) for hospital in sorted(hospitals)]
    rows = [next(lists[i % len(lists)]) for i in range(n_films)]
    if missing := [row for row in rows if _read_record(folder, row) is None]:
        try:
            drawn = unordered(partial(_write_film, folder), missing, workers, chunk=2)
            for _ in tqdm(drawn, "PhantomCXR (synthetic)", len(missing), unit="film"):
                pass
        except OSError as error:
            raise BenchmarkError(f"load_phantom: cannot write films to {folder}: {error}; set root= or "
                                 "MEDBRIDGE_CACHE") from error
    records = [_read_record(folder, row) for row in rows]
    if None in records:
        changed = folder / rows[records.index(None)]["image"]
        raise BenchmarkError(f"load_phantom: {changed} was changed while loading; load again")
    findings = pd.DataFrame([record["labels"] for record in records], columns=LABELS).astype(float)
    table = pd.DataFrame(rows)[list(REQUIRED_COLUMNS)].join(findings).join(pd.DataFrame(record["meta"] for record in records))
    boxes = pd.DataFrame([(row["image"], *box) for row, record in zip(rows, records, strict=True) for box in record["boxes"]],
                         columns=BOX_COLUMNS)
    return Benchmark("PhantomCXR (synthetic)", folder, LABELS, table, synthetic=True, boxes=boxes)

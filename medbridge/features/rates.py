"""What this machine reaches: towers, decoding and disk, measured for some seconds on a run's own films; what it favours."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from medbridge.features.budget import EPOCHS, Rates, RunCost, describe_rates, duration
from medbridge.features.cost import ExpertCost
from medbridge.support.files import try_folder
from medbridge.support.threads import ahead

SECONDS = 2.0
"""For which films are decoded."""


def measure_rates(
    costs: Sequence[ExpertCost], folder: str | Path, threads: int, films: int, cut: Callable[[int], object],
) -> Rates:
    """Measure films decoded by ``threads``, and a file written and read in ``folder``; ``costs``: the towers, measured already.

    ``cut``: a film's number, below ``films``, -> its views, decoded and cut.
    """
    begin, count = time.perf_counter(), 0
    for _ in ahead(cut, range(films), threads):
        count += 1
        if time.perf_counter() - begin > SECONDS:
            break
    towers, decoding = 1 / sum(c.seconds for c in costs), count / (time.perf_counter() - begin)
    try:
        return Rates(towers, decoding, *_disk(folder), shutil.disk_usage(folder).free)
    except OSError:  # nothing can be written there
        return Rates(towers, decoding, 1e-9, 1e-9, 0)


def _disk(folder: str | Path, megabytes: int = 64) -> tuple[float, float]:
    """Bytes a second that are written and read there; what is read does not come from memory, where the system can forget it."""
    try_folder(folder)
    block = os.urandom(2**20)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part") as file:
        begin = time.perf_counter()
        for _ in range(megabytes):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - begin
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        begin = time.perf_counter()
        while file.read(2**20):
            pass
        return megabytes * 2**20 / written, megabytes * 2**20 / (time.perf_counter() - begin)


def choose(cost: RunCost, rates: Rates, fits: bool = True) -> str:
    """One line: 'cache' or 'stream', whichever takes less time for :data:`medbridge.features.budget.EPOCHS` epochs, and why."""
    fill, cached, streamed = cost.fill(rates), cost.cached(rates), cost.streamed(rates)
    way = "cache" if fits and fill + EPOCHS * cached <= EPOCHS * streamed else "stream"
    return (f"{way}: {describe_rates(rates)}; cached: {cost.cache / 1e9:.3g} GB{'' if fits else ', which do not fit'}, "
            f"{duration(fill)} to fill and {duration(cached)} an epoch to read; streamed: {duration(streamed)} an epoch")

"""What a run will cost before it starts, from the cache and streamed, side by side: bytes exactly; time by what this machine is
measured to reach, and for GPUs that are not here as an estimate that says so."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from medbridge.experts import Expert
from medbridge.features.compact import MapBasis
from medbridge.features.cost import ExpertCost, machine
from medbridge.features.encode import activation_bytes, view_bytes
from medbridge.features.films import Kept
from medbridge.focal import FocalSampler
from medbridge.support.files import try_folder
from medbridge.support.text import text_table
from medbridge.support.threads import ahead

GPUS: dict[str, tuple[float, float]] = {"Colab T4": (65e12, 16e9), "Colab L4": (121e12, 24e9), "A100": (312e12, 40e9),
                                        "H100": (990e12, 80e9)}
"""Name -> half-precision FLOP a second by the maker's data sheet (dense), and bytes of memory."""

UTILISATION = 0.3
"""Share of the data sheet's rate that is assumed to be reached; a guess, to be replaced by ``medbridge experts profile``."""

READING = 1e9
"""Bytes a second that a local disk is assumed to read and write beside such a GPU: a guess; a mounted Drive is slower."""

SECONDS = 2.0
"""For which films are decoded to measure it."""

EPOCHS, LOCAL_VIEWS = 10, 4
"""Usual length of a training, for which the two ways are compared, and local views of a film that an epoch draws: the defaults of
:class:`medbridge.train.TrainConfig`."""

LARGE = FocalSampler(overlap=0.0)
"""Views for a hundred thousand films: four windows side by side, and in training four random ones more to draw from. So the whole
of NIH ChestX-ray14 takes 44 GB for CLIP ViT-B/16, BiomedCLIP and SigLIP, where the default of FocalSampler takes 72 GB."""


@dataclass(frozen=True)
class Rates:
    """What one machine reaches.

    Attributes:
        views: that all towers together encode in a second.
        films: that are decoded and cut in a second.
        write, read: bytes a second of the disk that would hold the cache.
        room: bytes that are free there.
    """

    views: float
    films: float = float("inf")
    write: float = READING
    read: float = READING
    room: float = float("inf")


@dataclass(frozen=True)
class RunCost:
    """Cost of adapting to ``films`` films with ``views`` views each.

    Attributes:
        films, views: their numbers.
        drawn: views of a film that an epoch of training draws.
        scored: views that judge an epoch, of all the films that do.
        view: bytes of one view's features.
        flops: of one view's forward passes through the frozen towers.
        memory: bytes of the towers' weights and of the activations of a batch of 64 views, roughly.
    """

    films: int
    views: int
    drawn: int
    scored: int
    view: int
    flops: float
    memory: float

    @property
    def cache(self) -> int:
        """Bytes of features on disk; exact but for about a thousandth of headers."""
        return self.films * self.views * self.view

    @property
    def epoch(self) -> int:
        """Bytes of them that an epoch of training reads."""
        return (self.films * self.drawn + self.scored) * self.view

    def fill(self, rates: Rates) -> float:
        """Seconds of filling the cache: of the slowest of towers, decoding and disk, which work beside each other."""
        return max(self.films * self.views / rates.views, self.films / rates.films, self.cache / rates.write)

    def cached(self, rates: Rates) -> float:
        """Seconds of reading an epoch from the cache; the adapter's own work is the same in both ways, and not counted."""
        return self.epoch / rates.read

    def streamed(self, rates: Rates) -> float:
        """Seconds of making an epoch: what it draws, and what judges it as far as that is not held in memory."""
        again = max(0, self.scored - Kept.left // self.view)
        return max((self.films * self.drawn + again) / rates.views, (self.films + again / self.drawn) / rates.films)


def tower_flops(expert: Expert) -> float:
    """FLOP of one view: two for each weight and token (of a transformer), attention left out; a rough lower bound."""
    weights = sum(t.numel() for t in expert.vision_state().values() if t.dim() > 1)
    rows, columns = expert.grids[-1]
    return 2.0 * weights * (expert.prefix + rows * columns)


def cost_of_run(
    experts: Iterable[Expert], depths: Sequence[Sequence[int]], films: int, views: int, drawn: int | None = None,
    bases: Sequence[MapBasis] | None = None, scored: int = 0,
) -> RunCost:
    """What ``films`` films with ``views`` views each cost.

    Args:
        experts: K experts. depths: per expert: depths that are kept (``model.depths``).
        films, views: numbers; for training films the pool's, ``len(sampler.training_boxes(...))``.
        bases: of compact maps (``model.bases``); None: maps as they are.
        drawn: views that an epoch draws of each film; default all.
        scored: views that judge an epoch: of validation films, or where members are cross-fitted, of all films.

    Raises:
        ValueError: a number below one, or more drawn than there are.
    """
    experts, drawn = list(experts), views if drawn is None else drawn
    if films < 1 or views < 1 or not 1 <= drawn <= views:
        raise ValueError(f"films={films} and views={views} must be at least 1, drawn={drawn} from 1 to views")
    of_maps = bases if bases is not None else [None] * len(experts)
    view = sum(view_bytes(e, d, b) for e, d, b in zip(experts, depths, of_maps, strict=True))
    weights = sum(t.nbytes for e in experts for t in e.vision_state().values())
    active = max(map(activation_bytes, experts))
    return RunCost(films, views, drawn, scored, view, sum(map(tower_flops, experts)), weights + active)


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
    """One line: 'cache' or 'stream', whichever takes less time for :data:`EPOCHS` epochs, and why."""
    fill, cached, streamed = cost.fill(rates), cost.cached(rates), cost.streamed(rates)
    way = "cache" if fits and fill + EPOCHS * cached <= EPOCHS * streamed else "stream"
    return (f"{way}: {_describe(rates)}; cached: {cost.cache / 1e9:.3g} GB{'' if fits else ', which do not fit'}, "
            f"{_duration(fill)} to fill and {_duration(cached)} an epoch to read; streamed: {_duration(streamed)} an epoch")


def _describe(rates: Rates) -> str:
    return (f"towers {rates.views:.3g} views/s, decoding {rates.films:.3g} films/s, disk writes {rates.write / 1e6:.0f} and "
            f"reads {rates.read / 1e6:.0f} MB/s, {rates.room / 1e9:.0f} GB free")


def run_cost_table(cost: RunCost, rates: Rates | None = None) -> str:
    """Disk, time and memory, cached and streamed: as ``rates`` were measured, then by GPU, as estimates, and called so."""
    lines = [f"{cost.films:,} films x {cost.views} views of {cost.view / 1e3:.1f} kB: {cost.cache / 1e9:.3f} GB of cache. An "
             f"epoch draws {cost.drawn} views of each and scores {cost.scored:,} more; the adapter's own work is not counted."]
    if rates is not None:
        fill, cached, streamed = cost.fill(rates), cost.cached(rates), cost.streamed(rates)
        times = [(fill, cached, fill + EPOCHS * cached), (0, streamed, EPOCHS * streamed)]
        rows = [["", "disk", "to fill", "an epoch", f"{EPOCHS} epochs"]]
        rows += [[way, f"{size / 1e9:.3f} GB", *map(_duration, row)]
                 for way, size, row in zip(("cached", "streamed"), (cost.cache, 0), times, strict=True)]
        lines += [f"measured on {machine(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))}: {_describe(rates)}",
                  text_table(rows, ["left"] + ["right"] * 4)]
    rows = [["GPU", "to fill", "an epoch cached", "streamed", "memory needed"]]
    for name, (rate, memory) in GPUS.items():
        guess = Rates(rate * UTILISATION / cost.flops)
        rows.append([name, *map(_duration, (cost.fill(guess), cost.cached(guess), cost.streamed(guess))),
                     f"{cost.memory / 1e9:.2f} of {memory / 1e9:.0f} GB" + " does not fit" * (cost.memory >= memory)])
    lines.append(f"estimated for GPUs at {UTILISATION:.0%} of their data sheets, a disk of {READING / 1e9:g} GB/s, and "
                 "processors that keep up:")
    return "\n".join([*lines, text_table(rows, ["left"] + ["right"] * 4)])


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.1f} s"

"""What an expert costs on this machine: seconds a view, memory, and bytes of its maps in the cache.

A measurement says on which machine it was made; it is not a property of the expert alone.
"""

import ctypes
import gc
import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from medbridge.experts import Expert
from medbridge.features.compact import MapBasis, MapFormat
from medbridge.features.encode import encode_views, view_bytes
from medbridge.support.text import text_table


@dataclass(frozen=True)
class ExpertCost:
    """One expert's measurement.

    Attributes:
        name: of the expert.
        machine: what it was measured on.
        size: input resolution R.
        depths: depths whose maps are kept.
        seconds: for one view: least of the repeats, divided by the views of a batch.
        peak: bytes beyond those in use before the pass, at its highest: of the process where it runs on a processor, of
            PyTorch's own allocations on a GPU; ``None`` where the system does not tell.
        weights: bytes of the vision tower's weights in memory.
        cached: bytes that one view takes in the cache: compact maps of the default form, summary and embedding.
    """

    name: str
    machine: str
    size: int
    depths: tuple[int, ...]
    seconds: float
    peak: int | None
    weights: int
    cached: int


def machine(device: torch.device) -> str:
    """The machine class: the GPU's name, or threads and processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} of {os.cpu_count()} cores, {platform.processor() or platform.machine()}"


def expert_cost(expert: Expert, depths: Sequence[int] | None = None, views: int = 4, repeats: int = 3) -> ExpertCost:
    """Measure a forward pass of ``views`` random views.

    Args:
        expert: on the device that is to be measured.
        depths: depths whose maps are kept; default the last two, which the default adapter reads.
        views: views of a batch.
        repeats: passes, after one that warms up.

    Raises:
        ValueError: a depth outside 1..T, or fewer than one view or repeat.
    """
    if views < 1 or repeats < 1:
        raise ValueError(f"views={views} and repeats={repeats} must be at least 1")
    depths = expert.check_depths(range(max(1, expert.depth - 1), expert.depth + 1) if depths is None else depths)
    device = expert.mean.device
    batch = torch.rand(views, expert.size, expert.size, generator=torch.Generator().manual_seed(0))
    encode_views(expert, batch, depths)  # warms up
    before = _reset_peak(device)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        encode_views(expert, batch, depths)  # ends on the CPU, so nothing is still under way
        seconds.append(time.perf_counter() - start)
    peak = _peak(device)
    return ExpertCost(
        expert.name, machine(device), expert.size, tuple(depths), min(seconds) / views,
        None if before is None or peak is None else max(0, peak - before),
        sum(t.nbytes for t in expert.vision_state().values()), view_bytes(expert, depths, MapBasis(expert, depths, MapFormat())))


def _status(field: str) -> int | None:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024
    return None


def _reset_peak(device: torch.device) -> int | None:
    """Bytes in use now; from here on the highest is kept."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    gc.collect()
    with suppress(AttributeError, OSError):  # glibc: what earlier passes freed goes back to the system, or it would hide the peak
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # Linux: the high-water mark becomes what is used now
    except OSError:
        return None
    return _status("VmRSS:")


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM:")


def cost_table(costs: Sequence[ExpertCost]) -> str:
    """The measurements as a table, under the machine that they were made on."""
    rows = [("expert", "px", "maps at", "ms a view", "peak MB", "weights MB", "cached kB a view")]
    for c in costs:
        peak = "unknown" if c.peak is None else f"{c.peak / 1e6:.0f}"
        rows.append((c.name, str(c.size), ",".join(map(str, c.depths)), f"{c.seconds * 1e3:.1f}", peak,
                     f"{c.weights / 1e6:.1f}", f"{c.cached / 1e3:.1f}"))
    return "\n".join([f"measured on {costs[0].machine if costs else 'nothing'}, PyTorch {torch.__version__}", text_table(rows)])

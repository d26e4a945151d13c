"""What a run will cost before it starts: bytes in the cache exactly, time and GPU memory as estimates that say so."""

from collections.abc import Sequence
from dataclasses import dataclass

from medbridge.experts import Expert
from medbridge.features.compact import MapBasis
from medbridge.features.encode import view_bytes

GPUS: dict[str, tuple[float, float]] = {"Colab T4": (65e12, 16e9), "Colab L4": (121e12, 24e9), "A100": (312e12, 40e9),
                                        "H100": (990e12, 80e9)}
"""Name -> half-precision FLOP a second by the maker's data sheet (dense), and bytes of memory."""

UTILISATION = 0.3
"""Share of the data sheet's rate that is assumed to be reached; a guess, to be replaced by ``medbridge experts profile``."""

READING = 1e9
"""Bytes a second at which an epoch is assumed to read the cache: a guess for a local disk; a mounted Drive is slower."""


@dataclass(frozen=True)
class RunCost:
    """Cost of adapting to ``films`` films with ``views`` views each.

    Attributes:
        films, views: their numbers.
        cache: bytes of features on disk; exact but for about a thousandth of headers.
        epoch: bytes of them that an epoch of training reads.
        flops: of all forward passes of the frozen towers.
        memory: bytes of the towers' weights and of the activations of a batch of 64 views, roughly.
    """

    films: int
    views: int
    cache: int
    epoch: int
    flops: float
    memory: float

    def seconds(self, rate: float, utilisation: float = UTILISATION) -> float:
        """Seconds of filling the cache at ``rate`` FLOP a second, of which a share is reached."""
        return self.flops / (rate * utilisation)


def tower_flops(expert: Expert) -> float:
    """FLOP of one view: two for each weight and token (of a transformer), attention left out; a rough lower bound."""
    weights = sum(t.numel() for t in expert.vision_state().values() if t.dim() > 1)
    rows, columns = expert.grids[-1]
    return 2.0 * weights * (expert.prefix + rows * columns)


def cost_of_run(
    experts: Sequence[Expert], depths: Sequence[Sequence[int]], films: int, views: int, drawn: int | None = None,
    bases: Sequence[MapBasis] | None = None,
) -> RunCost:
    """What ``films`` films with ``views`` views each cost.

    Args:
        experts: K experts. depths: per expert: depths that are kept (``model.depths``).
        films, views: numbers; for training films the pool's, ``len(sampler.training_boxes(...))``.
        bases: of compact maps (``model.bases``); None: maps as they are.
        drawn: views that an epoch draws of each film, ``len(sampler.inference_boxes(...))``; default all.

    Raises:
        ValueError: a number below one, or more drawn than there are.
    """
    drawn = views if drawn is None else drawn
    if films < 1 or views < 1 or not 1 <= drawn <= views:
        raise ValueError(f"films={films} and views={views} must be at least 1, drawn={drawn} from 1 to views")
    of_maps = bases if bases is not None else [None] * len(experts)
    total, view = films * views, sum(view_bytes(e, d, b) for e, d, b in zip(experts, depths, of_maps, strict=True))
    weights = sum(t.nbytes for e in experts for t in e.vision_state().values())
    # a block's activations at their widest: about ten times its tokens in float32
    active = max(64 * (e.prefix + e.grids[-1][0] * e.grids[-1][1]) * max(e.widths) * 4 * 10 for e in experts)
    return RunCost(films, views, total * view, films * drawn * view, total * sum(map(tower_flops, experts)), weights + active)


def run_cost_table(cost: RunCost) -> str:
    """Expected time and memory by GPU, one line each; estimates, and called so."""
    lines = [f"{cost.films:,} films x {cost.views} views: {cost.cache / 1e9:.3f} GB of cache; the rest is estimated",
             "GPU       filling the cache   memory needed / there"]
    for name, (rate, memory) in GPUS.items():
        seconds, fits = cost.seconds(rate), "" if cost.memory < memory else "   does not fit"
        lines.append(f"{name:<9} {_time(seconds):>17}   {cost.memory / 1e9:13.2f} / {memory / 1e9:.0f} GB{fits}")
    lines.append(f"an epoch  {_time(cost.epoch / READING):>17}   to read {cost.epoch / 1e9:.3f} GB at {READING / 1e9:g} GB/s; "
                 "the adapter's own work, on top, is not estimated")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.1f} s"

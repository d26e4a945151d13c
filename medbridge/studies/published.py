"""Published results as context: what others report on a benchmark, where it was read, and how their protocol differs. [ours]

``published.yaml`` holds the numbers, each with the address where it was read. They were measured on other splits, films and
training sets, so they are never mixed with measured rows: the leaderboard prints them in a section of their own.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import yaml

from medbridge.data.labels import canonical
from medbridge.errors import BenchmarkError

__all__ = ["HEADING", "PublishedResult", "published_benchmarks", "published_markdown", "published_results", "published_table"]

HEADING = "Published, other protocols (context, not measured here)"

_FILE = Path(__file__).with_name("published.yaml")
_KEYS = ("method", "citation", "source", "seen", "difference")


@dataclass(frozen=True)
class PublishedResult:
    """One published result on one benchmark.

    Attributes:
        benchmark: name as in :func:`medbridge.data.list_benchmarks`. method: what was measured.
        citation: whose work. source: address where the numbers were read.
        seen: whether that is the authors' own page, a third party's table, or a page without numbers.
        difference: how the protocol differs from the leaderboard's.
        auc: label -> AUC, by the benchmark's own names; empty where no per-label number was seen.
        stated_mean: the mean AUC that the source states; NaN where it states none.
    """

    benchmark: str
    method: str
    citation: str
    source: str
    seen: str
    difference: str
    auc: MappingProxyType[str, float]
    stated_mean: float

    @property
    def mean(self) -> float:
        """The mean that the source states, else the mean over its labels; NaN where no number was seen."""
        return self.stated_mean if np.isfinite(self.stated_mean) or not self.auc else float(np.mean(list(self.auc.values())))

    @property
    def has_numbers(self) -> bool:
        """Whether any number was seen."""
        return bool(np.isfinite(self.mean))


@cache
def _all() -> tuple[PublishedResult, ...]:
    return parse(yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def parse(entries: list[dict[str, Any]]) -> tuple[PublishedResult, ...]:
    """Entries of ``published.yaml`` -> one result a benchmark and entry.

    Raises:
        BenchmarkError: a key that is missing or unknown, or an AUC that is none; the method is named.
    """
    found = []
    for entry in entries:
        name = entry.get("method", entry)
        missing = [key for key in ("benchmarks", *_KEYS) if not entry.get(key)]
        unknown = sorted(set(entry) - {"benchmarks", "auc", *_KEYS})
        if missing or unknown:
            raise BenchmarkError(f"{_FILE.name}: {name}: missing {', '.join(missing) or 'nothing'}, unknown "
                                 f"{', '.join(unknown) or 'nothing'}")
        auc = dict(entry.get("auc", {}))
        wrong = [label for label, value in auc.items() if not isinstance(value, float) or not 0 < value < 1]
        if wrong:
            raise BenchmarkError(f"{_FILE.name}: {name}: AUC of {wrong[0]}: {auc[wrong[0]]!r}; give a number between 0 and 1")
        mean = auc.pop("mean", float("nan"))
        found += [PublishedResult(benchmark, *(entry[key] for key in _KEYS), MappingProxyType(auc), mean)
                  for benchmark in entry["benchmarks"]]
    return tuple(found)


def published_benchmarks() -> list[str]:
    """Benchmarks for which there is an entry."""
    return list(dict.fromkeys(r.benchmark for r in _all()))


def published_results(benchmark: str | None = None) -> list[PublishedResult]:
    """Results on a benchmark, or all, those with numbers first.

    Args:
        benchmark: its name, in upper or lower case.

    Raises:
        BenchmarkError: nothing is listed for it.
    """
    known = published_benchmarks()
    if benchmark is not None and benchmark.lower() not in known:
        near = difflib.get_close_matches(benchmark.lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BenchmarkError(f"nothing published is listed for {benchmark!r}; {hint}Listed: {', '.join(known)}")
    chosen = [r for r in _all() if benchmark in (None, r.benchmark) or r.benchmark == str(benchmark).lower()]
    return sorted(chosen, key=lambda r: (known.index(r.benchmark), not r.has_numbers))


def published_table(benchmark: str | None = None, labels: bool = False) -> pd.DataFrame:
    """One row a result: benchmark, method, auc (mean), mean_of, citation, source, seen, protocol difference.

    Args:
        benchmark: as in :func:`published_results`.
        labels: one further column a label, by its canonical name (:func:`medbridge.data.labels.canonical`).
    """
    rows = []
    for r in published_results(benchmark):
        stated = "stated" if np.isfinite(r.stated_mean) else f"{len(r.auc)} labels" if r.auc else "not seen"
        row = {"benchmark": r.benchmark, "method": r.method, "auc": r.mean, "mean_of": stated, "citation": r.citation,
               "source": r.source, "seen": r.seen, "protocol difference": r.difference}
        rows.append(row | ({canonical(label) or label: value for label, value in r.auc.items()} if labels else {}))
    return pd.DataFrame(rows)


def published_markdown(benchmark: str | None = None) -> str:
    """The section of a leaderboard: heading, one sentence, a table."""
    shown = published_table(benchmark)
    shown["auc"] = [f"{value:.3f}" if np.isfinite(value) else "-" for value in shown["auc"]]
    shown = shown.rename(columns={"auc": "AUC", "mean_of": "mean of"})
    rows = [list(shown.columns), ["---"] * shown.shape[1], *shown.to_numpy().tolist()]
    told = ("Other splits, films, training sets and selection than above: not comparable line by line, and without intervals. "
            "`mean of`: whether the source states the mean, or it was taken here over its labels.")
    return "\n".join([f"## {HEADING}", "", told, "", *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"

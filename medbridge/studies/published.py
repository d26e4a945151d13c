"""Published results as context: what others report on a benchmark, where it was read, and how their protocol differs. [ours]

``published.yaml`` holds the numbers, each with the address where it was read. They were measured on other splits, films and
training sets, so they are never mixed with measured rows: the leaderboard prints them in a section of their own.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from medbridge.data.labels import canonical
from medbridge.errors import BenchmarkError
from medbridge.support.text import did_you_mean, markdown_table

HEADING = "Published, other protocols (context, not measured here)"

_FILE = Path(__file__).with_name("published.yaml")
_KEYS = ("method", "citation", "source", "seen", "difference")


@cache
def _all() -> pd.DataFrame:
    return parse(yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def parse(entries: list[dict[str, Any]]) -> pd.DataFrame:
    """Entries of ``published.yaml`` -> one row per benchmark and entry: the columns of :func:`published_results`.

    Raises:
        BenchmarkError: a key that is missing or unknown, or an AUC that is none; the method is named.
    """
    rows = []
    for entry in entries:
        name = entry.get("method", entry)
        missing = [key for key in ("benchmarks", *_KEYS) if not entry.get(key)]
        unknown = sorted(set(entry) - {"benchmarks", "auc", *_KEYS})
        if missing or unknown:
            raise BenchmarkError(f"{_FILE.name}: {name}: missing {', '.join(missing) or 'nothing'}, unknown "
                                 f"{', '.join(unknown) or 'nothing'}")
        auc = dict(entry.get("auc", {}))
        if wrong := [label for label, value in auc.items() if not isinstance(value, float) or not 0 < value < 1]:
            raise BenchmarkError(f"{_FILE.name}: {name}: AUC of {wrong[0]}: {auc[wrong[0]]!r}; give a number between 0 and 1")
        stated = auc.pop("mean", None)
        mean = stated or (np.mean(list(auc.values())) if auc else np.nan)
        mean_of = "stated" if stated else f"{len(auc)} labels" if auc else "not seen"
        rows += [{"benchmark": benchmark, "method": name, "auc": mean, "mean_of": mean_of, "citation": entry["citation"],
                  "source": entry["source"], "seen": entry["seen"], "protocol difference": entry["difference"], "per_label": auc}
                 for benchmark in entry["benchmarks"]]
    order = list(dict.fromkeys(row["benchmark"] for row in rows))
    return pd.DataFrame(sorted(rows, key=lambda row: (order.index(row["benchmark"]), np.isnan(row["auc"]))))


def published_benchmarks() -> list[str]:
    """Benchmarks for which there is an entry."""
    return list(dict.fromkeys(_all()["benchmark"]))


def published_results(benchmark: str | None = None) -> pd.DataFrame:
    """One row per result on a benchmark (whatever the case of its name; None: on all), those with numbers first.

    benchmark, method, auc (mean; NaN where no number was seen), mean_of ('stated', over so many labels, or 'not seen'), citation,
    source, seen (whether that is the authors' own page, a third party's table, or a page without numbers), protocol difference
    (from the leaderboard's), per_label (label -> AUC, by the benchmark's own names).

    Raises:
        BenchmarkError: nothing is listed for it.
    """
    known = published_benchmarks()
    if benchmark is not None and benchmark.lower() not in known:
        raise BenchmarkError(
            f"nothing published is listed for {benchmark!r}; {did_you_mean(benchmark, known)}Listed: {', '.join(known)}")
    return _all() if benchmark is None else _all()[_all()["benchmark"] == benchmark.lower()].reset_index(drop=True)


def published_table(benchmark: str | None = None, labels: bool = False) -> pd.DataFrame:
    """:func:`published_results` without per_label; ``labels``: one further column per label, by its canonical name."""
    results = published_results(benchmark)
    by_label = [{canonical(label) or label: value for label, value in auc.items()} for auc in results["per_label"]]
    table = results.drop(columns="per_label")
    return table.join(pd.DataFrame(by_label)) if labels else table


def published_markdown(benchmark: str | None = None) -> str:
    """The section of a leaderboard: heading, one sentence, a table."""
    table = published_table(benchmark)
    table["auc"] = [f"{value:.3f}" if np.isfinite(value) else "-" for value in table["auc"]]
    note = ("Other splits, films, training sets and selection than above: not comparable line by line, and without intervals. "
            "`mean of`: whether the source states the mean, or it was taken here over its labels.")
    head = list(table.rename(columns={"auc": "AUC", "mean_of": "mean of"}))
    return f"## {HEADING}\n\n{note}\n\n{markdown_table(head, table.to_numpy().tolist())}\n"

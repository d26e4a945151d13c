"""Published results as context: what others report on a benchmark, where it was read, and how their protocol differs.

``published.yaml`` holds them, each with the address where it was read. They were measured on other splits, films and training
sets, so they are never mixed with measured rows: the leaderboard prints them in a section of their own.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from medbridge.data.labels import canonical
from medbridge.errors import BenchmarkError
from medbridge.support.text import did_you_mean, fill_template

HEADING = "Published, other protocols (context, not measured here)"

_FILE = Path(__file__).with_name("published.yaml")


@cache
def _all() -> pd.DataFrame:
    rows = []
    for entry in yaml.safe_load(_FILE.read_text(encoding="utf-8")):
        auc = dict(entry.get("auc", {}))
        stated = auc.pop("mean", None)
        mean = stated or (np.mean(list(auc.values())) if auc else np.nan)
        mean_of = "stated" if stated else f"{len(auc)} labels" if auc else "not seen"
        rows += [{"benchmark": benchmark, "method": entry["method"], "auc": mean, "mean_of": mean_of,
                  "citation": entry["citation"], "source": entry["source"], "seen": entry["seen"],
                  "protocol difference": entry["difference"], "per_label": auc} for benchmark in entry["benchmarks"]]
    order = list(dict.fromkeys(row["benchmark"] for row in rows))
    return pd.DataFrame(sorted(rows, key=lambda row: (order.index(row["benchmark"]), np.isnan(row["auc"]))))


def published_benchmarks() -> list[str]:
    """Benchmarks for which there is an entry."""
    return list(dict.fromkeys(_all()["benchmark"]))


def published_results(benchmark: str | None = None) -> pd.DataFrame:
    """One row per result on a benchmark (whatever the case of its name; None: on all), those with numbers first.

    benchmark, method, auc (mean; NaN where no number was seen), mean_of ('stated', over so many labels, or 'not seen'), citation,
    source, seen (whether that is the authors' own page, a third party's table, or a page without numbers), protocol difference
    (from the leaderboard's), per_label (label -> AUC, by the benchmark's own names). BenchmarkError: nothing is listed for it.
    """
    table, known = _all(), published_benchmarks()
    if benchmark is None:
        return table
    if benchmark.lower() not in known:
        near = did_you_mean(benchmark, known)
        raise BenchmarkError(f"nothing published is listed for {benchmark!r}; {near}Listed: {', '.join(known)}")
    return table[table["benchmark"] == benchmark.lower()].reset_index(drop=True)


def published_table(benchmark: str | None = None, labels: bool = False) -> pd.DataFrame:
    """:func:`published_results` without per_label; ``labels``: one further column per label, by its canonical name."""
    results = published_results(benchmark)
    by_label = [{canonical(label) or label: value for label, value in auc.items()} for auc in results["per_label"]]
    table = results.drop(columns="per_label")
    return table.join(pd.DataFrame(by_label)) if labels else table


def published_markdown(benchmark: str | None = None) -> str:
    """The section of a leaderboard: heading, one sentence, a table."""
    return fill_template(__file__, "published.md.jinja", heading=HEADING, table=published_table(benchmark))

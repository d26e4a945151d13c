"""Write docs/results.md from the files under bench/results, and from nothing else.

    python scripts/write_results.py [--check]

A result is a CSV of ``medbridge leaderboard`` or ``medbridge ablate``, or a ``.txt`` with what a command printed. Its first
lines begin with ``#`` and give the command, the seeds, the machine and the date. ``bench/results/tables.yaml`` holds a title, a
note and the form of MedBridge that was measured. ``--check`` writes nothing and ends with status 1 where the
page is not what it should be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
import yaml

from medbridge.studies.tables import with_interval

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "results.md"
HEAD = """# Results

`python scripts/write_results.py` writes this page from the files under [bench/results](../bench/results); a test holds the
two together. Each table names the command that repeats it. **Nothing here says how well anything works on patients.**

A difference counts only where its interval, a paired bootstrap over the same patients, leaves zero out. The **linear probe**
reads the same views as MedBridge, unless a table says otherwise. It chooses its strength on the validation films and then learns
from train and val together, as MedBridge's members do.
"""
MISSING = """## What was not run

None of the published benchmarks was run as a whole. Their loaders are tested on synthetic films in the official layouts and on
361 real rows of NIH ChestX-ray14. Tables of full size were loaded as synthetic rows: 112,120 of NIH in 0.5 s, 377,110 of MIMIC in
1.8 s (`python bench/load_metadata.py`). CLIP, SigLIP, BiomedCLIP and the towers of transformers are tested as small random models
of the real classes: their weights were not at hand. DenseNet-121 was not compared: on a processor it needs hours per seed.
Nothing was run on a GPU.

Not compared yet: one member at equal cost; other widths, numbers of components, patches and members on real films; label queries;
the router against weights per label; several seeds on real films.
"""
EARLIER = """## Of the earlier form

Everything below was measured before compact maps, cross-fitting and the linear read-out: on commit 83a3a09 and before, which the
commands need. MedBridge was one network of width 128 that read the towers' tokens as they are.
[What these tables taught](earlier_results.md) is why the method was changed.
"""


def markdown_table(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def difference(row: pd.Series, prefix: str, value: str) -> str:
    """``+0.031 [+0.015, +0.046]``, with a remark where the interval holds zero; empty where there is none."""
    low, high = row[f"{prefix}lo"], row[f"{prefix}hi"]
    if pd.isna(low):
        return ""
    return with_interval(row[value], low, high, "+") + ", holds zero" * (low <= 0 <= high)


def leaderboard(table: pd.DataFrame) -> str:
    rows = [[r.method, with_interval(r.auc, r.lo, r.hi), number(r.seed_sd), difference(r, "ours_", "ours_minus"),
             f"{r.parameters:,}", f"{r.seconds:,.0f}"] for _, r in table.sort_values("auc", ascending=False).iterrows()]
    return markdown_table(["method", "mean test AUC [95 % interval]", "sd over seeds", "MedBridge minus it, paired",
                           "trained parameters", "seconds"], rows)


def labels(table: pd.DataFrame) -> str:
    rows = [[r.label, r.method, with_interval(r.auc, r.lo, r.hi), difference(r, "ours_", "ours_minus")]
            for _, r in table.sort_values(["test", "label", "auc"], ascending=[True, True, False]).iterrows()]
    return markdown_table(["label", "method", "AUC [95 % interval]", "MedBridge minus it, paired"], rows)


def ablation(table: pd.DataFrame) -> str:
    rows = [[r.factor, r.variant, number(r.val_auc), difference(r, "val_", "val_diff"), number(r.test_auc),
             difference(r, "test_", "test_diff")] for _, r in table.iterrows()]
    minus = "minus the default, paired"
    return markdown_table(["factor", "variant", "validation AUC", minus, "test AUC", minus], rows)


def section(path: Path, about: dict[str, str], level: str) -> str:
    """Heading, note, command and table of one file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    command, _, rest = head[0].partition("; ")
    facts = "; ".join(filter(None, [rest, *head[1:]]))
    parts = [f"{level} {about.get('title', path.stem)}", about.get("note", "").strip(), f"```\n{command}\n```",
             f"{facts}. File: [{path.name}](../bench/results/{path.name})"]
    if path.suffix == ".txt":
        parts.append("\n".join(["```", *(line for line in lines if not line.startswith("#")), "```"]))
    else:
        table = pd.read_csv(path, comment="#")
        kind = ablation if "variant" in table else labels if "label" in table else leaderboard
        parts.append(kind(table))
        if (RESULTS / path.name.replace("leaderboard_", "leaderboard_labels_")).exists() and kind is leaderboard:
            name = path.name.replace("leaderboard_", "leaderboard_labels_")
            parts.append(f"Every label: [{name}](../bench/results/{name})")
    return "\n\n".join(filter(None, parts)) + "\n"


def page() -> str:
    """The text of docs/results.md."""
    about = yaml.safe_load((RESULTS / "tables.yaml").read_text(encoding="utf-8"))
    files = {path.name: path for path in sorted(RESULTS.iterdir()) if path.suffix in (".csv", ".txt")}
    known = [name for name in about if name in files]
    # labels of a board that has a table of its own are behind its link, unless tables.yaml names them
    other = [name for name in files if name not in about and not name.startswith("leaderboard_labels_")]
    current = [*(name for name in known if about[name]["form"] == "current"), *other]
    earlier = [name for name in known if about[name]["form"] == "earlier"]
    return "\n".join([HEAD, *(section(files[n], about.get(n, {}), "##") for n in current), MISSING, EARLIER,
                      *(section(files[n], about[n], "###") for n in earlier)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

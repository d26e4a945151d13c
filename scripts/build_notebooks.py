"""Write the notebooks from their sources and store their outputs.

    python scripts/build_notebooks.py [NAME ...] [--check | --stamp | --renamed | --measure]

A source is ``notebooks/sources/NN_name.py`` (jupytext, percent format); it becomes ``notebooks/NN_name.ipynb``, and
``notebooks/sources/solutions/NN_name.py`` becomes ``notebooks/solutions/NN_name.ipynb``. Every notebook is run from top to
bottom, and the processor time that it took is kept in ``notebooks/seconds.json`` (``--measure`` does that alone), from which the
table of ``docs/minutes.md`` and the minutes in README.md are written.

``{{REPOSITORY}}``, ``{{COLAB}}`` and ``{{SETUP}}`` in a source are filled in here from one setting, ``repository`` under
``[tool.medbridge]`` in pyproject.toml; ``{{READING}}`` becomes the minutes of reading, counted from words, lines of code and the
exercises' own minutes; ``{{NEXT}}`` becomes a link to the next notebook, and a link to one that is not written yet plain text.
Every picture gets an alternative text: the cell's ``alt``, else the title that its code gives it, else the heading above it.
After a change of it, or of prose alone, ``--stamp`` writes the new text and keeps the stored outputs; a notebook whose code has
changed is named and left to a run.
``--check`` writes nothing and says which notebooks are not what their sources say.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
SOURCES = NOTEBOOKS / "sources"
TITLE = re.compile(r"""\b(title|suptitle|set_title)\(?\s*=?\s*f?(["'])(.+?)\2""")
WORDS, LINES = 200, 15  # a minute: prose, and lines of code
SETUP = '''# Set-up: on Colab this fetches the course and installs what is missing; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    !test -d /content/medbridge-course || git clone --quiet --depth 1 {repository} /content/medbridge-course
    %run /content/medbridge-course/scripts/colab_setup.py
    %cd /content/medbridge-course/{folder}'''
SETUP_SOLUTIONS = SETUP.replace("import sys\n", "import os\nimport sys\n") + '''

os.environ["MEDBRIDGE_PROGRESS"] = "off"  # to run the solutions is not to solve the exercises'''


def repository() -> str:
    """Address of the repository, the one setting that every badge and set-up cell is stamped from."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["medbridge"]["repository"]


def target(source: Path) -> Path:
    """The notebook that a source becomes."""
    return NOTEBOOKS / source.relative_to(SOURCES).with_suffix(".ipynb")


def next_link(source: Path) -> str:
    """A link to the notebook that follows."""
    later = [s for s in sorted(source.parent.glob("[0-9]*.py")) if s.name > source.name]
    if not later:
        raise ValueError(f"{source.name} is the last notebook; it cannot say {{{{NEXT}}}}")
    title = re.search(r"^# # (.*)$", later[0].read_text(encoding="utf-8"), re.MULTILINE)[1]
    return f"[{title}]({later[0].stem}.ipynb)"


def counts(source: Path) -> tuple[int, int, int]:
    """(words of prose, lines of code, minutes that the exercises give themselves) of a source; folded solutions are left out."""
    book = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    prose = "\n".join(c.source for c in book.cells if c.cell_type == "markdown")
    exercises = [int(minutes) for minutes in re.findall(r"[★☆]{3}, (\d+) minutes", prose)]
    shown = re.sub(r"\]\([^)]*\)", "]", re.sub(r"<details>\s*<summary>\s*Solution.*?</details>", "", prose, flags=re.DOTALL))
    code = [line.strip() for c in book.cells if c.cell_type == "code" for line in c.source.splitlines()]
    return len(re.findall(r"[^\W_]+", shown)), sum(bool(line) and not line.startswith("#") for line in code), sum(exercises)


def reading_minutes(source: Path) -> int:
    """Minutes to read a notebook and to solve its exercises, in fives."""
    words, lines, exercises = counts(source)
    return 5 * round((words / WORDS + lines / LINES + exercises) / 5)


def settle_links(text: str, folder: Path) -> str:
    """Links to notebooks of ``folder`` that have no source yet, as plain text."""
    return re.sub(r"\[([^\[\]]+)\]\(([^()/\s:]+)\.ipynb\)",
                  lambda m: m[0] if (folder / f"{m[2]}.py").exists() else f"{m[1]} (in preparation)", text)


def render(source: Path) -> nbformat.NotebookNode:
    """The notebook of a source, without outputs."""
    notebook = target(source).relative_to(ROOT)
    address = repository()
    github = address.removeprefix("https://github.com/")
    badge = (f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
             f"(https://colab.research.google.com/github/{github}/blob/main/{notebook.as_posix()})")
    text = source.read_text(encoding="utf-8").replace("{{REPOSITORY}}", address).replace("{{COLAB}}", badge)
    if "{{READING}}" in text:
        text = text.replace("{{READING}}", str(reading_minutes(source)))
    if "{{NEXT}}" in text:
        text = text.replace("{{NEXT}}", next_link(source))
    book = jupytext.reads(settle_links(text, source.parent), fmt="py:percent")
    for number, cell in enumerate(book.cells):
        cell["id"] = f"cell-{number:03d}"  # stable ids keep diffs small
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's own notes
        if cell.cell_type == "code" and cell.source.strip() == "# {{SETUP}}":
            setup = SETUP_SOLUTIONS if notebook.parent.name == "solutions" else SETUP
            cell.source = setup.format(repository=address, folder=notebook.parent.as_posix())
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.metadata.pop("jupytext", None)
    return book


def describe(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with an alternative text on each stored picture, in the metadata as IPython's ``Image(alt=...)`` has it.

    Progress bars go: each of their steps is a line of its own in a stored notebook.
    """
    heading = ""
    for cell in book.cells:
        if cell.cell_type == "markdown":
            heading = next(iter(re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)[::-1]), heading)
            continue
        titles = {kind: text for kind, _, text in TITLE.findall(cell.source)}
        named = titles.get("suptitle") or max(titles.values(), key=len, default=f"figure of the section {heading}")
        alt = " ".join(re.sub(r"\{[^{}]*\}|\\n|[$*`]", " ", cell.metadata.get("alt") or named).split())
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" or not re.search(r"\d+%\||^\s*$", o.text)]
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                output.metadata["image/png"] = {"alt": alt}
    return book


def same_cells(a: nbformat.NotebookNode, b: nbformat.NotebookNode) -> bool:
    """Whether two notebooks have the same cells, whatever their outputs."""
    def cells(book: nbformat.NotebookNode) -> list[tuple]:
        return [(c.cell_type, c.source, tuple(c.metadata.get("tags", [])), c.metadata.get("alt")) for c in book.cells]

    return cells(a) == cells(b)


def stamp(source: Path, renamed: bool = False) -> bool:
    """Write the notebook with its stored outputs where no code but the set-up cell's has changed; whether that was so.

    ``renamed``: also where code has changed, cell by cell, after a change of names; ``pytest --nbval`` tells whether the
    outputs still hold.
    """
    path, book = target(source), render(source)
    if not path.exists():
        return False
    stored = nbformat.read(path, 4)
    kept = [c for c in stored.cells if c.cell_type == "code"]
    code = [c for c in book.cells if c.cell_type == "code"]
    if len(kept) != len(code):
        return False
    for new, old in zip(code, kept, strict=True):
        if new.source != old.source and not old.source.startswith("# Set-up") and not renamed:
            return False
        new.outputs, new.execution_count = old.outputs, old.execution_count
    book.metadata = stored.metadata
    nbformat.write(describe(book), path)
    return True


def stamp_pyproject() -> None:
    """The address under ``[project.urls]`` follows the setting."""
    path = ROOT / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r'(?m)^Repository = ".*"$', f'Repository = "{repository()}"', text), encoding="utf-8")


def run(source: Path, write: bool = True) -> float:
    """Run a notebook from top to bottom and store it with its outputs; seconds of processor time that it took."""
    book, path, began = render(source), target(source), _processor_seconds()
    path.parent.mkdir(exist_ok=True)
    NotebookClient(book, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # times of the run: noise in every diff
    if write:
        nbformat.write(describe(book), path)
    return _processor_seconds() - began


def _processor_seconds() -> float:
    """Of processes started here and have ended; unlike wall time it hardly depends on what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_held() -> dict[str, int]:
    """Notebook -> seconds of processor time of its last run."""
    path = NOTEBOOKS / "seconds.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def keep_seconds(source: Path, seconds: float) -> None:
    """Note how long a notebook took, under its name."""
    held = seconds_held() | {target(source).relative_to(NOTEBOOKS).with_suffix("").as_posix(): round(seconds)}
    (NOTEBOOKS / "seconds.json").write_text(json.dumps(held, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def minutes_page() -> str:
    """The page of reading and computing minutes, from the sources and the notebooks' last runs."""
    held, rows, total = seconds_held(), [], [0, 0]
    for source in sorted(SOURCES.glob("*.py")):
        title = re.search(r"^# # (.*)$", source.read_text(encoding="utf-8"), re.MULTILINE)[1]
        reading, seconds = reading_minutes(source), held.get(source.stem)
        words, lines, exercises = counts(source)
        rows.append(f"| [{title}](../notebooks/{source.stem}.ipynb) | {words:,} | {lines} | {exercises} | {reading} | "
                    f"{'' if seconds is None else f'{seconds / 60:.1f}'} |")
        total[0] += reading
        total[1] += seconds or 0
    return "\n".join([
        "# How long it takes", "",
        f"Minutes of reading are counted: {WORDS} words of prose and {LINES} lines of code a minute, and the exercises' own "
        "estimates, in fives; no reader was timed. Minutes of computing are processor time of the last run of the default "
        "profile, by `python scripts/build_notebooks.py --measure`; films and features that are cached already cost nothing "
        "again. A blank was not measured.", "",
        "| notebook | words | lines of code | minutes of exercises | reading, with exercises | computing |",
        "|---|---|---|---|---|---|", *rows, f"| **all** | | | | **{total[0]}** | **{total[1] / 60:.1f}** |", ""])


def write_minutes() -> None:
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "minutes.md").write_text(minutes_page(), encoding="utf-8")
    if (ROOT / "README.md").exists():
        (ROOT / "README.md").write_text(front_page((ROOT / "README.md").read_text(encoding="utf-8")), encoding="utf-8")


def front_page(text: str) -> str:
    """README.md with the setting's address in its badge, and the minutes of each notebook in the table of the course."""
    github = repository().removeprefix("https://github.com/")
    text = re.sub(r"(colab\.research\.google\.com/github/)[^/]+/[^/]+(/blob/)", rf"\g<1>{github}\g<2>", text)
    for source in SOURCES.glob("*.py"):
        text = re.sub(rf"(\]\(notebooks/{source.stem}\.ipynb\) \|.*\| )\d+ \|", rf"\g<1>{reading_minutes(source)} |", text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="starts of file names, such as 03; default all")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true")
    how.add_argument("--stamp", action="store_true")
    how.add_argument("--renamed", action="store_true", help="stamp notebooks whose code has changed in names alone")
    how.add_argument("--measure", action="store_true", help="run, and keep the time alone")
    args = parser.parse_args()
    sources = [s for s in sorted(SOURCES.rglob("*.py")) if not args.names or s.name.startswith(tuple(args.names))]
    if args.check or args.stamp or args.renamed:
        if not args.check:
            stamp_pyproject()
            stale = [s for s in sources if not stamp(s, args.renamed)]
            write_minutes()
        else:
            stale = [s for s in sources if not target(s).exists() or not same_cells(render(s), nbformat.read(target(s), 4))]
        for source in stale:
            print(f"{target(source).relative_to(ROOT)} is not what {source.relative_to(ROOT)} says; "
                  f"run `python scripts/build_notebooks.py {source.stem[:2]}`")
        return 1 if stale else 0
    os.environ["MEDBRIDGE_PROGRESS"] = "off"
    bar = tqdm(sources, unit="notebook")
    for source in bar:
        bar.set_postfix_str(source.stem)
        seconds = run(source, write=not args.measure)
        keep_seconds(source, seconds)
        tqdm.write(f"{target(source).relative_to(ROOT)}: {seconds:.0f} s of processor time")
    write_minutes()
    return 0


if __name__ == "__main__":
    sys.exit(main())

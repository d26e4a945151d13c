"""Write the notebooks from their sources and store their outputs.

    python scripts/build_notebooks.py [NAME ...] [--check]

A source is ``notebooks/sources/NN_name.py`` (jupytext, percent format); it becomes ``notebooks/NN_name.ipynb``, and
``notebooks/sources/solutions/NN_name.py`` becomes ``notebooks/solutions/NN_name.ipynb``. Every notebook is run from top to
bottom.
``{{REPOSITORY}}``, ``{{COLAB}}`` and ``{{SETUP}}`` in a source are filled in here, so that they are the same everywhere.
``--check`` writes nothing and says which notebooks are not what their sources say.
"""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
SOURCES = NOTEBOOKS / "sources"
SETUP = '''# Set-up: on Colab this fetches the course and installs the package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    !git clone --depth 1 {repository} /content/medbridge-course
    %pip install --quiet -e "/content/medbridge-course[course]"
    %cd /content/medbridge-course/{folder}'''


def repository() -> str:
    """Address of the repository, from pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def target(source: Path) -> Path:
    """The notebook that a source becomes."""
    return NOTEBOOKS / source.relative_to(SOURCES).with_suffix(".ipynb")


def render(source: Path) -> nbformat.NotebookNode:
    """The notebook of a source, without outputs."""
    notebook = target(source).relative_to(ROOT)
    address = repository()
    github = address.removeprefix("https://github.com/")
    badge = (f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
             f"(https://colab.research.google.com/github/{github}/blob/main/{notebook.as_posix()})")
    text = source.read_text(encoding="utf-8").replace("{{REPOSITORY}}", address).replace("{{COLAB}}", badge)
    book = jupytext.reads(text, fmt="py:percent")
    for number, cell in enumerate(book.cells):
        cell["id"] = f"cell-{number:03d}"  # stable ids keep diffs small
        if cell.cell_type == "code" and cell.source.strip() == "# {{SETUP}}":
            cell.source = SETUP.format(repository=address, folder=notebook.parent.as_posix())
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.metadata.pop("jupytext", None)
    return book


def same_cells(a: nbformat.NotebookNode, b: nbformat.NotebookNode) -> bool:
    """Whether two notebooks have the same cells, whatever their outputs."""
    def cells(book: nbformat.NotebookNode) -> list[tuple]:
        return [(c.cell_type, c.source, tuple(c.metadata.get("tags", []))) for c in book.cells]

    return cells(a) == cells(b)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="starts of file names, such as 03; default all")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    sources = [s for s in sorted(SOURCES.rglob("*.py")) if not args.names or s.name.startswith(tuple(args.names))]
    if args.check:
        stale = [s for s in sources if not target(s).exists() or not same_cells(render(s), nbformat.read(target(s), 4))]
        for source in stale:
            print(f"{target(source).relative_to(ROOT)} is not what {source.relative_to(ROOT)} says; run `make notebooks`")
        return 1 if stale else 0
    bar = tqdm(sources, unit="notebook")
    for source in bar:
        bar.set_postfix_str(source.stem)
        book, path, began = render(source), target(source), time.perf_counter()
        path.parent.mkdir(exist_ok=True)
        NotebookClient(book, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
        for cell in book.cells:
            cell.metadata.pop("execution", None)  # times of the run: noise in every diff
        nbformat.write(book, path)
        tqdm.write(f"{path.relative_to(ROOT)}: {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Copies of the course for a class, from the one source.

    python scripts/course_copy.py student     -> build/student/: notebooks without solutions and without outputs
    python scripts/course_copy.py solutions   -> build/solutions/: notebooks with outputs, folded solutions, and solutions/

Each copy works by itself: it holds the package, the shipped experts and fixtures, and what `pip install -e ".[course]"` needs.
The checks of the exercises are part of the package and stay in both: they say what is wrong, not what is right, though who
reads their code can learn much from it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
SHARED = ("medbridge", "data", "docs", "bench", "pyproject.toml", "constraints.txt", "environment.yml", "LICENSE",
          "scripts/procedural_images.py")
FOLDED = re.compile(r"<details>\s*<summary>\s*Solution.*?</details>\s*", re.DOTALL)
TEACHERS = re.compile(r"<!-- solutions -->.*?<!-- /solutions -->\s*", re.DOTALL)


def student(book: NotebookNode) -> NotebookNode:
    """The notebook without folded solutions, without prose between ``<!-- solutions -->`` marks, and without outputs."""
    cells = []
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = TEACHERS.sub("", FOLDED.sub("", cell.source)).strip()
            if not cell.source:
                continue
        else:
            cell.outputs, cell.execution_count = [], None
        cells.append(cell)
    book.cells = cells
    return book


def copy(kind: str, out: Path) -> None:
    """Write the copy; a folder of that name from an earlier run is replaced."""
    if out.exists():
        shutil.rmtree(out)
    (out / "notebooks").mkdir(parents=True)
    for name in SHARED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, out / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copy2(ROOT / name, out / name)
    titles = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        book = nbformat.read(path, 4)
        titles.append((book.cells[0].source.splitlines()[0].lstrip("# "), path.name))
        nbformat.write(student(book) if kind == "student" else book, out / "notebooks" / path.name)
    if kind == "solutions":
        shutil.copytree(ROOT / "notebooks" / "solutions", out / "notebooks" / "solutions",
                        ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (out / "README.md").write_text(_readme(kind, titles), encoding="utf-8")


def _readme(kind: str, titles: list[tuple[str, str]]) -> str:
    edition = {"student": "Student's copy: exercises without solutions.",
               "solutions": "Teacher's copy: outputs and solutions included."}[kind]
    listed = "\n".join(f"- [{title}](notebooks/{name})" for title, name in titles)
    return f"""# MedBridge: the course

{edition} For research and education only, not for clinical use.

```
python3 -m venv .venv
.venv/bin/pip install -c constraints.txt -e ".[course]"
.venv/bin/jupyter lab notebooks
.venv/bin/medbridge course progress
```

{listed}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("student", "solutions"))
    parser.add_argument("--out", type=Path, help="default build/KIND")
    args = parser.parse_args()
    out = args.out or ROOT / "build" / args.kind
    copy(args.kind, out)
    print(f"{out}: {len(list(out.glob('notebooks/*.ipynb')))} notebooks")
    return 0


if __name__ == "__main__":
    sys.exit(main())

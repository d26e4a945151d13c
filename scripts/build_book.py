"""Build the static site of the course with Jupyter Book: build/book/index.html.

    python scripts/build_book.py [--out build/book]

Nothing is executed: pages show the stored outputs. Nothing is asked from outside while reading: MathJax lies beside the pages,
badges become links, widgets become a note (their static picture stands in the notebook), and every picture has a
description, the alternative text that ``build_notebooks.py`` stored with it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jupyter_server_mathjax
import nbformat
import yaml
from build_notebooks import repository

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "MODEL_CARD.md", "DATA_CARD.md", "data/README.md", "data/tiny_experts/README.md",
         "data/fixtures/README.md", "docs/running.md", "docs/experts.md", "docs/results.md", "docs/earlier_results.md",
         "docs/notation.md", "docs/minutes.md", "docs/scale.md", "bench/README.md")
# live cells would come from another server; Jupyter Book writes their script into every page, twice
THEBE = re.compile(r"<script[^>]*>[^<]*THEBE_JS_URL[^<]*</script>|<script[^>]*sphinx-thebe\.js[^>]*></script>")
# GitHub chooses by the reader's theme; the site has one of its own, so it shows the light one
THEMED = re.compile(r'<picture>.*?<img alt="([^"]*)" src="([^"]*)">.*?</picture>', re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^):]+)\)")  # of this folder, not of the web
LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\((?!https?:|mailto:|#)([^()\s#]+)(#[^()\s]*)?\)")
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
# the theme hides what leaves a span.math, a class that MathJax 2 uses inside as well: letters would stand above the line
STYLE = """span.math { overflow: visible; }
.MathJax span.math { display: inline-block; }
@media (max-width: 600px) { .bd-article h1 { font-size: 2rem; } .bd-article h2 { font-size: 1.6rem; } }
"""
CONFIG = {
    "title": "MedBridge: a course",
    "author": "the MedBridge course",
    "execute": {"execute_notebooks": "off"},
    "parse": {"myst_enable_extensions": ["amsmath", "dollarmath", "deflist", "html_image", "colon_fence"]},
    "sphinx": {"config": {
        "nb_ipywidgets_js": {}, "myst_update_mathjax": False, "html_math_renderer": "mathjax", "html_show_copyright": False,
        "mathjax_path": "mathjax/MathJax.js?config=TeX-AMS-MML_HTMLorMML-full",
        "mathjax2_config": {"tex2jax": {"inlineMath": [["\\(", "\\)"]], "displayMath": [["\\[", "\\]"]]}, "messageStyle": "none",
                            "showMathMenu": False, "jax": ["input/TeX", "output/HTML-CSS"],
                            "HTML-CSS": {"availableFonts": [], "webFont": "STIX-Web", "imageFont": None,
                                         "matchFontHeight": False}},
        "html_theme_options": {"navbar_persistent": [], "use_repository_button": False, "use_issues_button": False,
                               "use_download_button": False,
                               "search_bar_text": "Search the course"},
        # raw HTML blocks in notebooks (folded hints) begin below the page's own headings
        "suppress_warnings": ["myst.header", "mystnb.unknown_mime_type"]}},
}


def described(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its pictures' descriptions where the book looks, and without what would need another server."""
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = BADGE.sub(r"[Open in Colab](\1)", cell.source)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                cell.metadata["mystnb"] = {"image": {"alt": output.metadata["image/png"]["alt"]}}
            if output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None) is not None:
                output.data = {"text/plain": "Interactive: open the notebook in Jupyter or on Colab to move the controls."}
    book.metadata.pop("widgets", None)
    return book


def linked(text: str, page: str, kept: set[str]) -> str:
    """The text of a page; links to files that are no page of the site (code, folders, the licence) lead to the repository."""

    def lead(match: re.Match) -> str:
        path = os.path.normpath(os.path.join(os.path.dirname(page), match[2]))
        if path in kept or not (ROOT / path).exists():
            return match[0]
        return f"[{match[1]}]({repository()}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}{match[3] or ''})"

    return LINK.sub(lead, text)


def write_source(folder: Path) -> None:
    """Everything that Jupyter Book reads."""
    chapters = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    solutions = sorted((ROOT / "notebooks" / "solutions").glob("[0-9]*.ipynb"))
    kept = {*PAGES, *(path.relative_to(ROOT).as_posix() for path in [*chapters, *solutions])}
    for name in PAGES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = THEMED.sub(r"![\1](\2)", BADGE.sub(r"[Open in Colab](\1)", (ROOT / name).read_text(encoding="utf-8")))
        (folder / name).write_text(linked(text, name, kept), encoding="utf-8")
        for picture in PICTURE.findall(text):
            copied = (folder / name).parent / picture
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2((ROOT / name).parent / picture, copied)
    (folder / "notebooks" / "solutions").mkdir(parents=True)
    for path in [*chapters, *solutions]:
        page, book = path.relative_to(ROOT).as_posix(), described(nbformat.read(path, 4))
        for cell in book.cells:
            if cell.cell_type == "markdown":
                cell.source = linked(cell.source, page, kept)
        nbformat.write(book, folder / page)
    (folder / "_static").mkdir()
    (folder / "_static" / "course.css").write_text(STYLE, encoding="utf-8")
    (folder / "_config.yml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")

    def entries(paths: list[Path]) -> list[dict[str, str]]:
        return [{"file": path.relative_to(ROOT).with_suffix("").as_posix()} for path in paths]

    parts = [{"caption": "The course", "chapters": entries(chapters)}, {"caption": "Solutions", "chapters": entries(solutions)},
             {"caption": "Reference", "chapters": [{"file": name.removesuffix(".md")} for name in PAGES[1:]]}]
    (folder / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "README", "parts": parts}), encoding="utf-8")


def build(out: Path) -> str:
    """Build the site into ``out`` and return what Jupyter Book said.

    Raises:
        RuntimeError: the build failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, made = Path(scratch) / "source", Path(scratch) / "made"
        source.mkdir()
        write_source(source)
        call = "from jupyter_book.cli.main import main; main()"
        done = subprocess.run([sys.executable, "-c", call, "build", str(source), "--path-output", str(made)], capture_output=True,
                              text=True, check=False)
        said = done.stdout + done.stderr
        html = made / "_build" / "html"
        if done.returncode or not (html / "index.html").exists():
            raise RuntimeError(f"jupyter-book failed:\n{said[-4000:]}")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(html, out, ignore=shutil.ignore_patterns("_sources", "objects.inv"))
    # not before: Jupyter Book asks every page for every script that lies in the source's _static
    shutil.copytree(Path(jupyter_server_mathjax.__file__).parent / "static", out / "_static" / "mathjax",
                    ignore=shutil.ignore_patterns("localization", "*.py"))
    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(THEBE.sub("", text), encoding="utf-8")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book")
    args = parser.parse_args()
    said = build(args.out)
    print("\n".join(line for line in said.splitlines() if "WARNING" in line))
    print(f"open {args.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

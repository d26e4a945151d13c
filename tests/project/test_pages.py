"""The pages: README is short and its code runs, links lead somewhere, results are what their command writes."""

import contextlib
import io
import re
import sys
from functools import lru_cache
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import build_notebooks  # noqa: E402
import draw_architecture  # noqa: E402
import write_results  # noqa: E402

SKIPPED = {"build", "runs", "node_modules", "shared"}
PAGES = sorted(p for pattern in ("*.md", "notebooks/*.ipynb", "notebooks/solutions/*.ipynb") for p in ROOT.rglob(pattern)
               if not any(part.startswith(".") or part in SKIPPED for part in p.relative_to(ROOT).parts))
LINKS = re.compile(r'(?:\]\(|\b(?:src|srcset|href)=")([^)\s"]+)[)"]')
CODE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


@lru_cache
def _text(path):
    """A page's Markdown, without blocks of code."""
    if path.suffix == ".ipynb":
        return "\n\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    return CODE.sub("", path.read_text(encoding="utf-8"))


@lru_cache
def _anchors(path):
    """Names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", _text(path), re.MULTILINE)
    shown = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in shown}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page):
    for link in LINKS.findall(re.sub(r"`[^`\n]*`", "", _text(page))):
        if re.match(r"[a-z]+:|\{\{|//", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.relative_to(ROOT)} links to {link}"
        if anchor and target.suffix in (".md", ".ipynb"):
            assert anchor in _anchors(target), f"{page.relative_to(ROOT)} links to {link}; there are {sorted(_anchors(target))}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1_100


def test_the_code_of_the_readme_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    code, = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names, out = {}, io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), names)
    lines = out.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == list(names["model"].labels)
    assert all(0 <= float(line.partition(":")[2]) <= 1 for line in lines)


def test_the_readme_has_a_row_for_each_notebook_and_what_is_stamped():
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\(notebooks/(\w+)\.ipynb\) \|", front) == [s.stem for s in sorted(build_notebooks.SOURCES.glob("*.py"))]
    assert build_notebooks.front_page(front) == front, "run `make stamp`"


def test_the_picture_is_what_its_script_draws():
    for name, theme in draw_architecture.THEMES.items():
        drawn = (draw_architecture.FOLDER / f"architecture-{name}.svg").read_text(encoding="utf-8")
        assert drawn == draw_architecture.draw(theme)


def test_the_results_are_what_their_command_writes():
    assert write_results.PAGE.read_text(encoding="utf-8") == write_results.page(), "run python scripts/write_results.py"

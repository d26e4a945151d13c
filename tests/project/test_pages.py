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


def test_the_code_of_the_running_page_names_what_the_package_has():
    page = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    code, = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    compile(code, "docs/running.md", "exec")
    exec(code.splitlines()[0], {})


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


def _maths(text):
    """Formulas of a text, without words and code."""
    text = re.sub(r"`[^`\n]*`", "", CODE.sub("", text))
    found = re.findall(r"\$\$(.+?)\$\$", text, re.DOTALL)
    found += re.findall(r"\$([^$]+?)\$", re.sub(r"\$\$.+?\$\$", "", text, flags=re.DOTALL))
    return [re.sub(r"\\(?:mathrm|text|operatorname|mathcal|mathbb)\{[^{}]*\}|\\[A-Za-z]+", " ", formula) for formula in found]


def _capitals(text):
    """Capital letters of its formulas; ``K_`` is a K with an index, a symbol of its own."""
    single = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z])(_?)")
    return {letter + index for formula in _maths(text) for letter, index in single.findall(formula)}


def test_a_letter_has_one_meaning():
    page = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")
    sizes, quantities, local = (page.split(f"## {name}\n")[1].split("\n## ")[0] for name in
                                ("Sizes", "Quantities", "Letters of one notebook"))
    symbols = [symbol.strip() for line in (sizes + quantities).splitlines() if line.startswith("| $")
               for symbol in re.split(r", (?![^{]*\})", re.match(r"\| \$(.+?)\$ \|", line)[1])]
    assert len(symbols) >= 25 and len(symbols) == len(set(symbols)), "a symbol is explained twice"
    shared = _capitals(sizes + quantities)
    own = {number: _capitals(rest) for number, rest in re.findall(r"^\| (\d\d) \| (.*) \|$", local, re.MULTILINE)}
    for number, letters in own.items():
        assert not letters & shared, f"notebook {number} has a meaning of its own for {letters & shared}"
    for source in sorted(build_notebooks.SOURCES.glob("*.py")):
        book = "\n\n".join(c.source for c in build_notebooks.render(source).cells if c.cell_type == "markdown")
        known = {letter[0] for letter in own.get(source.stem[:2], set())}
        unknown = {letter for letter in _capitals(book) - shared if letter[0] not in known}
        assert not unknown, f"{source.name}: docs/notation.md does not explain {sorted(unknown)}"


def test_marks_are_the_three_and_no_section_of_the_paper_is_named():
    """The body of the paper could not be read: what is said of it rests on abstracts and on others' summaries."""
    texts = [*ROOT.glob("*.md"), *(p for folder in ("docs", "data", "bench", "scripts", "medbridge", "notebooks/sources")
                                   for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".md", ".yaml", ".toml"))]
    for path in texts:
        text = path.read_text(encoding="utf-8")
        found = re.search(r"\[paper\b|\[ours[,:]|[Pp]aper, section|2505\.21698\]?(?:\([^)]*\))?, section|section 3, \"", text)
        assert not found, f"{path}: {found[0]}"

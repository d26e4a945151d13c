"""A notebook is one sitting: how long it, its sections, its cells and its lines may be, and that its pictures are described."""

import re
import statistics
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import build_notebooks as build  # noqa: E402

CHAPTERS = sorted(build.SOURCES.glob("*.py"))
SOURCES = sorted(build.SOURCES.rglob("*.py"))

# lines of code, words of prose, sections (the summary is one), lines of the longest cell, their median, lines of prose over 110
AIM = {"lines": 450, "words": 1800, "sections": 6, "longest": 20, "median": 7, "wide": 0}


def sizes(source):
    """What a reader meets; neither the set-up cell, blank lines, nor formulas, folded solutions and addresses count."""
    text = source.read_text(encoding="utf-8")
    cells = jupytext.reads(text, fmt="py:percent").cells
    code = [sum(bool(line.strip()) for line in c.source.splitlines())
            for c in cells if c.cell_type == "code" and c.source.strip() != "# {{SETUP}}"]
    prose = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    read = re.sub(r"<details>\s*<summary>\s*Solution.*?</details>", "", prose, flags=re.DOTALL)
    read = re.sub(r"\$\$.*?\$\$|\]\([^)]*\)|<[^>]*>", " ", read, flags=re.DOTALL)
    wide = [line for line in text.splitlines() if line.startswith("# ") and not line.startswith(("# %%", "# |"))
            and len(line) > 110 and " " in line[2:].strip()]
    return {"lines": sum(code), "words": len(re.findall(r"[^\s|]*\w[^\s|]*", read)),
            "sections": len(re.findall(r"^## ", prose, re.MULTILINE)), "longest": max(code), "median": statistics.median(code),
            "wide": len(wide)}


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda s: s.stem)
def test_a_chapter_is_one_sitting(source):
    beyond = {name: value for name, value in sizes(source).items() if value > AIM[name]}
    assert not beyond, f"{source.name}: {beyond}, the aim is {AIM}: say less, or make it two notebooks"


def test_sizes_are_counted(tmp_path):
    source = tmp_path / "50_x.py"
    source.write_text("# %% [markdown]\n# # 50 [two words](address.ipynb)\n#\n# $$a + b$$\n#\n# ## Part\n# " + "long " * 24
                      + "\n# <details><summary>Solution</summary>\n# no\n# </details>\n\n# %%\n# {{SETUP}}\n"
                      "\n# %%\n# note\nx = 1\n\ny = 2\n\n# %%\nz = 3\n")
    assert sizes(source) == {"lines": 4, "words": 28, "sections": 1, "longest": 3, "median": 2, "wide": 1}


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: str(s.relative_to(build.SOURCES)))
def test_every_picture_has_an_alternative_text(source):
    """In the picture's metadata, where IPython's own ``Image(alt=...)`` puts it."""
    for cell in nbformat.read(build.target(source), 4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                assert len(alt.split()) >= 2 and not re.search(r"[{}]|\.png$", alt), f"{cell.source[:80]}: {alt!r}"
                assert not alt.startswith("figure of the section"), f"give the cell an alt: {cell.source[:80]}"

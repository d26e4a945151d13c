"""The notebooks are what their sources say, and each keeps the course's form. That they run is `pytest --nbval notebooks`."""

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import build_notebooks as build  # noqa: E402

SOURCES = sorted(build.SOURCES.rglob("*.py"))
CHAPTERS = sorted(build.SOURCES.glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: str(s.relative_to(build.SOURCES)))
def test_a_notebook_is_what_its_source_says_and_has_its_outputs(source):
    stored = nbformat.read(build.target(source), 4)
    assert build.same_cells(build.render(source), stored), "run `make notebooks`"
    code = [c for c in stored.cells if c.cell_type == "code" and c.source.strip()]
    assert all(c.execution_count for c in code)
    assert not any(o.output_type == "error" for c in code for o in c.outputs)


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda s: s.stem)
def test_a_chapter_keeps_the_form(source):
    cells = nbformat.read(build.target(source), 4).cells
    opening, text = cells[0].source, "\n".join(c.source for c in cells)
    assert opening.startswith(f"# {source.stem[:2]} ")
    parts = ["colab-badge.svg", "**What you will build:**", "- **Prerequisites:**", "- **Time:**", "- **Module", "- **Paper"]
    places = [opening.find(part) for part in parts]
    assert -1 not in places and places == sorted(places), f"the opening has not {parts} in this order"
    assert f"about {build.reading_minutes(source)} minutes to read and solve;" in opening
    assert "T4" in opening and "not for clinical use" in opening and re.search(r"\*?synthetic\*?", opening)
    assert cells[1].source.startswith("# Set-up") and build.repository() in cells[1].source
    assert "## Summary" in text and "### Exercise" in text
    assert (build.SOURCES / "solutions" / source.name).exists()


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda s: s.stem)
def test_a_chapter_names_the_modules_that_it_ends_in_and_their_tests(source):
    line = re.search(r"^- (\*\*Modules?:\*\*.*?)^- ", build.render(source).cells[0].source, re.MULTILINE | re.DOTALL)[1]
    modules, tests = (re.findall(r"`([^`]+)`", part) for part in line.split("·"))
    assert modules and tests and line.count("·") == 1
    assert all(name.startswith("medbridge/") for name in modules) and all(name.startswith("tests/") for name in tests)
    for name in (*modules, *tests):
        assert (ROOT / name).exists(), f"{source.name} names {name}"


def test_five_notebooks_or_more_have_a_widget_and_every_widget_says_what_stands_in_for_it():
    """A notebook with a widget has, beside it, a static picture: a cell before or after it that draws."""
    having = 0
    for source in CHAPTERS:
        cells = nbformat.read(build.target(source), 4).cells
        shown = [any("image/png" in o.get("data", {}) for o in c.get("outputs", [])) for c in cells]
        live = [i for i, c in enumerate(cells) if c.cell_type == "code"
                and any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in c.outputs)]
        having += bool(live)
        for i in live:
            assert any(shown[max(0, i - 6) : i + 4]), f"{source.stem}: no picture near {cells[i].source!r}"
    assert having >= 5


def test_minutes_of_reading_are_counted(tmp_path):
    source = tmp_path / "50_x.py"
    source.write_text("# %% [markdown]\n# # 50 [word](address.ipynb) and\n#\n# ★★☆, 15 minutes.\n"
                      "# <details><summary>Solution</summary>\n# not this\n# </details>\n\n# %%\n# nor this\nx = 1\n\ny = 2\n")
    assert build.counts(source) == (5, 2, 15)  # 50, word, and, 15, minutes
    assert build.reading_minutes(source) == 15


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda s: s.stem)
def test_every_exercise_has_a_check_and_a_solution_that_passes(source):
    from medbridge.course.exercises import CHECKS

    number = int(source.stem[:2])
    numbers = [n for n in CHECKS if n.startswith(f"{number}.")]
    assert len(numbers) >= 3
    chapter = source.read_text()
    solved = nbformat.read(build.target(build.SOURCES / "solutions" / source.name), 4)
    printed = "".join(o.get("text", "") for c in solved.cells for o in c.get("outputs", []))
    for n in numbers:
        exercise = re.search(rf"### Exercise {re.escape(n)}:.*?check\(\"{re.escape(n)}\"", chapter, re.DOTALL)[0]
        assert re.search(r"(?:★☆☆|★★☆|★★★), \d+ minutes", exercise) and "<summary>Hint" in exercise
        assert f"### Exercise {n}" in chapter and f'check("{n}"' in chapter
        assert f"Exercise {n}: right" in printed


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: str(s.relative_to(build.SOURCES)))
def test_no_line_of_prose_begins_with_a_comment(source):
    """Markdown takes the whole line for HTML then, and shows its marks as they are."""
    text = "\n".join(c.source for c in build.render(source).cells if c.cell_type == "markdown")
    assert not re.search(r"^\s*<!--", text, re.MULTILINE)


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: str(s.relative_to(build.SOURCES)))
def test_links_between_notebooks_lead_somewhere(source):
    text = "\n".join(c.source for c in build.render(source).cells if c.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)#:{}]+\.ipynb)\)", text):
        assert (build.target(source).parent / link).exists(), f"{source.name} links to {link}"


def test_each_chapter_ends_where_the_next_begins_and_the_first_names_all():
    texts = {s.stem: "\n".join(c.source for c in build.render(s).cells) for s in CHAPTERS}
    for now, following in pairwise(texts):
        end = texts[now].split("## Summary")[1]
        assert re.search(rf"^Next: .*\({following}\.ipynb\)", end, re.MULTILINE), f"{now} does not end in a link to {following}"
        assert f"({following}.ipynb)" in texts[CHAPTERS[0].stem], f"the table of {CHAPTERS[0].stem} lacks {following}"


def test_a_link_to_a_notebook_that_is_not_written_is_plain_text():
    link = f"[a chapter]({CHAPTERS[0].stem}.ipynb)"
    assert build.settle_links(f"{link}, [99 More](99_more.ipynb)", build.SOURCES) == f"{link}, 99 More (in preparation)"
    with pytest.raises(ValueError, match="is the last"):
        build.next_link(CHAPTERS[-1])


def test_the_table_of_minutes_is_current():
    assert (ROOT / "docs" / "minutes.md").read_text(encoding="utf-8") == build.minutes_page(), "run `make stamp`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: str(s.relative_to(build.SOURCES)))
def test_a_notebook_holds_no_trace_of_the_machine_that_ran_it(source):
    """What would be noise in a review: times, folders, editors' settings."""
    book = nbformat.read(build.target(source), 4)
    assert set(book.metadata) <= {"kernelspec", "language_info", "widgets"}
    assert book.metadata.kernelspec.name == "python3"
    for cell in book.cells:
        assert set(cell.metadata) <= {"tags", "alt"}, cell.source[:80]
        for output in cell.get("outputs", []):
            assert set(output.get("metadata", {})) <= {"image/png", "needs_background"}
            shown = json.dumps([output.get("text"), output.get("data", {}).get("text/plain")])
            trace = re.search(r"/(?:home|root|Users|tmp|work)/\S*", shown)
            assert not trace, f"a folder of the machine stands in the stored output: {trace[0]}"

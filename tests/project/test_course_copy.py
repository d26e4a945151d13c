"""The student's copy holds no solution and no output; the teacher's holds all; both come from the same notebooks."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import course_copy  # noqa: E402

CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
FOLDED = re.compile(r"<summary>\s*Solution.*?</details>", re.DOTALL)


def _solutions(path):
    """The folded solutions' code, cell by cell."""
    text = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    return [code for folded in FOLDED.findall(text) for code in re.findall(r"```python\n(.*?)```", folded, re.DOTALL)]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    base = tmp_path_factory.mktemp("copies")
    for kind in ("student", "solutions"):
        course_copy.copy(kind, base / kind)
    return base


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_student_gets_the_exercises_and_nothing_of_the_solutions(copies, path):
    before, after = nbformat.read(path, 4), nbformat.read(copies / "student" / "notebooks" / path.name, 4)
    text = "\n".join(c.source for c in after.cells)
    assert "Solution</summary>" not in text and "solutions/" not in text, "see course_copy.TEACHERS for prose about solutions"
    for code in _solutions(path):
        assert code.strip() not in text
    assert [c.source for c in after.cells if c.cell_type == "code"] == [c.source for c in before.cells if c.cell_type == "code"]
    assert not any(c.get("outputs") or c.get("execution_count") for c in after.cells)
    assert "check(" in text and "<summary>Hint" in text
    full = copies / "solutions" / "notebooks"
    assert (full / path.name).read_bytes() == path.read_bytes() and (full / "solutions" / path.name).exists()


def test_a_copy_is_whole(copies):
    student = copies / "student"
    assert not (student / "notebooks" / "solutions").exists() and not (student / "notebooks" / "sources").exists()
    assert (student / "data" / "tiny_experts").is_dir() and (student / "pyproject.toml").is_file()
    for path in (student / "notebooks").glob("*.ipynb"):
        for link in re.findall(r"\]\(([^)#:{}\s]+\.(?:ipynb|md|py))\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"
    assert f"(notebooks/{CHAPTERS[0].name})" in (student / "README.md").read_text()


@pytest.mark.parametrize("kind", ["student", "solutions"])
def test_what_a_copied_notebook_reads_and_imports_is_copied_too(copies, kind):
    ours = {p.stem for p in (ROOT / "scripts").glob("*.py")}
    met = set()
    for path in (copies / kind / "notebooks").rglob("*.ipynb"):
        code = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")
        for place in re.findall(r'"((?:\.\./)+[^"]+)"', code):
            assert (path.parent / place).exists(), f"{path.name} reads {place}"
        for module in ours & set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE)):
            met.add(module)
            assert (copies / kind / "scripts" / f"{module}.py").exists(), f"{path.name} imports {module}"
    assert met


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_folded_solutions_are_what_the_solutions_notebook_runs_and_define_what_the_stub_defines(path):
    solved = nbformat.read(path.parent / "solutions" / path.name, 4)
    run = " ".join("\n".join(c.source for c in solved.cells if c.cell_type == "code").split())
    assert len(_solutions(path)) >= 3 and all(" ".join(solution.split()) in run for solution in _solutions(path))
    code = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")
    for solution in _solutions(path):
        names = {n.name for n in ast.walk(ast.parse(solution)) if isinstance(n, ast.FunctionDef)}
        assigned = [t for n in ast.parse(solution).body if isinstance(n, ast.Assign) for t in n.targets]
        names |= {t.id for t in assigned if isinstance(t, ast.Name)}
        assert any(re.search(rf"\b{name}\b", code) for name in names), solution

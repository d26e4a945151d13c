"""The examples of CONTRIBUTING.md run, in order, in one session; printed output is what the page shows."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
sys.path.insert(0, str(ROOT / "scripts"))
import build_notebooks as build  # noqa: E402


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """(names that the page's blocks have defined, the folder that they ran in, what they printed)."""
    import contextlib
    import io

    from medbridge.course.exercises import CHECKS
    from medbridge.experts.registry import ALIASES

    folder = tmp_path_factory.mktemp("contributing")
    held = [dict(d) for d in (CHECKS, ALIASES)]
    names, out = {"__name__": "contributing"}, io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        for kind, code in BLOCKS:
            if kind == "python":
                exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    yield names, folder, out.getvalue()
    for registry, before in zip((CHECKS, ALIASES), held, strict=True):
        registry.clear()
        registry.update(before)


def test_the_page_prints_what_it_shows(session):
    assert session[2] == next(code for kind, code in BLOCKS if kind == "")


def test_the_baseline_works_on_cached_films(session, films):
    method = session[0]["Prevalence"]().fit(films["train"], films["val"])
    found = method.predict_proba(films["test"])
    y, mask = films["train"].benchmark.targets()
    assert found.shape == (len(films["test"]), y.shape[1])
    np.testing.assert_allclose(found[0], [y[mask[:, c], c].mean() for c in range(y.shape[1])], rtol=1e-6)


def test_the_notebook_source_becomes_a_notebook(session, monkeypatch):
    sources = session[1] / "notebooks" / "sources"
    sources.mkdir(parents=True)
    (session[1] / "99_counting.py").rename(sources / "99_counting.py")
    (session[1] / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for name, path in (("ROOT", session[1]), ("NOTEBOOKS", sources.parent), ("SOURCES", sources)):
        monkeypatch.setattr(build, name, path)
    cells = build.render(sources / "99_counting.py").cells
    assert "colab-badge" in cells[0].source and cells[1].source.startswith("# Set-up") and len(cells) == 5

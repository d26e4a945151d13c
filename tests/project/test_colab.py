"""The badges and set-up cells follow one setting, and the set-up cell works as it stands in a clean environment.

Colab is simulated: a module `google.colab`, a fresh virtual environment that can import this environment's packages but not the
course, git sent to a copy of this checkout, and pip to a folder of wheels. The cell's own text runs in IPython.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import build_notebooks as build  # noqa: E402

PROBE = "medbridge_probe"


def _set_up(path):
    return nbformat.read(path, 4).cells[1].source


def _point_build_at(root, monkeypatch):
    monkeypatch.setattr(build, "ROOT", root)
    monkeypatch.setattr(build, "NOTEBOOKS", root / "notebooks")
    monkeypatch.setattr(build, "SOURCES", root / "notebooks" / "sources")


def test_one_setting_stamps_all(tmp_path, monkeypatch):
    """A changed address reaches every notebook, and no stored output is lost."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["urls"]["Repository"] == project["tool"]["medbridge"]["repository"] == build.repository()
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    text = (ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(
        text.replace(f'repository = "{build.repository()}"', 'repository = "https://github.com/someone/fork"', 1))
    _point_build_at(tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "argv", ["build_notebooks.py", "--check"])
    assert build.main() == 1
    monkeypatch.setattr(sys, "argv", ["build_notebooks.py", "--stamp"])
    assert build.main() == 0
    assert tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]["urls"]["Repository"].endswith("someone/fork")
    for path in (tmp_path / "notebooks").rglob("*.ipynb"):
        after, before = path.read_text(), (ROOT / path.relative_to(tmp_path)).read_text()
        assert "https://colab.research.google.com/github/someone/fork/blob/main/notebooks/" in after
        assert "git clone --quiet --depth 1 https://github.com/someone/fork " in _set_up(path)
        assert "medbridge-course/medbridge-course" not in after
        assert [c.get("outputs") for c in json.loads(after)["cells"]] == [c.get("outputs") for c in json.loads(before)["cells"]]


def test_stamp_leaves_changed_code_to_a_run(tmp_path, monkeypatch, capsys):
    source = tmp_path / "notebooks" / "sources" / "50_x.py"
    source.parent.mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    _point_build_at(tmp_path, monkeypatch)
    source.write_text("# %% [markdown]\n# # 50 X\n\n# %%\n# {{SETUP}}\n\n# %%\n1 + 1\n")
    nbformat.write(build.render(source), build.target(source))
    for old, new, status in (("# # 50 X", "# # 50 Y", 0), ("1 + 1", "1 + 2", 1)):
        source.write_text(source.read_text().replace(old, new))
        monkeypatch.setattr(sys, "argv", ["build_notebooks.py", "--stamp"])
        assert build.main() == status
    stored = nbformat.read(build.target(source), 4)
    assert stored.cells[0].source == "# 50 Y" and stored.cells[2].source == "1 + 1"
    assert "50_x.ipynb is not what" in capsys.readouterr().out


def _wheel(folder, version):
    """A package of nothing, that the course of this test asks for and the environment lacks."""
    info = f"{PROBE}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{PROBE}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{PROBE}.py", f"version = '{version}'\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PROBE}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{PROBE}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def _git(folder, *command):
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *command], cwd=folder, check=True,
                   capture_output=True)


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """(python of a fresh environment, its variables, the folder that stands for /content)."""
    base = tmp_path_factory.mktemp("colab")
    origin, wheels, content = base / "origin", base / "wheels", base / "content"
    ignore = shutil.ignore_patterns("__pycache__", "sources", "*.safetensors")
    for name in ("medbridge", "notebooks", "scripts"):
        shutil.copytree(ROOT / name, origin / name, ignore=ignore)
    shutil.copytree(ROOT / "data" / "tiny_experts", origin / "data" / "tiny_experts")
    text = (ROOT / "pyproject.toml").read_text()
    assert "dependencies = [\n" in text
    (origin / "pyproject.toml").write_text(text.replace("dependencies = [\n", f'dependencies = [\n    "{PROBE}>=1",\n', 1))
    (origin / "constraints.txt").write_text((ROOT / "constraints.txt").read_text() + f"{PROBE}==1.5\n")
    _git(origin, "init", "--quiet")
    _git(origin, "add", ".")
    _git(origin, "commit", "--quiet", "-m", "x")
    wheels.mkdir()
    content.mkdir()
    for version in ("1.0", "1.5", "2.0"):
        _wheel(wheels, version)
    venv.create(base / "venv", with_pip=False)
    python = base / "venv" / "bin" / "python"
    site = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, text=True,
                          capture_output=True).stdout.strip()
    # this environment's packages, but not what its own .pth files name, such as a checkout of the course
    Path(site, "colab.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    (Path(site) / "google" / "colab").mkdir(parents=True)
    (Path(site) / "google" / "colab" / "__init__.py").touch()
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull, "HOME": str(base),
                  "IPYTHONDIR": str(base / "ipython"), "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": build.repository(),
                  "GIT_CONFIG_KEY_0": f"url.file://{origin}.insteadOf", "GIT_CONFIG_NOSYSTEM": "1"}
    return python, variables, content


SESSION = """
import sys
from importlib.metadata import version
from IPython.core.interactiveshell import InteractiveShell
from importlib.util import find_spec
spec = find_spec("medbridge")  # an editable install leaves a folder of data, which is no package of code
if spec is not None and spec.origin is not None:
    sys.exit("the course is here before the set-up")
import google.colab
import torch
before = (torch.__file__, version("torch"))
shell = InteractiveShell.instance()
for cell in {cells!r}:
    shell.run_cell(cell).raise_error()
import medbridge, os
from medbridge.experts import create_expert
assert create_expert("tiny-resnet").name == "tiny-resnet"
import {probe}
assert (torch.__file__, version("torch")) == before
print("HERE", medbridge.__file__, {probe}.version, {probe}.__file__, os.getcwd(), sep="|")
"""


def test_the_set_up_cell_readies_a_clean_environment(colab):
    python, variables, content = colab
    paths = [ROOT / "notebooks" / "03_focal_sampling.ipynb", ROOT / "notebooks" / "solutions" / "00_start_here.ipynb"]
    cells = [_set_up(path).replace("/content", str(content)) for path in paths]
    done = subprocess.run([python, "-c", SESSION.format(cells=cells, probe=PROBE)], env=variables, cwd=content, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    course, version, probe, folder = next(line for line in done.stdout.splitlines() if line.startswith("HERE")).split("|")[1:]
    clone = content / "medbridge-course"
    assert Path(course) == clone / "medbridge" / "__init__.py" and Path(folder) == clone / "notebooks" / "solutions"
    assert version == "1.5" and str(python.parents[2]) in probe  # the pin, not the newest; into the fresh environment
    assert f"installed: {PROBE}" in done.stdout.replace("-", "_") and "nothing, all was here" in done.stdout
    assert "Restart" not in done.stdout
    # a further process of the same runtime finds the course as well
    subprocess.run([python, "-m", "medbridge.cli", "--version"], env=variables, cwd=content, check=True, capture_output=True)


def test_elsewhere_the_set_up_cell_does_nothing(colab):
    python, variables, content = colab
    cell = _set_up(ROOT / "notebooks" / "00_start_here.ipynb")
    code = f"from IPython.core.interactiveshell import InteractiveShell as S\nS.instance().run_cell({cell!r}).raise_error()"
    empty = content.parent / "elsewhere"
    empty.mkdir()
    done = subprocess.run([python, "-c", code.replace("/content", str(empty))], env=variables, text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not list(empty.iterdir())


def test_what_is_too_old_is_asked_for_and_the_rest_is_held():
    import colab_setup
    from packaging.requirements import Requirement

    here = {"torch": "2.8.0+cu126", "timm": "0.4", "numpy": "2.0.2"}
    asked = ("torch>=2.4", "timm>=1.0.9", "pydicom>=3", "x>=1; python_version<'3'")
    wanted = colab_setup.unmet([Requirement(r) for r in asked], here)
    assert [r.name for r in wanted] == ["timm", "pydicom"]
    lines = colab_setup.constraints(wanted, here)
    assert "torch==2.8.0+cu126" in lines and "numpy==2.0.2" in lines
    pins = [line for line in lines if line.startswith(("timm", "pydicom"))]
    assert len(pins) == 2 and "timm==0.4" not in pins

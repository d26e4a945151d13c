"""environment.yml, pyproject.toml and constraints.txt say the same things."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def _requirements(lines):
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(CONDA_NAMES.get(r.name, r.name)): str(r.specifier) for r in parsed}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def declared(project):
    return _requirements([*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)])


def test_environment_yml_states_what_pyproject_states(project, declared):
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(e["pip"] for e in entries if isinstance(e, dict))
    conda = _requirements([e for e in entries if isinstance(e, str) and e != "pip"] + pip)
    assert conda.pop("python") == project["requires-python"]
    assert conda == declared


def test_constraints_pin_every_declared_package_inside_its_range(declared):
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {canonicalize_name(r.name): next(iter(r.specifier)).version for r in map(Requirement, lines)}
    assert set(pins) == set(declared)
    for name, version in pins.items():
        assert Requirement(f"{name}{declared[name]}").specifier.contains(version), name


def test_every_import_of_the_package_is_declared(declared):
    import ast
    import sys

    names = {"pil": "pillow", "sklearn": "scikit-learn", "open-clip": "open-clip-torch", "yaml": "pyyaml"}
    for path in (ROOT / "medbridge").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found = [node.module]
            else:
                continue
            for module in found:
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top in ("medbridge", "__future__"):
                    continue
                name = names.get(canonicalize_name(top), canonicalize_name(top))
                assert name in declared, f"{path.name} imports {top}"

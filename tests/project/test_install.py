"""`make install` chooses PyTorch's build by the machine, says so, and shows pip's progress. Nothing is installed here."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def install(monkeypatch):
    """scripts/install.py on a Linux machine without a driver, from where PyTorch's index can be reached."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "scripts" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(module, "reachable", lambda index: True)
    monkeypatch.setattr(sys, "platform", "linux")
    return module


def test_without_a_driver_the_cpu_build_is_taken_where_its_index_answers(install, monkeypatch):
    index, reason = install.choose_torch("", "")
    assert index == install.CPU_INDEX and "no NVIDIA driver" in reason and "TORCH=cuda" in reason
    monkeypatch.setattr(install, "reachable", lambda index: False)
    index, reason = install.choose_torch("", "")
    assert index == "" and "cannot be reached" in reason and "TORCH_INDEX=URL" in reason


def test_with_a_driver_or_on_another_system_nothing_is_probed(install, monkeypatch):
    monkeypatch.setattr(install, "reachable", lambda index: pytest.fail("probed"))
    monkeypatch.setattr(install, "has_nvidia_driver", lambda: True)
    index, reason = install.choose_torch("", "")
    assert index == "" and "CUDA build" in reason and "TORCH=cpu" in reason
    monkeypatch.setattr(sys, "platform", "darwin")
    assert install.choose_torch("", "")[0] == ""


@pytest.mark.parametrize(("torch", "index", "chosen"), [
    ("cpu", "", "https://download.pytorch.org/whl/cpu"), ("cuda", "", ""), ("default", "", ""),
    ("", "https://mirror/whl", "https://mirror/whl"), ("cpu", "https://mirror/whl", "https://mirror/whl")])
def test_a_choice_of_the_user_is_not_questioned(install, monkeypatch, torch, index, chosen):
    monkeypatch.setattr(install, "reachable", lambda index: pytest.fail("probed"))
    assert install.choose_torch(torch, index)[0] == chosen


def test_an_index_that_does_not_answer_is_not_reachable():
    spec = importlib.util.spec_from_file_location("install", ROOT / "scripts" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.reachable("http://127.0.0.1:9") and not module.reachable("no address")


def test_pip_shows_its_progress_and_each_step_is_announced(install, monkeypatch, capsys):
    calls = []

    def run(command):
        calls.append(command[3:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(install.subprocess, "run", run)
    assert install.main(["--torch", "", "--torch-index", ""]) == 0
    torch, rest = calls
    assert torch[-2:] == ["torch", "torchvision"] and torch[torch.index("--extra-index-url") + 1] == install.CPU_INDEX
    assert "--extra-index-url" not in rest and rest[-2:] == ["-e", f"{ROOT}[book,course,dev,hf,log]"]
    for arguments in calls:
        assert arguments[0] == "install" and "--quiet" not in arguments and str(ROOT / "constraints.txt") in arguments
    printed = capsys.readouterr().out
    assert "[1/2] PyTorch, CPU build" in printed and "[2/2] MedBridge" in printed and "installed in" in printed


def test_a_failure_of_pip_ends_the_installation_with_its_status(install, monkeypatch, capsys):
    monkeypatch.setattr(install.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 3))
    assert install.main(["--torch", "cuda"]) == 3
    printed = capsys.readouterr()
    assert "[2/2]" not in printed.out and "status 3" in printed.err


def test_make_passes_its_variables_on(tmp_path):
    command = ["make", "-n", "-B", "install", "TORCH=cpu", "TORCH_INDEX=https://mirror"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert '.venv/bin/python scripts/install.py --torch "cpu" --torch-index "https://mirror"' in made
    made = subprocess.run(["make", "-n", "-B", "quickstart"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 'install.py --torch "" --torch-index ""' in made and "medbridge quickstart" in made


def test_the_extras_are_those_that_pyproject_declares(install):
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(install.EXTRAS.split(",")) == sorted(extras)

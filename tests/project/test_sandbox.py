"""`medbridge predict` where nothing can be written and nothing can be reached: a container with a read-only root."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# in every process of the test: whoever opens a connection or looks a name up is told so
NO_NETWORK = """
import socket
def refuse(*args, **kwargs):
    raise OSError("the test allows no network")
socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = socket.socket.connect_ex = refuse
"""
# a namespace of its own without a network, with a read-only root, and no right to write regardless of permissions; as in
# `docker run --network none --read-only --tmpfs /tmp`: torch cannot be imported without any temporary folder
JAIL = ["unshare", "-r", "-n", "-m", "sh", "-c",
        'mount --make-rprivate / && mount -o remount,bind,ro / && ! touch "$0/x" 2>/dev/null && '
        'mount -t tmpfs tmpfs "$0/TMPDIR" && '
        'exec setpriv --bounding-set=-all --inh-caps=-all "$@"']


@pytest.fixture
def closed(tmp_path):
    """(variables, folders) of a process whose home, cache, temporary and working folder cannot be written."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(NO_NETWORK)
    folders = {name: tmp_path / name for name in ("HOME", "MEDBRIDGE_CACHE", "TMPDIR", "work")}
    for folder in folders.values():
        folder.mkdir()
        folder.chmod(0o555)
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("MEDBRIDGE", "HF_", "XDG", "MPL", "TORCH"))}
    variables |= {name: str(folder) for name, folder in folders.items() if name != "work"}
    variables |= {"PYTHONPATH": f"{hooks}:{ROOT}", "CUDA_VISIBLE_DEVICES": ""}
    yield variables, folders
    for folder in folders.values():
        folder.chmod(0o755)


def _predict(closed, prefix):
    variables, folders = closed
    film = next((ROOT / "data" / "fixtures" / "rsna").rglob("*.dcm"))
    adapter = ROOT / "data" / "quickstart"
    command = [sys.executable, "-m", "medbridge.cli", "predict", "--adapter", str(adapter), "--json", str(film)]
    done = subprocess.run([*prefix, *command], env=variables, cwd=folders["work"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)[0]["probabilities"]
    assert len(found) == 8 and all(0 <= p <= 1 for p in found.values())
    assert not any(list(folder.iterdir()) for folder in folders.values())


def test_predict_without_a_writable_folder_or_a_network(closed):
    prefix = []
    if os.geteuid() == 0:  # root writes where nobody may; without its capabilities it is a user like any other
        if not shutil.which("setpriv"):
            pytest.skip("root without setpriv cannot give up its right to write everywhere")
        prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        assert subprocess.run([*prefix, "touch", str(closed[1]["work"] / "x")], capture_output=True).returncode
    _predict(closed, prefix)


def test_predict_on_a_read_only_system(closed, tmp_path):
    jail = [*JAIL, str(tmp_path)]  # its TMPDIR alone takes files, and forgets them
    if not shutil.which("unshare") or subprocess.run([*jail, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no namespaces")
    _predict(closed, jail)

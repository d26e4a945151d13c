"""`.ci/run` gets a browser where one can be had, and goes on to the tests where none can; stand-ins note what it calls."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _stand_in(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", f'echo "{path.name} $*" >> "$NOTES"', *lines, ""]))
    path.chmod(0o755)


@pytest.mark.parametrize("here, downloads, packages, steps", [
    (True, False, False, ["look"]),
    (False, True, False, ["look", "download", "look"]),
    (False, False, True, ["look", "download", "apt", "apt"]),
    (False, False, False, ["look", "download", "apt"]),
])
def test_a_browser_is_looked_for_then_downloaded_then_installed(tmp_path, here, downloads, packages, steps):
    course, commands, found = tmp_path / "course", tmp_path / "commands", tmp_path / "chromium"
    (course / ".ci").mkdir(parents=True)
    shutil.copy2(ROOT / ".ci" / "run", course / ".ci")
    if here:
        found.touch()
    _stand_in(commands / "make")
    _stand_in(commands / "apt-get", f'test "$1" = -qq || exit 1; {"touch " + str(found) if packages else "exit 100"}')
    _stand_in(course / ".venv" / "bin" / "python",
              f'case "$*" in *playwright*) {"touch " + str(found) if downloads else "exit 1"};; *) test -e {found};; esac')
    notes = tmp_path / "notes"
    done = subprocess.run([course / ".ci" / "run"], env={"PATH": f"{commands}:/usr/bin:/bin", "NOTES": str(notes)}, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    called = notes.read_text().splitlines()
    assert called[0] == "make install" and called[-1] == "make test"
    names = {"-c": "look", "-m": "download", "-qq": "apt"}
    assert [names[line.split()[1]] for line in called[1:-1]] == steps
    assert ("the browser tests are skipped" in done.stdout) == (not (here or downloads or packages))

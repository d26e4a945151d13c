"""Ready the course on Google Colab; the set-up cell of every notebook runs this in the notebook's own kernel.

Whatever Colab has and the course can use stays as it is, its torch with CUDA above all: a second torch is a download of
gigabytes, and a package that is replaced under a running kernel needs a restart. So the packages that pyproject.toml asks for
and that are missing or too old are installed, in the releases of constraints.txt, with every other package held where it is.
The course itself is not installed but put on the path: an editable install is seen by the next kernel only.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]


def installed() -> dict[str, str]:
    """Name -> version of every package that this kernel can import."""
    found: dict[str, str] = {}
    for package in distributions():
        name, version = package.metadata["Name"], package.version
        if name and version:
            found.setdefault(canonicalize_name(name), version)  # the first on the path is the one that is imported
    return found


def unmet(requirements: list[Requirement], here: dict[str, str]) -> list[Requirement]:
    """The requirements that no package here satisfies."""
    def met(r: Requirement) -> bool:
        try:
            return r.specifier.contains(Version(here[canonicalize_name(r.name)]), prereleases=True)
        except (KeyError, InvalidVersion):
            return False

    return [r for r in requirements if (r.marker is None or r.marker.evaluate()) and not met(r)]


def constraints(wanted: list[Requirement], here: dict[str, str]) -> list[str]:
    """Lines for pip: what is here stays, what is wanted comes in the release that the course was made with."""
    names = {canonicalize_name(r.name) for r in wanted}
    lines = []
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#") and canonicalize_name(Requirement(line).name) in names:
            lines.append(line)
    for name, version in here.items():
        if name not in names:
            try:
                lines.append(str(Requirement(f"{name}=={version}")))
            except InvalidRequirement:
                continue
    return lines


def install(wanted: list[Requirement], here: dict[str, str]) -> None:
    """pip, with those constraints.

    Raises:
        RuntimeError: pip could not; its last words are in the message.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(constraints(wanted, here)))
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", file.name]
        done = subprocess.run([*command, *map(str, wanted)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip could not install {', '.join(map(str, wanted))} beside the packages of this runtime:\n"
                           f"{done.stderr.strip()[-2000:]}")


def main() -> None:
    # Colab has Jupyter and its widgets; the notebooks need no extra
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    here = installed()
    wanted = unmet([Requirement(line) for line in lines], here)
    if wanted:
        modules = packages_distributions()
        names = {canonicalize_name(r.name) for r in wanted}
        loaded = sorted({d for m, owners in modules.items() if m in sys.modules for d in owners if canonicalize_name(d) in names})
        install(wanted, here)
        if loaded:
            print(f"{', '.join(loaded)} was too old and is loaded already: choose Runtime > Restart session, then go on")
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    # for further processes of this runtime: DataLoader workers, `python -m medbridge.cli`
    Path(sysconfig.get_path("purelib"), "medbridge-course.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    importlib.invalidate_caches()
    import medbridge

    print(f"medbridge {medbridge.__version__} from {ROOT}, torch {here.get('torch', 'newly installed')}; "
          f"installed: {', '.join(r.name for r in wanted) or 'nothing, all was here'}")


if __name__ == "__main__":
    main()

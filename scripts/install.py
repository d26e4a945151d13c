"""Install the course into the environment whose Python runs this: `make install`, or `make install TORCH=cpu`.

PyPI's PyTorch for Linux brings some three gigabytes of CUDA. Without an NVIDIA driver it is of no use: then the CPU build is
taken from PyTorch's own index, where that can be reached. Pip shows its own progress.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = "book,course,dev,hf,log"


def reachable(index: str) -> bool:
    """Whether an index answers within five seconds."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{index}/torch/", method="HEAD"), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def has_nvidia_driver() -> bool:
    """Whether this machine could use CUDA."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()


def choose_torch(torch: str, index: str) -> tuple[str, str]:
    """The index to take PyTorch from besides pip's own ('' for none), and why."""
    if index:
        return index, f"from {index}, as TORCH_INDEX says"
    if torch == "cpu":
        return CPU_INDEX, f"CPU build from {CPU_INDEX}, as TORCH=cpu says"
    if torch:
        return "", f"from pip's own index, as TORCH={torch} says"
    if sys.platform != "linux":
        return "", "from pip's own index"
    if has_nvidia_driver():
        return "", "CUDA build from pip's own index, since this machine has an NVIDIA driver; TORCH=cpu chooses otherwise"
    if not reachable(CPU_INDEX):
        return "", f"from pip's own index: no NVIDIA driver, but {CPU_INDEX} cannot be reached; TORCH_INDEX=URL names another"
    return CPU_INDEX, f"CPU build from {CPU_INDEX}, since this machine has no NVIDIA driver; TORCH=cuda chooses otherwise"


def pip_arguments(index: str) -> list[list[str]]:
    """What pip is called with, in order: PyTorch, then the course with everything else."""
    common = ["install", "--disable-pip-version-check", "--progress-bar", "on", "-c", str(ROOT / "constraints.txt")]
    # an extra index, for all else is taken from pip's own: 2.14.1+cpu there wins over 2.14.1
    torch = [*common, *(["--extra-index-url", index] if index else []), "torch", "torchvision"]
    return [torch, [*common, "-e", f"{ROOT}[{EXTRAS}]"]]


def main(argv: list[str] | None = None) -> int:
    """Install; returns pip's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="", choices=["", "cpu", "cuda", "default"])
    parser.add_argument("--torch-index", default="", metavar="URL")
    args = parser.parse_args(argv)
    began = time.monotonic()
    index, reason = choose_torch(args.torch, args.torch_index)
    titles = (f"PyTorch, {reason}", "MedBridge and some 150 packages: JupyterLab, transformers, what the tests need")
    for number, (title, arguments) in enumerate(zip(titles, pip_arguments(index), strict=True), start=1):
        print(f"[{number}/2] {title}", flush=True)
        if status := subprocess.run([sys.executable, "-m", "pip", *arguments]).returncode:
            print(f"pip stopped with status {status}: its last lines above say why; `make install` goes on from there",
                  file=sys.stderr)
            return status
    print(f"installed in {(time.monotonic() - began) / 60:.0f} min")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Do the notebooks reproduce their stored outputs on other machines? Run nbval with other thread counts and instruction sets.

    python scripts/nbval_matrix.py              # every notebook in every setting: several times as long as `make test`
    python scripts/nbval_matrix.py 03 09        # some of them

Settings stand in for other machines: one and two threads, and the kernels that torch, oneDNN, MKL and OpenBLAS choose on a CPU
without AVX-512 or without AVX2. Prints a table, and the cells that differ.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PLAIN = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
          "OPENBLAS_CORETYPE": "Nehalem", "MKL_CBWR": "COMPATIBLE"}
_AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
         "OPENBLAS_CORETYPE": "Haswell"}


def _threads(count: int) -> dict[str, str]:
    return {f"{name}_NUM_THREADS": str(count) for name in ("OMP", "MKL", "OPENBLAS")}


SETTINGS = {"1 thread": _threads(1), "2 threads": _threads(2), "AVX2, 2 threads": _threads(2) | _AVX2,
            "plain, 1 thread": _threads(1) | _PLAIN}


def run(path: Path, setting: dict[str, str]) -> tuple[bool, str, float]:
    """(whether the outputs agree, what pytest says of those that do not, seconds)."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "--no-header", "--color=no", "-p", "no:cacheprovider", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | setting, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr, time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="starts of file names, such as 03; default all")
    parser.add_argument("--setting", action="append", choices=list(SETTINGS), help="repeat for more; default all")
    args = parser.parse_args()
    found = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    paths = [p for p in found if not args.names or p.name.startswith(tuple(args.names))]
    failed = 0
    for path in paths:
        for name in args.setting or SETTINGS:
            agrees, said, seconds = run(path, SETTINGS[name])
            print(f"{path.stem:<32} {name:<18} {'agrees' if agrees else 'DIFFERS':<8} {seconds:5.0f} s", flush=True)
            if not agrees:
                failed += 1
                print("\n".join(re.findall(r"^(?:FAILED|ERROR) .*$", said, re.MULTILINE)) or said[-2000:], flush=True)
    print(f"{failed} of {len(paths) * len(args.setting or SETTINGS)} runs differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Do the notebooks reproduce their stored outputs on other machines? Run nbval with other thread counts and instruction sets.

    python scripts/nbval_matrix.py              # every notebook in every setting: several times as long as `make test`
    python scripts/nbval_matrix.py 03 09        # some of them, with their solutions

Settings stand in for other machines: one and two threads, and the kernels that NumPy, torch, oneDNN, MKL and OpenBLAS choose on a
CPU without AVX-512 or without AVX2. Each setting draws its films and computes its features itself, in a cache of its own under
``--cache``. Prints a table, and the cells that differ. A notebook that agreed is not run again while its code and its outputs are
what they were: this is kept in the same folder, so that an interrupted run goes on. After a change of the package give another
folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
_PLAIN = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
          "OPENBLAS_CORETYPE": "Nehalem", "MKL_CBWR": "COMPATIBLE",
          "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"}
_AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
         "OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"}


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


def content(path: Path) -> str:
    """A digest of what nbval runs and compares: code cells, their tags and outputs. Prose may change."""
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    held = [[c["source"], c["metadata"].get("tags"), c["outputs"]] for c in cells]
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="starts of file names, such as 03; default all")
    parser.add_argument("--setting", action="append", choices=list(SETTINGS), help="repeat for more; default all")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "nbval", help="default build/nbval; some gigabytes")
    args = parser.parse_args()
    found = [*sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), *sorted((NOTEBOOKS / "solutions").glob("[0-9]*.ipynb"))]
    paths = [p for p in found if not args.names or p.name.startswith(tuple(args.names))]
    failed = 0
    for name in args.setting or SETTINGS:
        cache = args.cache.resolve() / re.sub(r"\W+", "-", name)
        log = cache / "agreed.json"
        cache.mkdir(parents=True, exist_ok=True)
        held = json.loads(log.read_text(encoding="utf-8")) if log.exists() else {}
        for path in paths:
            book, now = path.relative_to(NOTEBOOKS).with_suffix("").as_posix(), content(path)
            if held.get(book) == now:
                print(f"{book:<42} {name:<16} agreed", flush=True)
                continue
            agrees, said, seconds = run(path, SETTINGS[name] | {"MEDBRIDGE_CACHE": str(cache)})
            print(f"{book:<42} {name:<16} {'agrees' if agrees else 'DIFFERS'} {seconds:6.0f} s", flush=True)
            if agrees:
                held[book] = now
                log.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            else:
                failed += 1
                (cache / f"{book.replace('/', '-')}.txt").write_text(said, encoding="utf-8")
                print("\n".join(re.findall(r"^(?:FAILED|ERROR) .*$", said, re.MULTILINE)) or said[-2000:], flush=True)
    print(f"{failed} of {len(paths) * len(args.setting or SETTINGS)} runs differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

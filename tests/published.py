"""Names and shapes of published checkpoints, expanded from published.yaml."""

import itertools
import re
from pathlib import Path

import torch
import yaml

PUBLISHED = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text())
META = torch.device("meta")


def expanded(pattern, sizes):
    """``a.{x,y}.{N}`` -> all names; an inner pair of braces first."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        return [pattern]
    values = sizes.get(match[1], match[1].split(","))
    values = range(values) if isinstance(values, int) else values
    return list(itertools.chain.from_iterable(
        expanded(f"{pattern[:match.start()]}{value}{pattern[match.end():]}", sizes) for value in values))


def tensors(entry, prefix=""):
    """Name -> tensor without numbers, of one entry of the file."""
    state, sizes = {}, {k: v for k, v in entry.items() if len(k) == 1}
    for part in entry["parts"]:
        *own, name = part.split()
        for line in PUBLISHED["parts"][name].splitlines():
            pattern, _, shape = line.partition("  #")[0].partition(": ")
            if pattern.strip() and not pattern.startswith("#"):
                shape = eval(f"({shape},)" if shape.strip('"') else "()", {}, sizes)  # the file's own arithmetic
                state |= {f"{prefix}{''.join(own)}{key}": torch.empty(shape, device=META) for key in expanded(pattern, sizes)}
    without = entry.get("without")
    return {key: value for key, value in state.items() if key != without}

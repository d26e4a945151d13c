"""The state of a training run on disk: written whole or not at all, read without unpickling code."""

import io
from pathlib import Path
from typing import Any

import torch

from medbridge.errors import AdapterError
from medbridge.support.files import write_atomic
from medbridge.support.processes import gather_each, is_main, ranks


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text) in the main process."""
    if is_main():
        torch.save(state, content := io.BytesIO())  # of a full disk torch itself says nothing that names it
        write_atomic(path, content.getvalue())


def load_checkpoint(path: Path, signature: str, device: torch.device) -> dict[str, Any] | None:
    """The state that was saved, ``None`` where there is none. AdapterError: the file is damaged, or belongs to another run."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises a dozen types for a damaged file
        raise AdapterError(f"{path}: damaged checkpoint ({error}); delete it to start again") from error
    if state["signature"] != signature:
        raise AdapterError(f"{path}: belongs to a run with other data or settings; choose another folder, or delete it")
    return state


def random_states() -> list[dict[str, torch.Tensor]]:
    """State of PyTorch's generators in every process; all of them must call it."""
    mine = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        mine["cuda"] = torch.cuda.get_rng_state()
    return gather_each(mine)


def restore_random_state(states: list[dict[str, torch.Tensor]]) -> None:
    """Set this process's generators, unless the run had another number of processes."""
    rank, world = ranks()
    if len(states) == world:
        torch.set_rng_state(states[rank]["cpu"].cpu())
        if "cuda" in states[rank] and torch.cuda.is_available():
            torch.cuda.set_rng_state(states[rank]["cuda"].cpu())

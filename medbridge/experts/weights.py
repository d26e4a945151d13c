"""Where weights are looked for, and what to say when they are not there.

``MEDBRIDGE_WEIGHTS`` names a folder that is searched first: hospitals have no internet. Weights are read as safetensors,
or with ``torch.load(weights_only=True)``; nothing is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medbridge.errors import ExpertError
from medbridge.experts.registry import ExpertAlias

__all__ = ["alias_files", "find_weights", "hub_folder", "load_state", "missing_checkpoint", "missing_weights", "weights_folder"]

_WRAPPERS = ("state_dict", "model", "teacher", "module")


def weights_folder() -> Path | None:
    """The folder that ``MEDBRIDGE_WEIGHTS`` names, or ``None``; raises ExpertError where it does not exist."""
    value = os.environ.get("MEDBRIDGE_WEIGHTS")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise ExpertError(f"MEDBRIDGE_WEIGHTS={value!r} is not a folder; set it to the folder that holds the weights")
    return folder


def find_weights(candidates: Sequence[str]) -> Path | None:
    """The first of ``candidates`` (file or folder names) that lies in the weights folder, or ``None``."""
    folder = weights_folder()
    if folder is None:
        return None
    return next((folder / name for name in candidates if (folder / name).exists()), None)


def alias_files(alias: str, own: str = "") -> list[str]:
    """Names under which the weights of a short name are looked for first: ``ALIAS.safetensors`` and the like, then ``own``."""
    return [f"{alias}{suffix}" for suffix in (".safetensors", ".pt", ".pth", ".bin", ".torch")] + ([own] if own else [])


def hub_folder(repository: str) -> str:
    """Name of the folder that mirrors a hub repository: ``ORG/REPO`` -> ``ORG--REPO``."""
    return repository.replace("/", "--")


def missing_weights(expert: str, candidates: Sequence[str], source: str, reason: object) -> ExpertError:
    """The error to raise when a hub cannot be reached: it names the file and the folder to put it in."""
    folder = os.environ.get("MEDBRIDGE_WEIGHTS") or "a folder of your choice, named by the variable MEDBRIDGE_WEIGHTS"
    names = " or ".join(candidates)
    return ExpertError(
        f"the weights of expert {expert!r} are not here and could not be downloaded from {source} ({reason}). "
        f"On a machine with a network fetch them (`medbridge experts fetch {expert}`), then put {names} into {folder}"
    )


def missing_checkpoint(name: str, alias: ExpertAlias) -> ExpertError:
    """The error to raise when a checkpoint that is looked for in the weights folder alone is not there."""
    folder = os.environ.get("MEDBRIDGE_WEIGHTS") or "a folder of your choice, named by the variable MEDBRIDGE_WEIGHTS"
    own = alias.file or f"{name}{Path(alias.hub).suffix}"
    source = f"Fetch it with `medbridge experts fetch {name}` from huggingface.co/{alias.hub}, or put" if alias.hub else "Put"
    return ExpertError(f"the weights of expert {name!r} are not here: {alias.note}. {source} {own}, or the same as "
                       f"{name}.safetensors, into {folder}")


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, safetensors or a weights-only checkpoint, as float32 tensors.

    Checkpoints of training runs keep it under ``state_dict``, ``model`` or ``teacher``; it is taken out.

    Raises:
        ExpertError: the file is corrupt, or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            while isinstance(state, dict) and (key := next((k for k in _WRAPPERS if isinstance(state.get(k), dict)), None)):
                state = state[key]
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise ExpertError(f"{path}: not a readable weights file ({error}); download it again") from error
    except Exception as error:  # torch raises pickle.UnpicklingError for anything but plain tensors
        raise ExpertError(f"{path}: refused, it holds more than tensors ({error}); convert it to safetensors") from error
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise ExpertError(f"{path}: holds no state dict; save one with safetensors.torch.save_file")
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}

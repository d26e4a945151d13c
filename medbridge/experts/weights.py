"""Where weights are looked for, how they are read, and what to say when they are not there.

``MEDBRIDGE_WEIGHTS`` names a folder that is searched first: hospitals have no internet. Weights are read as safetensors,
or with ``torch.load(weights_only=True)``; nothing is ever unpickled.
"""

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from medbridge.errors import ExpertError

SMALL = ("*.json", "*.txt", "*.model")  # configurations and vocabularies
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
    return next((folder / name for name in candidates if (folder / name).exists()), None) if folder else None


def weight_files(stem: str) -> list[str]:
    """Names under which one file of weights is looked for in the weights folder."""
    return [f"{stem}{suffix}" for suffix in (".safetensors", ".pt", ".pth", ".bin", ".torch")]


def hub_folder(repository: str) -> str:
    """Name of the folder that mirrors a hub repository: ``ORG/REPO`` -> ``ORG--REPO``."""
    return repository.replace("/", "--")


def mirrors(repository: str) -> list[str]:
    """Names under which that folder is looked for: ``REPO`` alone will do."""
    return [hub_folder(repository), repository.split("/")[-1]]


@contextmanager
def explained(what: str, then: str = "") -> Iterator[None]:
    """An error of a library, of whatever type, becomes ``ExpertError("WHAT (ERROR)THEN")``."""
    logger = logging.getLogger()  # open_clip logs at the root; what it says is for its developers
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except ExpertError:
        raise
    except Exception as error:
        raise ExpertError(f"{what} ({error}){then}") from error
    finally:
        logger.setLevel(level)


def weights_place() -> str:
    """The weights folder in the words of a message."""
    return os.environ.get("MEDBRIDGE_WEIGHTS") or "a folder of your choice, named by the variable MEDBRIDGE_WEIGHTS"


def asking(expert: str, candidates: Sequence[str], source: str) -> Any:
    """:func:`explained` around a request to a hub: the error names the file and the folder to put it in."""
    return explained(
        f"the weights of expert {expert!r} are not here and could not be downloaded from {source}",
        f". On a machine with a network fetch them (`medbridge experts fetch {expert}`), then put {' or '.join(candidates)} into "
        f"{weights_place()}")


def hub_files(expert: str, repository: str, *patterns: str) -> Path:
    """A hub repository's folder: its mirror in the weights folder, else the hub client's cache with the files of ``patterns``."""
    if folder := find_weights(mirrors(repository)):
        return folder
    from huggingface_hub import snapshot_download

    wanted = f"the folder {hub_folder(repository)}/ (the repository's json, txt, model and safetensors files)"
    with asking(expert, [wanted], f"the hub ({repository})"):
        return Path(snapshot_download(repository, allow_patterns=patterns))


def transformers_for(what: str) -> Any:
    """The optional library transformers; where it is missing, the ExpertError says how ``what`` gets it."""
    with explained(f"{what} needs transformers: pip install 'medbridge[hf]'"):
        import transformers
    return transformers


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict as float32 tensors, out of a training run's checkpoint too; ExpertError where it holds anything else."""
    with explained(f"{path}: not a readable weights file", "; download it again"):
        try:
            state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ExpertError(f"{path}: refused, it holds more than tensors ({error}); convert it to safetensors") from error
    while isinstance(state, dict) and (key := next((k for k in _WRAPPERS if isinstance(state.get(k), dict)), None)):
        state = state[key]
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise ExpertError(f"{path}: holds no state dict; save one with safetensors.torch.save_file")
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}

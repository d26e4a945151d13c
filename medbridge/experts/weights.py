"""Where weights are looked for, how they are read, and what to say when they are not there.

``MEDBRIDGE_WEIGHTS`` names a folder that is searched first: hospitals have no internet. Weights are read as safetensors,
or with ``torch.load(weights_only=True)``; nothing is ever unpickled.
"""

import json
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from medbridge.errors import ExpertError

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
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


class Repository:
    """A checkpoint in transformers' layout, here or on the hub, of which only what is needed is fetched and read.

    Weights are read from safetensors shards, tensor by tensor: a vision tower of 1.7 GB is taken out of a checkpoint of 16 GB
    without reading the rest; pickles are refused. ``name`` is the hub id ``ORG/REPO``; without a ``folder`` that mirrors it
    ``ORG--REPO`` or ``REPO`` in ``MEDBRIDGE_WEIGHTS`` is taken; else the hub is asked. ``expert`` is named in messages.
    """

    def __init__(self, expert: str, name: str, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise ExpertError(f"{folder}: expert {expert!r} needs the folder that mirrors {name}, not a file")
        self.expert, self.name = expert, name
        self.folder = folder or find_weights([hub_folder(name), name.split("/")[-1]])
        self.source = str(self.folder or name)

    def ask(self, read: Callable, *args: str, **options: Any) -> Any:
        """``read(*args)`` of transformers or the hub; what it cannot find becomes the error that names it."""
        wanted = f"the folder {hub_folder(self.name)}/ (config.json, preprocessor_config.json, tokenizer, safetensors)"
        with asking(self.expert, [wanted], f"the hub ({self.name})"):
            return read(*args, **options)

    def path(self, file: str, needed: bool = True) -> Path | None:
        """A file of the checkpoint, fetched where it is not here; ``None`` for one that it lacks and that is not needed."""
        if self.folder is None:
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError

            try:
                return Path(self.ask(hf_hub_download, self.name, file))
            except ExpertError as error:
                if needed or not isinstance(error.__cause__, EntryNotFoundError):
                    raise
                return None
        path = self.folder / file
        if needed and not path.is_file():
            raise ExpertError(f"{path}: missing; put this file of {self.name} there")
        return path if path.is_file() else None

    def preprocessing(self) -> dict[str, Any]:
        """``image_mean``, ``image_std`` and ``resample`` of the image processor; ExpertError where no file states them."""
        for file in ("preprocessor_config.json", "processor_config.json"):
            if path := self.path(file, needed=False):
                config = json.loads(path.read_text(encoding="utf-8"))
                config = config.get("image_processor", config)
                if "image_mean" in config and "image_std" in config:
                    return config
        raise ExpertError(
            f"{self.source}: no preprocessor_config.json with image_mean and image_std; put the one of {self.name} there")

    def load_tower(self, tower: nn.Module) -> None:
        """Read the vision tower's tensors, and no others, into ``tower``; ExpertError names one that is missing or differs."""
        wanted, index = list(tower.state_dict()), self.path(INDEX, needed=False)
        if index is not None:
            shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        else:
            with self._open(WHOLE) as file:
                shard_of = dict.fromkeys(file.keys(), WHOLE)
        prefix = tower_prefix(wanted, list(shard_of))
        if absent := [key for key in wanted if prefix + key not in shard_of]:
            raise ExpertError(f"{self.source}: the checkpoint lacks {absent[0]!r} of the vision tower, and {len(absent) - 1} "
                              "more; is it another model?")
        state: dict[str, Tensor] = {}
        for shard in sorted({shard_of[prefix + key] for key in wanted}):
            with self._open(shard) as file:
                state |= {key: file.get_tensor(prefix + key).float() for key in wanted if shard_of[prefix + key] == shard}
        with explained(f"{self.source}: does not fit its config.json"):
            tower.load_state_dict(state, strict=True)

    def _open(self, file: str) -> Any:
        path = self.path(file)
        with explained(f"{path}: not a readable weights file", "; download it again"):
            return safe_open(path, framework="pt")


def tower_prefix(wanted: Sequence[str], held: Sequence[str]) -> str:
    """What stands before the tower's own tensor names in a checkpoint, such as ``model.vision_tower.``."""
    known, first = set(held), wanted[0]
    prefixes = sorted({key.removesuffix(first) for key in held if key == first or key.endswith(f".{first}")})
    return max(prefixes, key=lambda p: sum(p + key in known for key in wanted), default="")

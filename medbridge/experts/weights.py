"""Where weights are looked for, how they are read, and what to say when they are not there.

``MEDBRIDGE_WEIGHTS`` names a folder that is searched first: hospitals have no internet. Weights are read as safetensors,
or with ``torch.load(weights_only=True)``; nothing is ever unpickled.
"""

import hashlib
import json
import logging
import os
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import open_clip
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


_LAYOUTS = {  # what is in the name of a key -> whose layout that is, and which expert's name reads it
    "vision_model.": "transformers; put the repository's folder there, and name the expert hf:ORG/REPO",
    "visual.trunk.": "an open_clip model with a timm tower; name the expert open_clip:MODEL/PRETRAINED",
    "visual.": "open_clip or OpenAI's CLIP; name the expert open_clip:MODEL/PRETRAINED",
    "encoder.layer.": "transformers; put the repository's folder there, and name the expert hf:ORG/REPO+TEXT",
    "denseblock1.": "a DenseNet of torchvision or TorchXRayVision; name the expert timm:densenet121+TEXT",
    "blocks.0.": "timm or Meta; name the expert timm:MODEL+TEXT",
    "layer1.0.": "a ResNet of timm or torchvision; name the expert timm:MODEL+TEXT",
}


@contextmanager
def explained(what: str, then: str = "", keys: Iterable[str] = ()) -> Iterator[None]:
    """An error of a library, of whatever type, becomes ``ExpertError("WHAT (ERROR)THEN")``, shortened to its beginning.

    Where weights do not fit, the message says whose layout the ``keys`` of the file have.
    """
    logger = logging.getLogger()  # open_clip logs at the root; what it says is for its developers
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except ExpertError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        found = " ".join(keys) or text.partition("Unexpected key")[2]
        layout = next((f"; the file has the keys of {layout}" for part, layout in _LAYOUTS.items() if part in found), "")
        raise ExpertError(f"{what} ({text[:300]}{' ...' * (len(text) > 300)}{layout}){then}") from error
    finally:
        logger.setLevel(level)


def check_weights(path: Path) -> None:
    """ExpertError for a file that only has the name of weights: a Git LFS pointer, a web page, a part of a safetensors file."""
    with open(path, "rb") as file:
        head, size = file.read(512), path.stat().st_size
        length = int.from_bytes(head[:8], "little")
        with suppress(ValueError, AttributeError, KeyError, TypeError, MemoryError):
            file.seek(8)
            tensors = json.loads(file.read(min(length, size))) if path.suffix == ".safetensors" else {}
            length += max((entry["data_offsets"][1] for entry in tensors.values() if "data_offsets" in entry), default=0)
    if head.startswith(b"version https://git-lfs"):
        fault = "a Git LFS pointer, which only names the weights; get them with `git lfs pull`, or `medbridge experts fetch`"
    elif head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        fault = "a web page, not weights: the site wanted a log-in or a click; download the file itself"
    elif path.suffix == ".safetensors" and size < 8 + length:
        fault = f"not a readable weights file, cut short or no safetensors: {size:,} bytes; download it again"
    else:
        return
    raise ExpertError(f"{path}: {fault}")


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


def _openai_archive(path: Path) -> dict[str, Tensor]:
    """The tensors of one of OpenAI's archives, by its checksum: an archive is a program, and loading another's could run it."""
    urls = [open_clip.get_pretrained_url(model, tag) for model, tag in open_clip.list_pretrained() if tag == "openai"]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not any(digest in url for url in urls):
        raise pickle.UnpicklingError("a TorchScript program, and none of OpenAI's CLIP archives")
    return torch.jit.load(path, map_location="cpu").state_dict()


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict as float32 tensors, out of a training run's checkpoint too; ExpertError where it holds anything else."""
    check_weights(path)
    with explained(f"{path}: not a readable weights file", "; download it again"):
        try:
            if path.suffix == ".safetensors":
                state = load_file(path)
            elif zipfile.is_zipfile(path) and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()):
                state = _openai_archive(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ExpertError(f"{path}: refused, it holds more than tensors ({error}); convert it to safetensors") from error
    while isinstance(state, dict) and (key := next((k for k in _WRAPPERS if isinstance(state.get(k), dict)), None)):
        state = state[key]
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise ExpertError(f"{path}: holds no state dict; save one with safetensors.torch.save_file")
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}

"""Fetch an expert's files into the weights folder, with a progress bar and a checksum.

Files are downloaded by ``huggingface_hub``; what was interrupted goes on where it stopped, by the next call. Each file is checked
against the hub's own checksum and only then gets its name, so that a file that stands in the folder is whole. For an air-gapped
machine copy the folder over.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import open_clip
import timm

from medbridge.errors import ExpertError
from medbridge.experts.clip_load import BIOMEDBERT, open_clip_files
from medbridge.experts.hf_files import INDEX, WHOLE, tower_prefix
from medbridge.experts.hf_vision import tower_keys
from medbridge.experts.registry import ALIASES, split_size
from medbridge.experts.text import SENTENCE_ENCODERS
from medbridge.experts.timm_vision import timm_files
from medbridge.experts.weights import hub_folder, weights_folder

__all__ = ["Fetched", "fetch_expert"]

SMALL = ("*.json", "*.txt", "*.model")  # configurations and vocabularies
CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Fetched:
    """A file in the weights folder: its path, its checksum as the hub states it, and whether it was there before."""

    path: Path
    checksum: str
    was_here: bool


def fetch_expert(name: str, folder: str | Path | None = None) -> list[Fetched]:
    """Download what ``create_expert(name)`` needs.

    Args:
        name: as for :func:`medbridge.create_expert`.
        folder: weights folder; default ``MEDBRIDGE_WEIGHTS``. It is made where it is missing.

    Returns:
        One entry a file; none for an expert that is shipped.

    Raises:
        ExpertError: no folder is named; the expert's weights cannot be fetched (the message says by hand from where); the hub
            cannot be reached (the message says which file to put where); or a checksum differs.
    """
    root = Path(folder).expanduser() if folder else weights_folder()
    if root is None:
        raise ExpertError("no folder to fetch into: set MEDBRIDGE_WEIGHTS to one, or give --to FOLDER")
    root.mkdir(parents=True, exist_ok=True)
    plain, _ = split_size(name)
    alias = ALIASES.get(plain)
    if alias and not alias.fetchable:
        try:
            also = "; ".join(str(f.path) for f in _text_files(root, alias.target)) or "nothing"
        except ExpertError as error:
            also = f"nothing, as {error}"
        raise ExpertError(f"{plain} cannot be fetched by its name: {alias.note}. Put its checkpoint into {root} as "
                          f"{alias.file or plain + '.pth'} (of what it needs besides, here is: {also})")
    target, _ = split_size(alias.target if alias else plain)
    found = list(_own_file(root, plain, alias.hub, target) if alias and alias.hub else _files(root, target))
    shutil.rmtree(root / ".fetch", ignore_errors=True)
    return found


def _own_file(root: Path, alias: str, where: str, target: str) -> Iterator[Fetched]:
    """A checkpoint that is one file on the hub, under the alias's name, and what the expert needs besides."""
    repository, file = os.path.split(where)
    yield from _Hub(root, repository).one_of((file,), root / f"{alias}{Path(file).suffix}")
    yield from _text_files(root, target)


def _files(root: Path, target: str) -> Iterator[Fetched]:
    kind, _, rest = target.partition(":")
    model, plus, text = rest.partition("+")
    if kind == "tiny":
        return
    if kind == "open_clip" and rest.startswith("hf-hub:"):
        repository = rest.removeprefix("hf-hub:")
        hub = _Hub(root, repository)
        config = yield from hub.get("open_clip_config.json")
        yield from hub.all(SMALL)
        yield from hub.one_of(CLIP_WEIGHTS)
        yield from _text_tower(root, json.loads(config.read_text(encoding="utf-8"))["model_cfg"]["text_cfg"], own=True)
    elif kind == "open_clip":
        model_name, _, tag = rest.partition("/")
        stated = open_clip.get_pretrained_cfg(model_name, tag)
        where = stated.get("hf_hub", "")
        final = root / open_clip_files(model_name, tag)[0]
        if not where:
            known = f"download {stated['url']} and put it there as {final.with_suffix('.pt')}" if stated else "unknown name"
            raise ExpertError(f"{target} is not on the Hugging Face hub: {known}")
        repository, file = os.path.split(where)
        yield from _Hub(root, repository).one_of((file,) if file else CLIP_WEIGHTS, final)
        yield from _text_tower(root, open_clip.get_model_config(model_name)["text_cfg"], own=False)
    elif kind == "timm" and plus:
        stated = None
        with suppress(RuntimeError):  # no such tag
            stated = timm.get_pretrained_cfg(model) if timm.is_model(model.split(".")[0]) else None
        if stated is None or not stated.hf_hub_id:
            raise ExpertError(f"timm names no hub for {model!r}; write the tag of its weights too, as in resnet50.a1_in1k")
        yield from _Hub(root, stated.hf_hub_id).one_of((WHOLE,), root / timm_files(model)[0])
        yield from _text(root, text)
    elif kind == "hf":
        hub = _Hub(root, model)
        yield from hub.all(SMALL)
        yield from hub.shards() if not plus else hub.shards(tower_keys(root / hub_folder(model)))
        if plus:
            yield from _text(root, text)
    else:
        raise ExpertError(f"{target!r} is not a name that create_expert knows; see `medbridge experts list`")


def _text_files(root: Path, target: str) -> Iterator[Fetched]:
    """What an expert whose own checkpoint comes by hand needs besides."""
    if target.startswith("unimed:"):
        yield from _Hub(root, BIOMEDBERT).all(SMALL)
    elif "+" in target:
        yield from _text(root, target.partition("+")[2])


def _text(root: Path, text: str) -> Iterator[Fetched]:
    if text not in SENTENCE_ENCODERS:
        yield from _files(root, split_size(ALIASES[text].target if text in ALIASES else text)[0])
        return
    hub = _Hub(root, SENTENCE_ENCODERS[text])
    yield from hub.all(SMALL)
    yield from hub.shards()


def _text_tower(root: Path, text: dict[str, Any], own: bool) -> Iterator[Fetched]:
    """Vocabulary and configuration of a text tower that open_clip takes from a repository of its own."""
    wanted = {text.get("hf_model_name")} | (set() if own else {text.get("hf_tokenizer_name")})
    for repository in sorted(name for name in wanted if name):
        yield from _Hub(root, repository).all(SMALL)


class _Hub:
    """One repository of the hub, mirrored into ``ROOT/ORG--REPO/``."""

    def __init__(self, root: Path, repository: str) -> None:
        from huggingface_hub import HfApi

        self.root, self.repository, self.folder = root, repository, root / hub_folder(repository)
        self.endpoint = os.environ.get("HF_ENDPOINT") or None
        self.api = HfApi(endpoint=self.endpoint)
        self._names: list[str] | None = None

    def names(self) -> list[str]:
        """Files of the repository's top folder."""
        if self._names is None:
            with self._reached("its list of files"):
                self._names = [f for f in self.api.list_repo_files(self.repository) if "/" not in f]
        return self._names

    def all(self, patterns: Sequence[str]) -> Iterator[Fetched]:
        for file in self.names():
            if any(fnmatch.fnmatch(file, pattern) for pattern in patterns):
                yield from self.get(file)

    def one_of(self, candidates: Sequence[str], final: Path | None = None) -> Iterator[Fetched]:
        if final is not None and final.is_file():
            yield Fetched(final, "", True)
            return
        for file in candidates:
            target = final.with_suffix(Path(file).suffix) if final else self.folder / file
            if target.is_file() or self.stated(file, target) is not None:
                yield from self.get(file, target)
                return
        raise ExpertError(f"{self.repository} holds none of {', '.join(candidates)}")

    def shards(self, keys: Sequence[str] | None = None) -> Iterator[Fetched]:
        """The safetensors that hold ``keys`` of a vision tower, or all of them."""
        if INDEX in self.names():
            where = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            prefix = "" if keys is None else tower_prefix(list(keys), list(where))
            files = sorted({file for key, file in where.items() if keys is None or key.removeprefix(prefix) in set(keys)})
        elif WHOLE in self.names():
            files = [WHOLE]
        else:
            raise ExpertError(f"{self.repository} holds no safetensors; MedBridge does not read pickles")
        for file in files:
            yield from self.get(file)

    def stated(self, file: str, final: Path) -> Any:
        """What the hub states of a file (checksum, size, where it lies); ``None`` for one that the repository lacks."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        with self._reached(file, final):
            try:
                return get_hf_file_metadata(hf_hub_url(self.repository, file, endpoint=self.endpoint), endpoint=self.endpoint)
            except EntryNotFoundError:
                return None

    def get(self, file: str, final: Path | None = None) -> Iterator[Fetched]:
        """Download one file, compare its checksum, give it its name; yields one entry, returns its path."""
        final = final or self.folder / file
        if final.is_file():
            yield Fetched(final, "", True)
            return final
        card = self.stated(file, final)
        if card is None:
            raise ExpertError(f"{self.repository} holds no {file}")
        stated = str(card.etag)
        # an interrupted download goes on here, as long as the hub's file is the same
        got = self.root / ".fetch" / hub_folder(self.repository) / f"{file}.{stated}"
        got.parent.mkdir(parents=True, exist_ok=True)
        with self._reached(file, final):
            _download(card, got, file)
        found = _checksum(got, stated)
        if found != stated:
            got.unlink()
            raise ExpertError(f"{self.repository}/{file}: the download's checksum is {found}, the hub's {stated}; fetch it again")
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(got, final)
        yield Fetched(final, stated, False)
        return final

    def _reached(self, file: str, final: Path | None = None) -> Any:
        return _Reached(self, file, final)


class _Reached:
    """What the hub's client raises becomes the error that says which file to put where."""

    def __init__(self, hub: _Hub, file: str, final: Path | None) -> None:
        self.hub, self.file, self.final = hub, file, final

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> bool:
        if not isinstance(error, Exception):  # nothing, or the user's Ctrl-C
            return False
        base = f"https://huggingface.co/{self.hub.repository}"
        by_hand = (f"download {base}/resolve/main/{self.file} and put it there as {self.final}" if self.final
                   else f"download the files of {base} and put them into {self.hub.folder}")
        raise ExpertError(
            f"{self.hub.repository}: {self.file} could not be fetched ({error}); with a browser, {by_hand}") from error


def _download(card: Any, path: Path, name: str) -> None:
    """The rest of a file, behind what ``path`` holds of it already.

    The hub client's own download keeps nothing of a file when its process ends (as of its version 2), so a shard of some
    gigabytes would start anew; its request with a range, its retries and its bar are used as they are.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    headers = build_hf_headers()
    if urlparse(card.location).netloc != urlparse(endpoint).netloc:
        headers.pop("authorization", None)  # a token is for the hub, not for the store behind it
    with path.open("ab") as file:
        http_get(card.location, file, resume_size=file.tell(), headers=headers, expected_size=card.size, displayed_filename=name)


def _checksum(path: Path, like: str) -> str:
    """sha256 of a large file, git's own sha1 of a small one: whichever ``like`` is."""
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

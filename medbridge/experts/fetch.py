"""Fetch an expert's files into the weights folder: for an air-gapped machine, copy it over.

What was interrupted goes on where it stopped. A file gets its name when it agrees with the hub's own checksum.
"""

import json
import os
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import open_clip
import timm

from medbridge.errors import ExpertError
from medbridge.experts.clip import BIOMEDBERT
from medbridge.experts.hf_vision import INDEX, WHOLE, empty_tower, tensor_files
from medbridge.experts.registry import SENTENCE_ENCODERS, ExpertName
from medbridge.experts.weights import SMALL, explained, hub_folder, weights_folder
from medbridge.support.download import download

CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


def fetch_expert(name: str, folder: str | Path | None = None) -> dict[Path, str]:
    """Download what ``create_expert(name)`` needs into ``folder``, by default ``MEDBRIDGE_WEIGHTS``; a shipped one needs nothing.

    Returns:
        The files, with their checksums as the hub states them; empty for a file that was there before.

    Raises:
        ExpertError: no folder, a checksum that differs, or what cannot be fetched (the message says which file to put where).
    """
    root = Path(folder).expanduser() if folder else weights_folder()
    if root is None:
        raise ExpertError("no folder to fetch into: set MEDBRIDGE_WEIGHTS to one, or give --to FOLDER")
    root.mkdir(parents=True, exist_ok=True)
    fetch, expert = _Fetch(root), ExpertName.of(name)
    alias = expert.alias
    if alias and not alias.fetchable:
        if not any((root / file).is_file() for file in expert.own_files):
            raise ExpertError(f"{expert.plain} cannot be fetched by its name: {alias.note}. Put its checkpoint into {root} as "
                              f"{expert.wanted}; this command then fetches the rest")
    elif alias and alias.hub:
        fetch.one_of(*os.path.split(alias.hub), stem=expert.plain)
    else:
        fetch.expert(expert)
    fetch.text(expert)
    return fetch.files


class _Fetch:
    """Downloads into one folder: a repository goes into ``ROOT/ORG--REPO/``, a single checkpoint into ``ROOT``."""

    def __init__(self, root: Path) -> None:
        self.root, self.endpoint = root, os.environ.get("HF_ENDPOINT") or None
        self.files: dict[Path, str] = {}

    def expert(self, expert: ExpertName) -> None:
        kind, model, repository = expert.kind, expert.model, expert.repository
        if kind == "hf":
            self.checkpoint(model, tower_alone=expert.text is not None)
        elif repository:
            self.one_of(repository, "open_clip_config.json")
            self.small(repository)
            self.one_of(repository, *CLIP_WEIGHTS)
            config = json.loads((self.root / hub_folder(repository) / "open_clip_config.json").read_text(encoding="utf-8"))
            self.small(config["model_cfg"]["text_cfg"].get("hf_model_name"))
        elif kind == "open_clip":
            model_name, _, tag = model.partition("/")
            stated, stem = open_clip.get_pretrained_cfg(model_name, tag), f"{model_name}-{tag}"
            if not stated.get("hf_hub"):
                raise ExpertError(f"{expert.target} is not on the Hugging Face hub: download {stated['url']} and put it there as "
                                  f"{self.root / stem}.pt")
            repository, file = os.path.split(stated["hf_hub"])
            self.one_of(repository, *([file] if file else CLIP_WEIGHTS), stem=stem)
            # vocabulary and configuration of a text tower that open_clip takes from a repository of its own
            text = open_clip.get_model_config(model_name)["text_cfg"]
            for own in sorted({text.get("hf_model_name"), text.get("hf_tokenizer_name")} - {None}):
                self.small(own)
        elif kind == "timm":
            stated = None
            with suppress(RuntimeError):  # no such tag
                stated = timm.get_pretrained_cfg(model)
            if stated is None or not stated.hf_hub_id:
                raise ExpertError(f"timm names no hub for {model!r}; write the tag of its weights too, as in resnet50.a1_in1k")
            self.one_of(stated.hf_hub_id, WHOLE, stem=model)

    def text(self, expert: ExpertName) -> None:
        """The text encoder that stands beside a checkpoint, or the configuration of the one in it."""
        if expert.kind == "unimed":
            self.small(BIOMEDBERT)
        elif expert.text in SENTENCE_ENCODERS:
            self.checkpoint(SENTENCE_ENCODERS[expert.text])
        elif expert.text is not None:
            self.expert(ExpertName.of(expert.text))

    def small(self, repository: str | None) -> list[str]:
        """Fetch configurations and vocabularies; returns the names of all files in the repository's top folder."""
        from huggingface_hub import HfApi

        if repository is None:
            return []
        with self._reaching(repository, "its list of files"):
            names = [f for f in HfApi(endpoint=self.endpoint).list_repo_files(repository) if "/" not in f]
        for file in (name for name in names for pattern in SMALL if fnmatch(name, pattern)):
            self.get(repository, file)
        return names

    def checkpoint(self, repository: str, tower_alone: bool = False) -> None:
        """A checkpoint in transformers' layout; of its safetensors only those that hold the vision tower, or all."""
        names, folder = self.small(repository), self.root / hub_folder(repository)
        shards = {WHOLE} & set(names)
        if INDEX in names:
            held = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            shards = {file for _, file in tensor_files(empty_tower(folder), held).values()} if tower_alone else set(held.values())
        if not shards:
            raise ExpertError(f"{repository} holds no safetensors; MedBridge does not read pickles")
        for file in sorted(shards):
            self.get(repository, file)

    def one_of(self, repository: str, *candidates: str, stem: str = "") -> None:
        """The first of ``candidates`` that the repository holds; under the name ``stem``, where one is given."""
        if stem and (self.root / f"{stem}.safetensors").is_file():
            self.files[self.root / f"{stem}.safetensors"] = ""
        elif not any(self.get(repository, file, f"{stem}{Path(file).suffix}" if stem else "") for file in candidates):
            raise ExpertError(f"{repository} holds none of {', '.join(candidates)}")

    def get(self, repository: str, file: str, name: str = "") -> bool:
        """Download one file, compare its checksum, give it its name; ``False`` where the repository lacks it."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.utils import build_hf_headers

        final = self.root / (name or f"{hub_folder(repository)}/{file}")
        if final.is_file():
            self.files.setdefault(final, "")
            return True
        with self._reaching(repository, file, final):
            try:
                card = get_hf_file_metadata(hf_hub_url(repository, file, endpoint=self.endpoint), endpoint=self.endpoint)
            except EntryNotFoundError:
                return False
        checksum, headers = str(card.etag), build_hf_headers()  # sha256 of a large file, git's own sha1 of a small one
        if urlparse(card.location).netloc != urlparse(self.endpoint or "https://huggingface.co").netloc:
            headers.pop("authorization", None)  # a token is for the hub, not for the store behind it
        try:
            download(card.location, final, checksum, card.size, headers, f"https://huggingface.co/{repository}/resolve/main/{file}")
        except OSError as error:
            raise ExpertError(f"{repository}: {file} could not be fetched: {error}") from error
        self.files[final] = checksum
        return True

    def _reaching(self, repository: str, file: str, final: Path | None = None) -> Any:
        """What the hub's client raises becomes the error that says which file to put where."""
        base = f"https://huggingface.co/{repository}"
        by_hand = (f"download {base}/resolve/main/{file} and put it there as {final}" if final
                   else f"download the files of {base} and put them into {self.root / hub_folder(repository)}")
        return explained(f"{repository}: {file} could not be fetched", f"; with a browser, {by_hand}")

"""Text features on disk: a thousand prompts go through a frozen text tower once.

The key is the content: the weights of the text tower and the texts themselves. A file that is there is therefore right, whoever
wrote it; a damaged one is computed again.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from medbridge.experts import Expert
from medbridge.features.cache import cache_folder
from medbridge.support.files import write_atomic
from medbridge.support.threads import on_cores


class TextCache:
    """Text embeddings of one expert, kept under ``folder``.

    Args:
        expert: whose text tower.
        folder: default ``cache_folder() / 'text'``.
    """

    def __init__(self, expert: Expert, folder: str | Path | None = None) -> None:
        self.expert, self.folder = expert, Path(folder) if folder is not None else cache_folder() / "text"

    @cached_property
    def _fingerprint(self) -> str:
        return self.expert.text_fingerprint()

    def path(self, texts: Sequence[str]) -> Path:
        """The file of these texts, in this order: a batch's padding is part of its numbers."""
        digest = hashlib.sha256("\0".join([self._fingerprint, *texts]).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:40]}.safetensors"

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ``(n, text_dim)`` float32 on the expert's device, L2-normalised, as ``expert.encode_text`` gives them."""
        path = self.path(texts)
        with suppress(OSError, SafetensorError, KeyError):
            kept = load_file(path)["embeddings"]
            if kept.shape == (len(texts), self.expert.text_dim):
                return kept.to(self.expert.mean.device)
        with on_cores(1):
            embeddings = self.expert.encode_text(texts).clone()
        with suppress(OSError):  # a read-only home costs time, not the result
            write_atomic(path, save({"embeddings": embeddings.cpu().contiguous()}))
        return embeddings

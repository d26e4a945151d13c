"""Text encoders that lend their space to vision-only experts (paper: VLM text prompts; [ours]: borrowed).

A sentence encoder by its short name (``minilm``), or the text tower of an open_clip expert by that expert's name. A CLIP or
SigLIP of transformers keeps its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.experts.base import Expert
from medbridge.experts.weights import asking, find_weights, hub_folder, transformers_for

SENTENCE_ENCODERS = {
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
    "pubmedbert": "NeuML/pubmedbert-base-embeddings",
    "biolord": "FremyCompany/BioLORD-2023",
}
"""Short name -> hub id; what is there as a pickle alone is not read: convert it with ``safetensors.torch.save_file``."""


class TextEncoder(nn.Module):
    """A frozen text tower ``encoder`` and its ``tokenizer``; ``text_dim`` is the width of its space."""

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ``(n, text_dim)`` float32, L2-normalised."""
        with torch.inference_mode():
            return F.normalize(self._pooled(list(texts), next(self.encoder.parameters()).device).float(), dim=-1)

    def _pooled(self, texts: list[str], device: torch.device) -> Tensor:
        raise NotImplementedError


class SentenceEncoder(TextEncoder):
    """The encoder of a key of :data:`SENTENCE_ENCODERS`; ExpertError without transformers, or where weights are not reachable."""

    def __init__(self, short: str) -> None:
        super().__init__()
        transformers, hub = transformers_for(f"text encoder {short!r}"), SENTENCE_ENCODERS[short]
        stem = hub.split("/")[-1]
        source = find_weights([stem, hub_folder(hub)]) or hub
        transformers.utils.logging.disable_progress_bar()  # a bar for a second's work would stand between our own
        with asking(short, [f"the folder {stem}/"], f"the hub ({hub})"):
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(source)
            # use_safetensors: a pickle is never opened
            model = transformers.AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
        self.encoder = model.eval().requires_grad_(False)
        self.text_dim = int(model.config.hidden_size)

    def _pooled(self, texts: list[str], device: torch.device) -> Tensor:
        batch = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(device)
        hidden = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden)
        return (hidden * mask).sum(1) / mask.sum(1)


class OpenClipText(TextEncoder):
    """The text tower of an open_clip expert, whose vision tower is dropped."""

    def __init__(self, expert: Expert) -> None:
        super().__init__()
        self.tokenizer, self.encoder, self.text_dim = expert.tokenizer, expert.model, expert.text_dim
        self.encoder.visual = nn.Identity()

    def _pooled(self, texts: list[str], device: torch.device) -> Tensor:
        return self.encoder.encode_text(self.tokenizer(texts).to(device))


class PairedText(TextEncoder):
    """The text tower of ``model``, a transformers CLIP or SigLIP, projection included."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.encoder, self.tokenizer = model.text_model, tokenizer
        self.projection = getattr(model, "text_projection", None) or nn.Identity()
        # SigLIP was trained with padded texts, and pools the last place
        self.masked = model.config.model_type != "siglip"
        self.options = {"padding": True if self.masked else "max_length", "truncation": True, "return_tensors": "pt",
                        "max_length": int(model.config.text_config.max_position_embeddings)}
        self.text_dim = self(["a film"]).shape[1]

    def _pooled(self, texts: list[str], device: torch.device) -> Tensor:
        batch = self.tokenizer(texts, **self.options).to(device)
        mask = {"attention_mask": batch["attention_mask"]} if self.masked else {}
        return self.projection(self.encoder(input_ids=batch["input_ids"], **mask).pooler_output)

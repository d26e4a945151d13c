"""CLIP's text tower on learned context vectors, what CoOp, CoCoOp and MaPLe share: [SOS] [V_1] ... [V_M] [label's tokens] [EOS],
learned vectors where the embeddings of words would stand. The tower is a frozen copy, so that the expert stays as it is."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from medbridge.errors import ExpertError
from medbridge.experts import Expert, OpenClipExpert


def has_clip_text(expert: Expert) -> bool:
    """Whether the expert has the text transformer of open_clip's ``CLIP`` (CLIP models and the tiny experts)."""
    return (isinstance(expert, OpenClipExpert) and type(expert.model) is CLIP and expert.model.text_pool_type in ("argmax", "eos")
            and isinstance(expert.model.text_projection, nn.Parameter))


def label_texts(labels: Sequence[str]) -> list[str]:
    """Labels as words, ended by a full stop as in the authors' code: lower case, blanks for underscores."""
    return [f"{label.replace('_', ' ').lower()}." for label in labels]


class PromptedText(nn.Module):
    """``context`` (M) learned vectors of ``width`` numbers -> text embeddings of n names, in ``layers`` transformer blocks.

    ExpertError: the context and a name do not fit the tower's context length.
    """

    def __init__(self, expert: Expert, names: Sequence[str], context: int) -> None:
        super().__init__()
        model = expert.model
        self.transformer, self.norm = copy.deepcopy(model.transformer), copy.deepcopy(model.ln_final)
        self.context, self.width, self.layers = context, model.token_embedding.embedding_dim, len(self.transformer.resblocks)
        self.pool, self.end = model.text_pool_type, getattr(model, "text_eos_id", None)
        tokens = expert.tokenizer(list(names)).to(model.token_embedding.weight.device)
        length = tokens.shape[1]
        ends = (tokens == self.end).int().argmax(1) if self.pool == "eos" else tokens.argmax(1)
        if too_long := [name for name, end in zip(names, ends.tolist(), strict=True) if end + context >= length]:
            raise ExpertError(f"{expert.name}: {context} context vectors and the label {too_long[0]!r} need more than the "
                              f"{length} tokens of its text tower; use fewer context vectors, or a shorter label")
        # the ids under the learned vectors are never read; the position of [EOS] is
        spaced = torch.cat([tokens[:, :1], tokens[:, :1].expand(-1, context), tokens[:, 1 : length - context]], dim=1)
        buffers = {"tokens": spaced, "words": model.token_embedding(spaced), "position": model.positional_embedding,
                   "attention": model.attn_mask, "projection": model.text_projection}
        for name, value in buffers.items():
            self.register_buffer(name, None if value is None else value.detach().clone(), persistent=False)
        self.requires_grad_(False)

    def forward(self, context: Tensor, deeper: Sequence[Tensor] = ()) -> Tensor:
        """Context vectors -> L2-normalised embeddings ``(n, text_dim)``, or ``(B, n, text_dim)``.

        Vectors are ``(M, width)`` for all names, ``(n, M, width)``, or ``(B, n, M, width)``; ``deeper`` ones of MaPLe, each
        ``(M, width)``, replace them before blocks 2, 3 ...
        """
        batch, names = context.shape[:-3], len(self.words)
        context = context.expand(*batch, names, self.context, self.width).reshape(-1, self.context, self.width)
        times = len(context) // names
        words, tokens = self.words.repeat(times, 1, 1), self.tokens.repeat(times, 1)
        x = torch.cat([words[:, :1], context, words[:, 1 + self.context :]], dim=1) + self.position
        for i, block in enumerate(self.transformer.resblocks):
            if 0 < i <= len(deeper):
                x = torch.cat([x[:, :1], deeper[i - 1].expand(len(x), -1, -1), x[:, 1 + self.context :]], dim=1)
            x = block(x, attn_mask=self.attention)
        x = text_global_pool(self.norm(x), tokens, self.pool, eos_token_id=self.end) @ self.projection
        return F.normalize(x, dim=-1).unflatten(0, (*batch, names))

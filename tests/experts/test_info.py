"""Cards of experts: what is stated before any weights are here."""


import open_clip
import pytest

from medbridge.errors import ExpertError
from medbridge.experts import ALIASES, SENTENCE_ENCODERS, create_expert
from medbridge.experts.info import expert_info
from medbridge.experts.registry import ExpertName


def test_every_alias_stands_for_a_name_that_the_libraries_know():
    for name, alias in ALIASES.items():
        parts = ExpertName.of(name)
        if parts.kind == "open_clip" and not parts.model.startswith("hf-hub:"):
            model, _, tag = parts.model.partition("/")
            assert open_clip.get_pretrained_cfg(model, tag), name
        assert parts.text is None or parts.text in SENTENCE_ENCODERS, name
        assert alias.licence and alias.note, name
        assert alias.fetchable or "by hand" in alias.note


def test_cards_state_what_open_clip_and_timm_state_without_weights(monkeypatch):
    monkeypatch.delenv("MEDBRIDGE_WEIGHTS", raising=False)
    clip = expert_info("clip-vitb32")
    assert (clip.size, clip.depth, clip.width, clip.here, clip.licence) == (224, 12, 768, None, "MIT")
    assert clip.wanted == "ViT-B-32-openai.safetensors" and clip.parameters == 87_849_216
    dino = expert_info("dinov2-vits14+minilm")
    assert (dino.size, dino.depth, dino.width) == (224, 12, 384)
    assert expert_info("dinov2-vits14+minilm@448").size == 448
    tiny, expert = expert_info("tiny-vit"), create_expert("tiny-vit")
    assert (tiny.size, tiny.depth, tiny.width) == (expert.size, expert.depth, expert.widths[-1])
    assert tiny.parameters == sum(t.numel() for t in expert.vision_state().values()) and tiny.bytes > 2_000_000
    stated = expert_info("medsiglip")  # what its card states, until its files are here
    assert (stated.size, stated.depth, stated.width, stated.parameters) == (448, 27, 1152, None)
    assert stated.wanted == "google--medsiglip-448"
    assert expert_info("pubmedclip").wanted == "PubMedCLIP_ViT32.pth" and expert_info("pubmedclip").depth == 12
    assert expert_info("hf:org/unheard-of+tiny-vit").depth is None
    with pytest.raises(ExpertError, match="no pretrained tag 'nobody'"):
        expert_info("open_clip:ViT-B-32/nobody")
    with pytest.raises(ExpertError, match="did you mean 'tiny-vit'"):
        expert_info("tiny-vitt")

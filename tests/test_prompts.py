import pytest
import torch

from medbridge.cli import main
from medbridge.data.labels import FINDINGS
from medbridge.experts import create_expert
from medbridge.features.text import TextCache
from medbridge.prompts import ClassPrompts, class_prompts, encode_prompts


def test_every_description_gives_both_sides_without_repeats():
    for label in FINDINGS:
        prompts = class_prompts(label)
        for side in (prompts.positive, prompts.negative):
            assert len(side) == len(set(side)) and all("{}" not in text for text in side)
        assert not [text for text in prompts.negative if text.startswith(("no a ", "no an "))]


def test_synonym_labels_share_their_description_and_unknown_labels_get_the_templates():
    assert set(FINDINGS["Effusion"].present) <= set(class_prompts("Pleural Effusion").positive)
    assert "a chest x-ray showing scoliosis" in class_prompts("Scoliosis").positive


def test_embeddings_are_normalised_means(vit):
    prompts = {"b": ClassPrompts(("one", "two"), ("three",))}
    positive, negative = encode_prompts(vit, ["a", "b"], prompts)
    assert positive.shape == negative.shape == (2, vit.text_dim)
    torch.testing.assert_close(positive.norm(dim=1), torch.ones(2))
    mean = vit.encode_text(["one", "two"]).mean(0)
    torch.testing.assert_close(positive[1], mean / mean.norm())


def test_bad_prompts():
    with pytest.raises(ValueError, match="negative prompts"):
        ClassPrompts(("x",), ())
    with pytest.raises(ValueError, match="positive prompts"):
        ClassPrompts("x", ("y",))


def test_prompts_for_a_label_that_is_not_there(vit):
    with pytest.raises(ValueError, match="prompts name c"):
        encode_prompts(vit, ["a"], {"c": ClassPrompts(("x",), ("y",))})


def test_every_finding_of_the_vocabulary_has_a_description():
    assert all(finding.present and finding.absent for finding in FINDINGS.values())
    assert class_prompts("Pleural_Thickening").positive[-1] == "a thick bright rim"
    assert "a normal chest x-ray" in class_prompts("No Finding").positive
    assert not any("no finding" in text for text in class_prompts("No Finding").negative)


def test_text_features_are_cached_by_their_content(vit, tmp_path, monkeypatch):
    asked = []
    real = vit.encode_text
    monkeypatch.setattr(vit, "encode_text", lambda texts: asked.append(tuple(texts)) or real(texts))
    cache = TextCache(vit, tmp_path)
    first = cache.encode(["a", "b"])
    assert torch.equal(TextCache(vit, tmp_path).encode(["a", "b"]), first) and asked == [("a", "b")]
    cache.encode(["b", "a"])
    assert asked[1:] == [("b", "a")]
    weight = vit.model.token_embedding.weight
    own = weight.detach().clone()
    weight.data += 0.1
    try:
        other = TextCache(vit, tmp_path).encode(["a", "b"])  # other weights: another file
    finally:
        weight.data.copy_(own)  # to the last bit: other tests share the expert
    assert len(asked) == 3 and not torch.equal(other, first)
    cache.path(["a", "b"]).write_bytes(b"short")
    torch.testing.assert_close(cache.encode(["a", "b"]), first)
    assert len(asked) == 4 and not list(tmp_path.rglob("*.part*"))


def test_a_cache_that_cannot_be_written_costs_time_alone(vit, tmp_path):
    (tmp_path / "file").write_text("")
    assert TextCache(vit, tmp_path / "file").encode(["a"]).shape == (1, vit.text_dim)


def test_encode_prompts_uses_the_cache(vit, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBRIDGE_CACHE", str(tmp_path))
    first = encode_prompts(vit, ["Mass"])
    monkeypatch.setattr(vit, "encode_text", lambda texts: pytest.fail("encoded again"))
    assert all(torch.equal(a, b) for a, b in zip(first, encode_prompts(vit, ["Mass"]), strict=True))


def test_the_command_prints_prompts_and_the_similarity_matrix(capsys):
    assert main(["prompts", "Mass", "Edema", "--expert", "tiny-vit"]) == 0
    out = capsys.readouterr().out
    assert "  + a chest x-ray showing mass" in out and "  - no edema" in out
    head, mass, edema = out.splitlines()[-3:]
    assert head.split() == ["Mass", "Edema", "own", "negative"]
    assert mass.split()[1] == edema.split()[2] == "1.000" and mass.split()[2] == edema.split()[1]
    positive, negative = encode_prompts(create_expert("tiny-vit"), ["Mass", "Edema"])
    assert float(mass.split()[3]) == pytest.approx(float(positive[0] @ negative[0]), abs=1e-3)
    assert main(["prompts", "Mass", "--expert", "nobody"]) == 2 and "unknown expert" in capsys.readouterr().err

import pytest
import torch

from medbridge.prompts import DESCRIPTIONS, ClassPrompts, class_prompts, encode_prompts


def test_every_description_gives_both_sides_without_repeats():
    for label in DESCRIPTIONS:
        prompts = class_prompts(label)
        for side in (prompts.positive, prompts.negative):
            assert len(side) == len(set(side)) and all("{}" not in text for text in side)


def test_synonym_labels_share_their_description_and_unknown_labels_get_the_templates():
    assert set(DESCRIPTIONS["effusion"].present) <= set(class_prompts("Pleural Effusion").positive)
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

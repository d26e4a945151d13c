"""Each method on frozen features: its published equation on a case worked out by hand, its parameters, and that it learns."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medbridge.baselines import create_method
from medbridge.baselines.base import prompt_sides, temperature
from medbridge.baselines.clip_adapter import FeatureAdapter
from medbridge.baselines.cocoop import ConditionalContext
from medbridge.baselines.coop import LearnedContext
from medbridge.baselines.knn import neighbour_scores
from medbridge.baselines.text_tower import PromptedText
from medbridge.baselines.tip_adapter import KeyValueCache, cache_values
from medbridge.errors import ExpertError
from medbridge.metrics.evaluate import auc
from medbridge.train import TrainConfig


@pytest.mark.parametrize("name", ["k-NN", "CoOp", "CoCoOp", "CLIP-Adapter", "Tip-Adapter", "Tip-Adapter-F"])
def test_it_learns_the_squares(name, films, tiny, squares):
    y, mask = films["test"].benchmark.targets()
    config = TrainConfig(epochs=15, batch_size=8)
    baseline = create_method(name, [tiny], squares.labels, config=config, tries=2, progress=False)
    assert auc(y, baseline.fit(films["train"], films["val"]).predict_proba(films["test"]), mask).mean() > 0.75
    nothing = create_method("zero-shot", [tiny], squares.labels).predict_proba(films["test"])
    assert auc(y, nothing, mask).mean() < 0.75, "the problem is solved without learning: the test above shows nothing"


def test_neighbours_by_hand():
    """Two keys at cosines 0.8 and 0.6 with labels 1 and 0 count; a third, known for the other label only, does not."""
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    y, mask = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), torch.tensor([[True, False], [True, False], [False, True]])
    x = torch.tensor([[0.8, 0.6]])
    scores = neighbour_scores(x, keys, y, mask, k=2, temperature=0.5)
    want = math.exp(0.8 / 0.5) / (math.exp(0.8 / 0.5) + math.exp(0.6 / 0.5))
    torch.testing.assert_close(scores, torch.tensor([[want, 1.0]]))
    assert neighbour_scores(x, keys, y, mask, k=1)[0, 0] == 1.0
    assert neighbour_scores(x, keys, y, torch.zeros_like(mask), k=1).tolist() == [[0.5, 0.5]]


def test_clip_adapter_by_hand():
    """f = (1, 0): ReLU(f W1) = 3, A = ReLU(-6, 3) = (0, 3), f* = 0.2 A + 0.8 f = (0.8, 0.6), already of length 1."""
    adapter = FeatureAdapter(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), scale=10.0, alpha=0.2, reduction=2)
    with torch.no_grad():
        adapter.down.weight.copy_(torch.tensor([[3.0, -5.0]]))
        adapter.up.weight.copy_(torch.tensor([[-2.0], [1.0]]))
        torch.testing.assert_close(adapter(torch.tensor([[1.0, 0.0]])), torch.tensor([[10 * (0.6 - 0.8)]]))
        # the bottleneck is shut for f = (0, 1): ReLU(-5) = 0, and the direction of f stays
        torch.testing.assert_close(adapter(torch.tensor([[0.0, 1.0]])), torch.tensor([[10.0]]))
        # no biases: the length of f does not matter
        torch.testing.assert_close(adapter(torch.tensor([[7.0, 0.0]])), adapter(torch.tensor([[1.0, 0.0]])))
    assert sum(p.numel() for p in adapter.parameters()) == 2 * 2 * 1


def test_tip_adapter_by_hand():
    """Keys at cosines 1 and 0, one present and one absent; a third unknown: score = alpha (1 - e^-beta) + s f (t+ - t-)."""
    keys, y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), torch.tensor([[1.0], [0.0], [1.0]])
    values = cache_values(y, torch.tensor([[True], [True], [False]]))
    assert values.tolist() == [[1.0], [-1.0], [0.0]]
    cache = KeyValueCache(keys, values, torch.tensor([[0.25, 0.5]]), scale=4.0, alpha=2.0, beta=3.0, train_keys=True)
    torch.testing.assert_close(cache(torch.tensor([[1.0, 0.0]])), torch.tensor([[2 * (1 - math.exp(-3)) + 1.0]]))
    # two present and four absent, all at the same place, cancel: a rare label is not told absent for being rare
    many = cache_values(torch.tensor([[1.0]] * 2 + [[0.0]] * 4), torch.ones(6, 1, dtype=torch.bool))
    assert many.sum() == 0 and many[0] == 0.5 and many[5] == -0.25


def test_tip_adapter_f_starts_as_tip_adapter_and_trains_the_keys_alone(films, tiny, squares):
    fixed = create_method("Tip-Adapter", [tiny], squares.labels, tries=1).fit(films["train"], films["val"])
    free = create_method("Tip-Adapter-F", [tiny], squares.labels, tries=1, progress=False,
                           config=TrainConfig(epochs=1)).fit(films["train"], films["val"])
    assert fixed.trainable_parameters == 0 and free.trainable_parameters == 32 * tiny.text_dim + 2
    start = free.build(0, films["train"], alpha=100.0, beta=5.5)
    x = torch.eye(tiny.text_dim)[:4]
    torch.testing.assert_close(start(x), fixed.modules[0](x))
    assert not torch.equal(free.modules[0].module.keys, start.keys)


@pytest.mark.parametrize("which", ["vit", "tiny"])
def test_the_prompted_text_tower_is_the_text_tower(which, request):
    """The embeddings of words as context: [V] = "a photo of a" gives what the tokenizer and the whole model give."""
    expert = request.getfixturevalue(which)
    names, words = ["square", "wide bar"], "a photo of a"
    ids = expert.tokenizer([words])[0]
    count = int(ids.argmax()) - 1
    text = PromptedText(expert, names, count)
    context = expert.model.token_embedding(ids[1 : 1 + count])
    want = expert.encode_text([f"{words} {name}" for name in names])
    torch.testing.assert_close(text(context), want)
    # one context a name, and one an image and name, are the same sum
    each = context.expand(2, -1, -1)
    torch.testing.assert_close(text(each), want)
    torch.testing.assert_close(text(torch.stack([each, each.flip(1)]))[0], want)
    assert (text(torch.stack([each, each.flip(1)]))[1] - want).abs().max() > 1e-4


def test_prompts_that_do_not_fit_the_text_tower(vit):
    with pytest.raises(ExpertError, match=r"14 context vectors and the label 'wide bar' need more than the 16 tokens"):
        PromptedText(vit, ["wide bar"], 14)
    PromptedText(vit, ["wide bar"], 12)


def test_coop_by_hand(vit):
    """s cos(f, t+) - s cos(f, t-), t of the learned contexts; 2 M x width numbers are trained, the tower is not."""
    module = LearnedContext(vit, ["Wide_Bar", "square"], scale=7.0, context=3)
    text = PromptedText(vit, ["wide bar.", "square."], 3)
    f = F.normalize(torch.randn(5, 24), dim=1)
    want = torch.stack([7 * F.cosine_similarity(f, text(module.positive)[c][None]) -
                        7 * F.cosine_similarity(f, text(module.negative)[c][None]) for c in range(2)], dim=1)
    torch.testing.assert_close(module(f), want)
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == 2 * 3 * 32
    module(f).sum().backward()
    assert module.positive.grad.abs().min(dim=1).values.max() > 0 and vit.model.token_embedding.weight.grad is None


def test_cocoop_by_hand(vit):
    """Each image adds h(f) = W2 ReLU(W1 f + b1) + b2 to every context vector of both sides."""
    module = ConditionalContext(vit, ["bright", "wide"], scale=7.0, context=2, dim=24)
    f = F.normalize(torch.randn(3, 24), dim=1)
    first, second = module.meta[0], module.meta[2]
    for i in range(3):
        shift = second.weight @ torch.relu(first.weight @ f[i] + first.bias) + second.bias
        sides = [module.text(side + shift) for side in (module.positive, module.negative)]
        torch.testing.assert_close(module(f)[i], 7 * (sides[0] - sides[1]) @ f[i])
    hidden = 24 // 16
    count = 2 * 2 * 32 + hidden * (24 + 1) + 32 * (hidden + 1)
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == count


def test_the_temperature_is_the_experts_own(vit, tiny):
    assert temperature(vit) == pytest.approx(1 / 0.07, rel=1e-5)
    assert temperature(tiny) == pytest.approx(float(tiny.model.logit_scale.exp()))


def test_an_untrained_clip_adapter_without_its_share_is_zero_shot(films, tiny, squares):
    adapter = FeatureAdapter(*prompt_sides(tiny, squares.labels, None), 100.0, alpha=0.0)
    embed = torch.from_numpy(films["test"].pooled("embed", 0))
    p = create_method("zero-shot", [tiny], squares.labels).predict_proba(films["test"])
    np.testing.assert_allclose(adapter(F.normalize(embed, dim=1)).sigmoid().detach().numpy(), p, rtol=0.02, atol=1e-4)

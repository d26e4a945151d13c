"""Each method that changes the tower: its equation on a case worked out by hand, its parameters, and that it learns."""

import copy
import math
import re

import pytest
import timm
import torch
import torch.nn.functional as F

from medbridge.baselines import create_method
from medbridge.baselines.base import WithBias, prompt_sides, temperature
from medbridge.baselines.densenet import DenseScores
from medbridge.baselines.lora import LinearAttention, add_lora
from medbridge.baselines.maple import CoupledPrompts
from medbridge.baselines.mvfa import AdaptedTower, ResidualAdapter, spread_levels
from medbridge.baselines.text_tower import PromptedText
from medbridge.baselines.towers import FilmScores, PromptHead, Tower, attach_prompts, film_mean, is_plain_vit
from medbridge.baselines.vpt import BorderedTower, PromptedTower
from medbridge.errors import ExpertError
from medbridge.experts import Expert, TimmExpert
from medbridge.metrics.evaluate import auc
from medbridge.train import TrainConfig


class _Sentences(torch.nn.Module):
    """A text space without a transformer: the sum of the letters' fixed random vectors."""

    text_dim = 12

    def forward(self, texts):
        table = torch.randn(128, 12, generator=torch.Generator().manual_seed(0))
        return F.normalize(torch.stack([table[[ord(c) % 128 for c in text]].sum(0) for text in texts]), dim=1)


@pytest.fixture(scope="module")
def dino():
    """A vision-only timm ViT with random weights: 32 px, 2 blocks, width 32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2,
                                  num_classes=0)
    return TimmExpert("small-dino", trunk, _Sentences(), 32)


def trained(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def with_prompts(expert, views, prompts):
    """The expert's own blocks: prompts i replace their predecessors before block i + 1, the last ones go on and are dropped."""
    visual, last = expert.model.visual, 1
    x = visual._embeds(expert.preprocess(views))
    for i, block in enumerate(visual.transformer.resblocks):
        if i < len(prompts):
            x = torch.cat([x[:, :1], prompts[i].expand(len(x), -1, -1), x[:, last:]], dim=1)
            last = 1 + len(prompts[i])
        x = block(x)
    return visual._pool(torch.cat([x[:, :1], x[:, last:]], dim=1))[0] @ visual.proj


@pytest.mark.parametrize("name, epochs, options", [
    ("VPT", 6, {}), ("MaPLe", 6, {}), ("LoRA", 6, {}), ("MVFA-style adapters", 6, {}), ("fine-tuning", 6, {"tries": 2}),
    ("DenseNet-121", 4, {"size": 32})])
def test_it_learns_the_squares(name, epochs, options, films, tiny, squares):
    y, mask = films["test"].benchmark.targets()
    options = {"config": TrainConfig(epochs=epochs, batch_size=8), "tries": 1, "progress": False} | options
    baseline = create_method(name, [tiny], squares.labels, **options).fit(films["train"], films["val"])
    assert auc(y, baseline.predict_proba(films["test"]), mask).mean() > 0.75


def test_film_mean_by_hand():
    z, real = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[True, True], [True, False]])
    assert film_mean(z, real).tolist() == [[2.0], [5.0]]


def test_vpt_deep_by_hand(vit):
    """[x, _, E] = L_i([x, P_i, E]) with the model's own blocks, layer by layer; T p width numbers and the head are trained."""
    module, views = PromptedTower(Tower(vit), count=2, patch=8), torch.rand(3, 32, 32)
    torch.testing.assert_close(module(views), with_prompts(vit, views, module.prompts))
    assert trained(module) == 3 * 2 * 32
    assert module.prompts.abs().max() <= math.sqrt(6 / (3 * 64 + 32))


def test_prompts_of_the_first_blocks_alone_go_on_through_the_others(vit):
    tower, prompts, views = Tower(vit), torch.randn(2, 32), torch.rand(2, 32, 32)
    attach_prompts(tower, lambda: [prompts])
    torch.testing.assert_close(tower(views), with_prompts(vit, views, [prompts]))


def test_vpt_border_by_hand(resnet):
    """The view shrinks to R - 2 pad in the middle; the border is learned: 12 pad (R - pad) numbers."""
    module, seen = BorderedTower(Tower(resnet), pad=4), []
    module.tower.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module(torch.full((2, 64, 64), 0.5))
    picture = seen[0] * module.tower.std + module.tower.mean
    assert picture.shape == (2, 3, 64, 64) and (picture[:, :, 4:60, 4:60] - 0.5).abs().max() < 1e-5
    torch.testing.assert_close(picture[1][~module.inside], module.border)
    assert trained(module) == 12 * 4 * (64 - 4) == int((~module.inside).sum())


def test_maple_by_hand(vit):
    """Both towers block by block: P_i in the text's, F_i(P_i) in the vision tower's, for J = 2 of 3 vision blocks."""
    deep = vit.model.transformer.layers
    module = CoupledPrompts(vit, ["Bright", "wide"], count=2, depth=2)
    assert len(module.prompts) == min(2, deep) == 1  # the text tower has one block: J is cut to it
    views = torch.rand(3, 32, 32)
    first = vit.model.visual.ln_pre(module.couple[0](module.prompts[0]))  # they pass the norm that the patches pass
    f = F.normalize(with_prompts(vit, views, [first]), dim=1)
    text = PromptedText(vit, ["bright.", "wide.", "no bright.", "no wide."], 2)(module.prompts[0])
    want = temperature(vit) * f @ (text[:2] - text[2:]).T
    torch.testing.assert_close(module(views[:, None], torch.ones(3, 1, dtype=torch.bool)), want)
    assert trained(module) == 2 * 32 + 32 * 32 + 32


def test_maple_deep_text_prompts_by_hand(tiny):
    """The second block reads P_2 where P_1 stood; the words and [EOS] go on."""
    text, model = PromptedText(tiny, ["square"], 2), tiny.model
    width = model.token_embedding.embedding_dim
    first, second = torch.randn(2, width), torch.randn(2, width)
    tokens = tiny.tokenizer(["square"])
    x = torch.cat([model.token_embedding(tokens[:, :1]), first[None], model.token_embedding(tokens[:, 1:-2])], dim=1)
    blocks = model.transformer.resblocks
    x = blocks[0](x + model.positional_embedding, attn_mask=model.attn_mask)
    x = blocks[1](torch.cat([x[:, :1], second[None], x[:, 3:]], dim=1), attn_mask=model.attn_mask)
    end = int(tokens[0].argmax()) + 2
    want = F.normalize(model.ln_final(x)[:, end] @ model.text_projection, dim=-1)
    torch.testing.assert_close(text(first, [second]), want)
    assert len(blocks) == 2


def updates(layer):
    """A and B of a layer that peft adapted; B is no longer zero."""
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(B)
    return A, B


def with_lora(expert, alpha):
    """A tower with updates of rank 2, which change nothing at the start, where B is zero; and views."""
    tower, views = Tower(expert), torch.rand(2, expert.size, expert.size)
    before = tower(views)
    add_lora(tower, rank=2, alpha=alpha)
    torch.testing.assert_close(tower(views), before)
    return tower, views, before


def test_lora_in_a_timm_tower_by_hand(dino):
    """h = W x + (alpha / r) B A x in qkv."""
    tower, views, before = with_lora(dino, alpha=6.0)
    layer = tower.net.blocks[0].attn.qkv
    A, B = updates(layer)
    x, base = torch.randn(1, 5, 32), dino.trunk.blocks[0].attn.qkv
    torch.testing.assert_close(layer(x), base(x) + 6 / 2 * x @ A.T @ B.T)
    assert (tower(views) - before).abs().max() > 1e-3
    assert trained(tower) == 2 * (2 * (32 + 96) + 2 * (32 + 32))  # blocks x (qkv and output), each r (in + out)


def test_lora_in_an_open_clip_tower_by_hand(vit):
    """Queries, keys and values get (alpha / r) B A, as does the output: once each, with and without a gradient."""
    tower, views, _ = with_lora(vit, alpha=4.0)
    attention = tower.net.transformer.resblocks[1].attn
    (A, B), (A_out, B_out) = updates(attention.qkv), updates(attention.proj)
    x, plain = torch.randn(1, 5, 32), copy.deepcopy(vit.model.visual.transformer.resblocks[1].attn)
    with torch.no_grad():
        plain.in_proj_weight += 4 / 2 * B @ A
        plain.out_proj.weight += 4 / 2 * B_out @ A_out
        torch.testing.assert_close(attention(x, x, x, need_weights=False)[0], plain(x, x, x)[0])
    torch.testing.assert_close(attention(x, x, x, need_weights=False)[0], plain(x, x, x)[0])
    assert trained(tower) == 3 * (2 * (32 + 96) + 2 * (32 + 32))
    tower(views).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in (A, B, A_out, B_out))


def test_lora_in_a_resnet_adapts_its_convolutions(resnet):
    tower, _, _ = with_lora(resnet, alpha=6.0)
    changed = {name.split(".lora_")[0] for name, p in tower.net.named_parameters() if p.requires_grad}
    assert changed == {f"layer{i}.0.conv{j}" for i in (1, 2, 3, 4) for j in (1, 2, 3)}
    layer, old = tower.net.layer2[0].conv2, resnet.model.visual.layer2[0].conv2
    A, B = updates(layer)
    x = torch.randn(1, old.in_channels, 6, 6)
    with torch.no_grad():
        kernel = old.weight + 6 / 2 * (B.flatten(1) @ A.flatten(1)).reshape(old.weight.shape)
        torch.testing.assert_close(layer(x), F.conv2d(x, kernel, padding=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", ["vit", "resnet", "dino"])
def test_lora_trains_its_updates_and_the_head_alone(which, request):
    """A low-rank update of a weight (out, ...) has r (out + product of the rest) numbers; the expert itself stays untouched."""
    expert = request.getfixturevalue(which)
    state = {name: value.clone() for name, value in expert.vision_state().items()}
    baseline = create_method("LoRA", [expert], ["bright", "wide"], rank=3)
    module = baseline.build(0, None)
    names = {name for name, p in module.named_parameters() if p.requires_grad}
    assert names and all("lora_" in name or name == "head.weight" for name in names)
    weights = [p for name, p in Tower(expert).net.named_parameters() if re.search(
        r"attn\.(in_proj_weight|out_proj\.weight|qkv\.weight|proj\.weight)|layer\d\.\d\.conv\d\.weight", name)]
    assert len(weights) == {"vit": 6, "resnet": 12, "dino": 4}[which]
    assert trained(module.tower) == sum(3 * (p.shape[0] + p[0].numel()) for p in weights)
    assert trained(module.head) == 2 * module.tower.dim
    views, real = torch.rand(2, 1, expert.size, expert.size), torch.ones(2, 1, dtype=torch.bool)
    module.head.weight.data.normal_()
    for norm in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.weight.data.fill_(1.0)  # open_clip starts the last of each block at zero, where no gradient passes
    frozen = {name: p.clone() for name, p in module.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0)
    start = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    for _ in range(2):  # A moves once B is no longer zero
        optimizer.zero_grad()
        module(views, real).square().sum().backward()
        optimizer.step()
    now = dict(module.named_parameters())
    assert all(torch.equal(now[name], p) for name, p in frozen.items())
    assert all(not torch.equal(now[name], p) for name, p in start.items())
    assert all(torch.equal(value, state[name]) for name, value in expert.vision_state().items())


def test_attention_as_linear_layers_is_the_same():
    torch.manual_seed(0)
    packed = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    torch.nn.init.normal_(packed.in_proj_bias)
    linear, x = LinearAttention(packed), torch.randn(5, 5, 32)
    for mask in (None, torch.full((5, 5), -math.inf).triu(1)):
        want, got = packed(x, x, x, need_weights=False, attn_mask=mask)[0], linear(x, x, x, attn_mask=mask)[0]
        assert (want - got).abs().max() < 1e-6
    assert trained(linear) == trained(packed)
    with pytest.raises(ValueError, match="self-attention"):
        linear(x, x.clone(), x)


def test_a_tower_of_linear_attentions_equals_the_original(vit):
    tower, views = Tower(vit), torch.rand(4, 32, 32)
    with torch.no_grad():
        before = tower(views)
        for block in tower.blocks:
            block.attn = LinearAttention(block.attn)
        assert (tower(views) - before).abs().max() < 1e-6


def test_attention_that_is_not_plain_is_refused():
    with pytest.raises(ExpertError, match="plain self-attention"):
        LinearAttention(torch.nn.MultiheadAttention(32, 4, kdim=16))


def test_a_tower_without_a_layer_for_lora(resnet, monkeypatch):
    tower = Tower(resnet)
    for i in (1, 2, 3, 4):
        setattr(tower.net, f"layer{i}", torch.nn.Identity())
    with pytest.raises(ExpertError, match="LoRA finds no layer to adapt here"):
        add_lora(tower, 2, 2.0)


def test_a_residual_adapter_by_hand():
    """x = (1, 0): H = LeakyReLU(2, -3) = (2, -0.03), A = LeakyReLU(H W2); F* = 0.1 A + 0.9 x."""
    adapter = ResidualAdapter(2, 2, gamma=0.1)
    with torch.no_grad():
        adapter.down.weight.copy_(torch.tensor([[2.0, 0.0], [-3.0, 0.0]]))
        adapter.up.weight.copy_(torch.tensor([[0.0, 100.0], [5.0, 0.0]]))
    hidden, mixed = adapter(torch.tensor([[[1.0, 0.0]]]))
    torch.testing.assert_close(hidden, torch.tensor([[[2.0, -0.03]]]))
    torch.testing.assert_close(mixed, torch.tensor([[[0.1 * -0.03 + 0.9, 0.1 * 10.0]]]))
    assert spread_levels(24, 4) == [6, 12, 18, 24] and spread_levels(3, 4) == [1, 2, 3] and spread_levels(12, 4) == [3, 6, 9, 12]


def test_mvfa_by_hand(vit):
    """Two levels, block by block: the mixed tokens go on, the bottlenecks of the patches meet the prompts."""
    positive, negative = prompt_sides(vit, ["bright", "wide"], None)
    module = AdaptedTower(vit, positive, negative, 9.0, levels=2, gamma=0.1)
    assert module.levels == [2, 3]
    visual, views, scores = vit.model.visual, torch.rand(2, 32, 32), []
    x = visual._embeds(vit.preprocess(views))
    for i, block in enumerate(visual.transformer.resblocks, start=1):
        x = block(x)
        if i in module.levels:
            hidden, x = module.adapters[module.levels.index(i)](x)
            patches = hidden[:, 1:, None]
            cosines = [F.cosine_similarity(patches, side, dim=-1).mean(dim=1) for side in (positive, negative)]
            scores.append(9 * (cosines[0] - cosines[1]))
    torch.testing.assert_close(module(views[:, None], torch.ones(2, 1, dtype=torch.bool)), (scores[0] + scores[1]) / 2)
    assert trained(module) == 3 * 32 * 24  # what follows the last level's bottleneck reaches no score
    module(views[:, None], torch.ones(2, 1, dtype=torch.bool)).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in module.adapters.parameters())


def test_the_head_starts_as_zero_shot(vit, dino):
    labels, z = ["bright", "wide"], F.normalize(torch.randn(3, 24), dim=1)
    positive, negative = prompt_sides(vit, labels, None)
    torch.testing.assert_close(PromptHead(vit, labels, None, 24)(z), temperature(vit) * z @ (positive - negative).T)
    assert (PromptHead(dino, labels, None, 64).weight == 0).all()


@pytest.mark.parametrize("which", ["vit", "resnet", "dino"])
def test_fine_tuning_trains_the_last_block_what_follows_and_the_head(which, request):
    expert = request.getfixturevalue(which)
    module = create_method("fine-tuning", [expert], ["bright", "wide"]).build(0, None)
    names = {n.removeprefix("tower.net.") for n, p in module.named_parameters() if p.requires_grad}
    last, after = {"vit": ("transformer.resblocks.2.", ("ln_post.", "proj")), "resnet": ("layer4.", ("attnpool.",)),
                   "dino": ("blocks.1.", ("norm.",))}[which]
    allowed = (last, *after, "head.")
    assert names == {n.removeprefix("tower.net.") for n, _ in module.named_parameters()
                     if n.removeprefix("tower.net.").startswith(allowed)}
    assert any(n.startswith(last) for n in names) and all(any(n.startswith(a) for n in names) for a in after)


def test_the_gradient_of_the_head_by_hand(vit):
    """Masked BCE: d/db = sum of (p - y) over the known, divided by their number."""
    from medbridge.losses import masked_bce

    module = WithBias(FilmScores(Tower(vit), PromptHead(vit, ["bright", "wide"], None, 24)), torch.nn.Parameter(torch.zeros(2)))
    views, real = torch.rand(3, 1, 32, 32), torch.ones(3, 1, dtype=torch.bool)
    y, mask = torch.tensor([[1.0, 0], [0, 0], [1, 1]]), torch.tensor([[True, True], [True, False], [False, True]])
    logits = module(views, real)
    masked_bce(logits, y, mask).backward()
    torch.testing.assert_close(module.bias.grad, (((logits.sigmoid() - y) * mask).sum(0) / mask.sum()).detach())


def test_a_vision_only_expert_is_tuned_from_its_summary(dino):
    views = torch.rand(2, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(Tower(dino)(views), dino.encode_maps(dino.preprocess(views), [2]).summary)
    assert is_plain_vit(dino)
    module = create_method("VPT", [dino], ["bright"], count=3).build(0, None)
    assert trained(module) == 2 * 3 * 32 + 64


def test_densenet_is_densely_connected_and_has_the_published_size():
    """x_l = H_l([x_0 ... x_{l-1}]) in timm's block; 7,978,856 parameters with 1,000 classes (the paper's table: 8.0 million)."""
    torch.manual_seed(0)
    module = DenseScores(1000, pretrained=False).eval()
    assert trained(module) == 7_978_856
    block, x = module.net.features.denseblock1, torch.rand(1, 64, 4, 4)
    kept = [x]
    for layer in block.children():
        together = torch.cat(kept, dim=1)
        h = layer.conv2(layer.norm2(layer.conv1(layer.norm1(together))))
        kept.append(h)
    torch.testing.assert_close(block(x), torch.cat(kept, dim=1))
    assert len(kept) == 7 and kept[-1].shape[1] == 32


def test_densenet_without_its_weights_says_which_file(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(ExpertError, match=r"densenet121\.ra_in1k\.safetensors"):
        DenseScores(2, pretrained=True)


def test_a_tower_of_another_kind_is_refused(squares):
    class Other(Expert):
        aligned, size = False, 32

    expert = Other("other", [0.0] * 3, [1.0] * 3)
    with pytest.raises(ExpertError, match="VPT needs an open_clip or timm tower; other is none"):
        create_method("VPT", [expert], squares.labels)
    with pytest.raises(ExpertError, match="shows no blocks"):
        Tower(expert)


@pytest.mark.parametrize("name", ["VPT", "MaPLe", "LoRA", "MVFA-style adapters", "fine-tuning"])
def test_a_tower_trains_in_the_experts_bfloat16(name, films, tiny, squares, monkeypatch):
    """Nearly the float32 logits, other numbers, and gradients in float32."""
    config = TrainConfig(epochs=1, batch_size=8)
    baseline = create_method(name, [tiny], squares.labels, config=config, tries=1, progress=False)
    views, logits = baseline.inputs(films["train"], 0).batch(list(range(4))), {}
    for precision in ("float32", "bfloat16"):
        monkeypatch.setattr(tiny, "precision", precision)
        torch.manual_seed(0)
        module = baseline.build(0, films["train"])
        scores = module(*views)
        scores.square().sum().backward()
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        assert gradients and all(g.dtype == torch.float32 for g in gradients)
        logits[precision] = scores.detach()
    assert logits["bfloat16"].dtype == torch.float32 and not torch.equal(logits["bfloat16"], logits["float32"])
    torch.testing.assert_close(logits["bfloat16"], logits["float32"], atol=0.05 * float(logits["float32"].abs().max()), rtol=0)


def test_a_tower_is_not_trained_in_float16(tiny, monkeypatch):
    monkeypatch.setattr(tiny, "precision", "float16")
    with pytest.raises(ExpertError, match="bfloat16"):
        Tower(tiny)

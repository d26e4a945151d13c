import pytest
import torch
import torch.nn.functional as F

from medbridge.errors import ExpertError
from medbridge.qencoder import QueryEncoder, QueryLayer, query_depths


def _maps(expert, depths, batch=2, seed=0):
    x = torch.rand(batch, expert.size, expert.size, generator=torch.Generator().manual_seed(seed))
    maps = expert.encode_maps(expert.preprocess(x), depths).maps
    return [maps[d].clone() for d in depths]


def test_folded_keys_and_values_equal_plain_attention():
    torch.manual_seed(0)
    layer = QueryLayer(16, 24, heads=2).eval()
    q, x = torch.randn(3, 5, 16), torch.randn(3, 7, 24)
    got, attention = layer(q, x)

    n, xn = layer.norm1(q), F.layer_norm(x, (24,), eps=layer.map_eps)
    keys = torch.cat([layer.k(n), layer.k_map(xn)], 1)
    values = torch.cat([layer.v(n), layer.v_map(xn)], 1)
    heads = [t.view(3, -1, 2, 8).transpose(1, 2) for t in (layer.q(n), keys, values)]
    out = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(3, 5, 16)
    want = q + layer.scale1 * layer.out(out)
    want = want + layer.scale2 * layer.fc2(layer.activation(layer.fc1(layer.norm2(want))))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    weights = (heads[0] @ heads[1].transpose(-1, -2) / 8**0.5).softmax(-1)[..., 5:]
    torch.testing.assert_close(attention, weights, rtol=1e-4, atol=1e-5)


def test_a_copied_layer_computes_what_the_frozen_block_computes(vit):
    # queries that equal frozen tokens: attending to x alone (no other queries) is the block's own attention
    x = _maps(vit, [1])[0]
    layer = QueryLayer.from_block(vit.block_weights(1)).eval()
    want = vit.model.visual.transformer.resblocks[1](x)
    # one query at a time sees itself twice; duplicate keys change the softmax, so drop its own copy from the map
    for token in range(3):
        q = x[:, token : token + 1]
        rest = torch.cat([x[:, :token], x[:, token + 1 :]], 1)
        got, _ = layer(q, rest)
        torch.testing.assert_close(got, want[:, token : token + 1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["cross", "copy", "lora"])
def test_shapes_and_attention(vit, kind):
    encoder = QueryEncoder(vit, queries=4, layers=2, kind=kind, width=16, heads=2).eval()
    q, attention = encoder(_maps(vit, encoder.depths))
    assert q.shape == (2, 4, 16 if kind == "cross" else 32) and attention.shape == (2, 4, 17)
    assert (attention >= 0).all() and (attention.sum(-1) <= 1 + 1e-5).all()


def test_lora_starts_as_the_frozen_block_and_trains_only_the_updates(vit):
    torch.manual_seed(0)
    copy, lora = (QueryEncoder(vit, 4, 1, kind) for kind in ("copy", "lora"))
    lora.queries.data.copy_(copy.queries.data)
    maps = _maps(vit, copy.depths)
    torch.testing.assert_close(copy.eval()(maps)[0], lora.eval()(maps)[0])
    count = {e: sum(p.numel() for p in e.parameters() if p.requires_grad) for e in (copy, lora)}
    assert count[lora] < count[copy] / 2


def test_query_depths():
    assert query_depths(6, 2, "cross") == [5, 6]
    assert query_depths(6, 2, "copy") == [4, 5]
    assert query_depths(12, 3, "cross", 4) == [4, 8, 12] and query_depths(6, 3, "copy", 2) == [1, 3, 5]
    with pytest.raises(ValueError, match="query_layers=3, 4 blocks apart, does not fit a tower of 8 blocks; use 1 to 2"):
        query_depths(8, 3, "cross", 4)
    with pytest.raises(ValueError, match="query_kind='conv'"):
        query_depths(6, 2, "conv")
    with pytest.raises(ValueError, match="query_layers=7"):
        query_depths(6, 7, "cross")


def test_a_resnet_cannot_be_copied_and_says_what_to_use(resnet):
    with pytest.raises(ExpertError, match="query_kind='cross'"):
        QueryEncoder(resnet, 4, 1, "copy")


def test_queries_read_the_map(vit):
    encoder = QueryEncoder(vit, 4, 1, "cross", 16, 2).eval()
    a, b = (encoder(_maps(vit, encoder.depths, seed=s))[0] for s in (0, 1))
    assert (a - b).abs().max() > 1e-3

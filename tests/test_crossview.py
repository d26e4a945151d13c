import pytest
import torch

from medbridge.crossview import POOLS, CrossView
from medbridge.explain.attention import view_share


def _inputs(batch=2, views=4, queries=3, width=16, image_dim=10):
    torch.manual_seed(0)
    return (torch.randn(batch, views, queries, width), torch.randn(batch, views, image_dim), torch.rand(batch, views, 4),
            torch.ones(batch, views, dtype=torch.bool))


def _random(module):
    torch.manual_seed(1)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return module.eval()


def test_starts_as_plain_max_pooling():
    q, s, boxes, mask = _inputs()
    attended, plain = CrossView(16, 10).eval(), CrossView(16, 10, attend=False).eval()
    plain.load_state_dict({k: v for k, v in attended.state_dict().items() if k in plain.state_dict()})
    torch.testing.assert_close(attended(q, s, boxes, mask)[0], plain(q, s, boxes, mask)[0])


def test_padding_changes_nothing_and_never_wins():
    q, s, boxes, mask = _inputs()
    module = _random(CrossView(16, 10))
    want, _ = module(q[:, :3], s[:, :3], boxes[:, :3], mask[:, :3])
    mask[:, 3] = False
    q[:, 3], s[:, 3] = 100.0, 100.0
    got, winners = module(q, s, boxes, mask)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert winners.max() <= 2


def test_order_of_views_does_not_matter_but_their_place_does():
    q, s, boxes, mask = _inputs()
    module = _random(CrossView(16, 10))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        module(q, s, boxes, mask)[0], module(q[:, order], s[:, order], boxes[:, order], mask)[0], rtol=1e-4, atol=1e-5)
    assert (module(q, s, boxes, mask)[0] - module(q, s, boxes.flip(1), mask)[0]).abs().max() > 1e-3


def test_attention_relates_views():
    q, s, boxes, mask = _inputs()
    module = _random(CrossView(16, 10))
    changed = q.clone()
    changed[:, 0] -= 50  # so low that it wins nothing; only attention can carry it
    a, winners = module(q, s, boxes, mask)
    b, _ = module(changed, s, boxes, mask)
    untouched = winners[:, :-1] != 0
    assert ((a - b)[:, :-1][untouched].abs() > 1e-4).any()


@pytest.mark.parametrize("pool", POOLS)
def test_padding_has_no_part_in_any_pool(pool):
    q, s, boxes, mask = _inputs()
    module = _random(CrossView(16, 10, pool=pool))
    want, given = module(q[:, :3], s[:, :3], boxes[:, :3], mask[:, :3])
    mask[:, 3] = False
    q[:, 3], s[:, 3] = 100.0, 100.0
    got, padded = module(q, s, boxes, mask)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    share = view_share(padded, 4)
    assert (share[:, 3] == 0).all()
    torch.testing.assert_close(share[:, :3], view_share(given, 3), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(share.sum(dim=1), torch.ones(2))


def test_pools_are_what_their_names_say():
    q, s, boxes, mask = _inputs()
    plain = {pool: CrossView(16, 10, attend=False, pool=pool).eval() for pool in POOLS}
    for module in plain.values():
        module.load_state_dict(plain["max"].state_dict(), strict=False)
    tokens = torch.cat([q, plain["max"].project(s).unsqueeze(2)], dim=2)
    norm = plain["max"].norm
    want = {"max": tokens.max(1).values, "mean": tokens.mean(1), "lse": tokens.exp().sum(1).log(), "attention": tokens.mean(1)}
    found = {pool: module(q, s, boxes, mask) for pool, module in plain.items()}
    for pool, (got, _) in found.items():
        torch.testing.assert_close(got, norm(want[pool]))
    torch.testing.assert_close(view_share(found["mean"][1], 4), torch.full((2, 4), 0.25))
    count = torch.stack([(found["max"][1][0] == view).sum() for view in range(4)]) / found["max"][1][0].numel()
    torch.testing.assert_close(view_share(found["max"][1], 4)[0], count)


def test_attention_pool_weighs_views_by_their_tokens():
    q, s, boxes, mask = _inputs()
    module = _random(CrossView(16, 10, attend=False, pool="attention"))
    _, weights = module(q, s, boxes, mask)
    assert weights.shape == (2, 4, 4, 16) and weights.std(dim=1).max() > 1e-3


def test_an_unknown_pool_is_refused():
    with pytest.raises(ValueError, match="pool='median' is unknown; use one of max, mean, lse, attention"):
        CrossView(16, 10, pool="median")

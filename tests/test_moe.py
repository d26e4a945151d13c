import pytest
import torch

from medbridge.moe import Router, balance_loss


def _trained(router):
    torch.manual_seed(1)
    for p in router.parameters():
        torch.nn.init.normal_(p)
    return router


@pytest.mark.parametrize("kind", ["class", "image", "uniform"])
def test_weights_sum_to_one_over_experts(kind):
    router = _trained(Router([8, 12, 4], 5, kind))
    weights = router([torch.randn(6, 8), torch.randn(6, 12), torch.randn(6, 4)])
    assert weights.shape == (6, 3, 5)
    torch.testing.assert_close(weights.sum(1), torch.ones(6, 5))
    if kind != "class":
        assert (weights - weights[:, :, :1]).abs().max() == 0


def test_starts_uniform_and_depends_on_queries_once_trained():
    q = [torch.randn(4, 8), torch.randn(4, 8)]
    router = Router([8, 8], 3)
    torch.testing.assert_close(router(q), torch.full((4, 2, 3), 0.5))
    assert _trained(router)(q).std(0).min() > 1e-3


def test_top_k_keeps_the_strongest():
    q = [torch.randn(5, 4) for _ in range(3)]
    full, top = _trained(Router([4, 4, 4], 2)), _trained(Router([4, 4, 4], 2, top_k=1))
    assert ((top(q) > 0).sum(1) == 1).all()
    assert (top(q).argmax(1) == full(q).argmax(1)).all()


def test_one_expert_gets_all():
    assert Router([4], 2)([torch.randn(3, 4)]).eq(1).all()


def test_balance_is_zero_when_even_and_grows_with_neglect():
    even = torch.full((4, 2, 3), 0.5)
    skew = torch.stack([torch.full((4, 3), 0.9), torch.full((4, 3), 0.1)], 1)
    assert balance_loss(even) == 0
    torch.testing.assert_close(balance_loss(skew), torch.tensor(0.64))


def test_bad_arguments():
    with pytest.raises(ValueError, match="router='soft'"):
        Router([4], 2, "soft")
    with pytest.raises(ValueError, match="top_k=3"):
        Router([4, 4], 2, top_k=3)


def _random(router):
    torch.manual_seed(1)
    for p in router.parameters():
        torch.nn.init.normal_(p, std=0.5)  # larger weights would let the softmax underflow to zero
    return router.eval()


def test_a_shared_expert_is_kept_beside_the_top_k_of_the_others():
    torch.manual_seed(0)
    q = [torch.randn(9, 4) for _ in range(4)]
    weights = _random(Router([4] * 4, 3, top_k=1, shared=2))(q)
    full = _random(Router([4] * 4, 3))(q)
    assert ((weights > 0).sum(1) == 2).all() and (weights[:, 2] > 0).all()
    others = full.clone()
    others[:, 2] = 0  # of the others the strongest is kept
    assert (weights.gather(1, others.argmax(1, keepdim=True)) > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(9, 3))
    with pytest.raises(ValueError, match=r"top_k=4 must be in 1\.\.3"):
        Router([4] * 4, 3, top_k=4, shared=0)


def test_noise_is_for_training_alone():
    q = [torch.randn(5, 4) for _ in range(3)]
    router = _random(Router([4] * 3, 2, noise=1.0))
    torch.testing.assert_close(router(q), router(q))
    assert (router.train()(q) - router(q)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="noise=-1"):
        Router([4], 1, noise=-1)

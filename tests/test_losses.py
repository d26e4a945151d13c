import torch
import torch.nn.functional as F

from medbridge.losses import asymmetric_loss, label_overlap, masked_bce, triplet_loss


def test_unknown_labels_contribute_nothing():
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 3, requires_grad=True), torch.randint(2, (6, 3)).float()
    mask = torch.rand(6, 3) > 0.4
    for loss in (masked_bce, asymmetric_loss):
        (grad,) = torch.autograd.grad(loss(logits, targets, mask), logits)
        assert (grad[~mask] == 0).all() and (grad[mask] != 0).any()
    torch.testing.assert_close(
        masked_bce(logits, targets, mask), F.binary_cross_entropy_with_logits(logits[mask], targets[mask]))


def test_nothing_known_is_zero_not_nan():
    assert masked_bce(torch.randn(2, 2), torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool)) == 0


def test_asymmetric_without_its_settings_is_bce():
    torch.manual_seed(0)
    logits, targets, mask = torch.randn(5, 4), torch.randint(2, (5, 4)).float(), torch.ones(5, 4, dtype=torch.bool)
    torch.testing.assert_close(asymmetric_loss(logits, targets, mask, 0, 0, 0), masked_bce(logits, targets, mask))


def test_asymmetric_forgives_easy_negatives_more():
    mask, zero = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1)
    easy, hard = torch.full((1, 1), -3.0), torch.full((1, 1), 2.0)
    ratio = asymmetric_loss(easy, zero, mask) / masked_bce(easy, zero, mask)
    assert ratio < 0.1 * asymmetric_loss(hard, zero, mask) / masked_bce(hard, zero, mask)


def test_overlap_is_jaccard_over_labels_that_both_films_know():
    y = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
    m = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0]]).bool()
    got = label_overlap(y, m)
    assert got[0, 1] == 0.5 and got[0, 2] == 0 and got[2, 2] == 1 and torch.isnan(got[3]).all()
    m[1, 1] = False  # unknown is not absent
    assert label_overlap(y, m)[0, 1] == 1


def test_triplets_are_those_of_a_triple_loop_and_never_nan():
    torch.manual_seed(0)
    v, y, m = torch.randn(7, 4, requires_grad=True), torch.randint(2, (7, 3)).float(), torch.rand(7, 3) > 0.2
    m[6] = False
    unit, s = F.normalize(v, dim=1), label_overlap(y, m)
    costs = []
    for a in range(7):
        for p in range(7):
            for n in range(7):
                if len({a, p, n}) == 3 and s[a, p] > s[a, n]:
                    costs.append(0.5 * (s[a, p] - s[a, n]) + unit[a] @ unit[n] - unit[a] @ unit[p])
    want = torch.stack([c for c in costs if c > 0]).mean()
    got = triplet_loss(v, y, m)
    torch.testing.assert_close(got, want)
    (grad,) = torch.autograd.grad(got, v)
    assert torch.isfinite(grad).all() and (grad[6] == 0).all() and grad.abs().sum() > 0
    assert triplet_loss(v, y, torch.zeros_like(m)) == 0


def test_descent_on_triplets_sorts_films_by_their_findings():
    torch.manual_seed(0)
    y, m = torch.eye(2).repeat(6, 1), torch.ones(12, 2, dtype=torch.bool)
    v = torch.randn(12, 8, requires_grad=True)
    optimiser = torch.optim.Adam([v], 0.1)
    for _ in range(100):
        optimiser.zero_grad()
        triplet_loss(v, y, m).backward()
        optimiser.step()
    unit = F.normalize(v, dim=1)
    cosine = (unit @ unit.T)[label_overlap(y, m) == 0]
    assert triplet_loss(v, y, m) == 0 and cosine.max() < 0.5

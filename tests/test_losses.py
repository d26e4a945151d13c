import torch
import torch.nn.functional as F

from medbridge.losses import asymmetric_loss, masked_bce


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

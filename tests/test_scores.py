import pytest
import torch
import torch.nn.functional as F

from medbridge.scores import PromptScores

CLASSES, TOKENS, WIDTH, TEXT = 3, 5, 16, 12


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(0)
    return [F.normalize(torch.randn(CLASSES, TEXT, generator=generator), dim=-1) for _ in range(2)]


def _scores(prompts, **options):
    torch.manual_seed(1)
    return PromptScores(WIDTH, TOKENS, *prompts, **options).eval()


def test_the_equation_of_the_module(prompts):
    scores, tokens = _scores(prompts), torch.randn(2, TOKENS, WIDTH)
    with torch.no_grad():
        scores.delta.normal_(std=0.1)
        scores.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    for film, logits in zip(tokens, scores(tokens), strict=True):
        for c in range(CLASSES):
            mixed = sum(a * token for a, token in zip(scores.mix[c].softmax(0), film, strict=True))
            z = F.normalize(scores.project(scores.norm(mixed)), dim=0)
            direction = F.normalize(prompts[0][c] - prompts[1][c], dim=0) + scores.delta[c]
            torch.testing.assert_close(logits[c], 10 * z @ direction + scores.bias[c])


def test_at_the_start_no_score_is_beyond_the_scale(prompts):
    scores = _scores(prompts, scale=4.0)
    assert scores(100 * torch.randn(64, TOKENS, WIDTH)).abs().max() <= 4.0001
    assert torch.equal(scores.delta, torch.zeros(CLASSES, TEXT)) and torch.equal(scores.bias, torch.zeros(CLASSES))


def test_prompts_are_frozen_and_their_correction_may_be(prompts):
    scores, fixed = _scores(prompts), _scores(prompts, adapt_prompts=False)
    assert "text" not in scores.state_dict() and not scores.text.requires_grad  # rebuilt from the expert, not stored
    assert scores.delta.requires_grad and not fixed.delta.requires_grad
    tokens = torch.randn(2, TOKENS, WIDTH)
    torch.testing.assert_close(scores(tokens), fixed(tokens))


def test_dropout_acts_in_training_alone(prompts):
    scores, tokens = _scores(prompts, dropout=0.5), torch.randn(2, TOKENS, WIDTH)
    torch.testing.assert_close(scores(tokens), scores(tokens))
    assert not torch.equal(scores.train()(tokens), scores(tokens))

"""Checks of notebook 05: the best weight of two experts, the gradient that reaches an expert, dropping an expert."""

import torch
import torch.nn.functional as F

from medbridge.course.exercises import Answer, close, exercise


@exercise("5.1")
def best_weight(answer: Answer) -> None:
    # equal experts first: there, every careful formula says one half
    for s1, s2, rho in ((1.0, 1.0, 0.3), (1.0, 2.0, 0.0), (2.0, 1.0, 0.25), (1.0, 1.2, 0.5), (1.0, 2.0, 0.9), (3.0, 1.0, 0.8)):
        exact = (s2**2 - rho * s1 * s2) / (s1**2 + s2**2 - 2 * rho * s1 * s2)
        want = min(1.0, max(0.0, exact))
        answer.judge((s1, s2, rho), want, f"s1={s1:g}, s2={s2:g}, rho={rho:g}", rtol=0, atol=1e-6, outside=exact, second=1 - want,
                     second_outside=1 - exact, no_correlation=s2**2 / (s1**2 + s2**2), no_squares=s2 / (s1 + s2), half=0.5)


@exercise("5.2")
def expert_gradient(answer: Answer) -> None:
    rng = torch.Generator().manual_seed(0)
    logits, weights = torch.randn(3, 2, 4, generator=rng), torch.randn(3, 2, 4, generator=rng).softmax(1)
    targets = (torch.rand(3, 4, generator=rng) < 0.5).float()
    leaf = logits.clone().requires_grad_()
    F.binary_cross_entropy_with_logits((weights * leaf).sum(1), targets).backward()
    error = ((weights * logits).sum(1).sigmoid() - targets)[:, None].expand(-1, 2, -1)
    own = weights * (logits.sigmoid() - targets[:, None])
    answer.judge((logits, weights, targets), leaf.grad, rtol=1e-4, atol=1e-6, sign=-leaf.grad, summed=weights * error,
                 over_films=weights * error / 3, over_classes=weights * error / 4, no_weight=error / 12, own_error=own / 12,
                 own_error_summed=own)


@exercise("5.3")
def drop(answer: Answer) -> None:
    weights = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    rests = [torch.cat([weights[:, :k], weights[:, k + 1 :]], dim=1) for k in range(3)]
    others = [rest / rest.sum(1, keepdim=True) for rest in rests]
    for k in (1, 0, 2):
        got = answer.ask(weights, k, shape=(2, 2, 4))
        answer.compare(got, others[k], f"without expert {k}", {"k": k}, atol=1e-5, no_sum=rests[k], softmax=rests[k].softmax(1),
                       one_sum=rests[k] / rests[k].sum(), another=any(close(got, other, atol=1e-5) for other in others))
    alone = torch.zeros(1, 3, 2)
    alone[:, 1] = 1.0
    answer.judge((alone, 1), torch.full((1, 2, 2), 0.5), otherwise="nothing_left", atol=1e-5)

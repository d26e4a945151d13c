"""Checks of notebook 05: the best weight of two experts, the gradient that reaches an expert, dropping an expert. [ours]"""

import torch
import torch.nn.functional as F

from medbridge.course.exercises.register import Answer, exercise, judge


@exercise("5.1")
def best_weight(answer: Answer) -> None:
    # equal experts first: there, every careful formula says one half
    for s1, s2, rho in ((1.0, 1.0, 0.3), (1.0, 2.0, 0.0), (2.0, 1.0, 0.25), (1.0, 1.2, 0.5), (1.0, 2.0, 0.9), (3.0, 1.0, 0.8)):
        exact = (s2**2 - rho * s1 * s2) / (s1**2 + s2**2 - 2 * rho * s1 * s2)
        want = min(1.0, max(0.0, exact))
        judge(answer, (s1, s2, rho), want, [
            (exact, "a softmax gives no weight outside [0, 1]; where the formula does, the nearer end is best"),
            (1 - want, "this is the weight of the second expert"),
            (1 - exact, "this is the weight of the second expert, and it is not held within [0, 1]"),
            (s2**2 / (s1**2 + s2**2), "the correlation is left out; it counts where the experts differ"),
            (s2 / (s1 + s2), "weigh by variances, the squares of s1 and s2, and use the correlation"),
            (0.5, "one half is best only where both experts err alike"),
        ], "write the variance of g e1 + (1 - g) e2, set its derivative by g to zero",
            f"s1={s1:g}, s2={s2:g}, rho={rho:g}", "one number: the weight of the first expert", rtol=0, atol=1e-6)


@exercise("5.2")
def expert_gradient(answer: Answer) -> None:
    rng = torch.Generator().manual_seed(0)
    logits, weights = torch.randn(3, 2, 4, generator=rng), torch.randn(3, 2, 4, generator=rng).softmax(1)
    targets = (torch.rand(3, 4, generator=rng) < 0.5).float()
    leaf = logits.clone().requires_grad_()
    F.binary_cross_entropy_with_logits((weights * leaf).sum(1), targets).backward()
    error = ((weights * logits).sum(1).sigmoid() - targets)[:, None].expand(-1, 2, -1)
    own = weights * (logits.sigmoid() - targets[:, None])
    judge(answer, (logits, weights, targets), leaf.grad, [
        (-leaf.grad, "the sign is turned: where the mixture says too much, p - y is positive"),
        (weights * error, "the loss is a mean over B C numbers; divide by them"),
        (weights * error / 3, "the loss is a mean over films and classes; divide by B C, not by B alone"),
        (weights * error / 4, "the loss is a mean over films and classes; divide by B C, not by C alone"),
        (error / 12, "the router's weight is missing: an expert with little weight gets little gradient"),
        (own / 12, "the error is that of the mixture, not of the expert alone: sum over the experts before the sigmoid"),
        (own, "the error is that of the mixture, not of the expert alone; and the loss is a mean: divide by B C"),
    ], "chain rule: d loss / d s_k = d loss / d s times d s / d s_k, and s is the weighted sum",
        give="a tensor (B, K, C), here (3, 2, 4): one number for each logit of each expert", rtol=1e-4, atol=1e-6)


@exercise("5.3")
def drop(answer: Answer) -> None:
    weights = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    give = "the weights of the remaining experts, (B, K - 1, C); the expert is to go, not to get weight 0"
    rests = [torch.cat([weights[:, :k], weights[:, k + 1 :]], dim=1) for k in range(3)]
    for k in (1, 0, 2):
        rest = rests[k]
        judge(answer, (weights, k), rest / rest.sum(1, keepdim=True), [
            (rest, "they no longer sum to 1 over the experts"),
            (rest.softmax(1), "a second softmax flattens them; divide by what is left"),
            (rest / rest.sum(), "divide by the sum over the experts, for each film and class apart"),
            *((o / o.sum(1, keepdim=True), f"another expert than number {k} was dropped") for o in rests),
        ], "the remaining weights keep their proportions, and sum to 1 over the experts", f"without expert {k}", give, atol=1e-5)
    alone = torch.zeros(1, 3, 2)
    alone[:, 1] = 1.0
    judge(answer, (alone, 1), torch.full((1, 2, 2), 0.5), [], "where the dropped expert had all the weight (top_k=1 does that), "
          "nothing is left to divide by; give the others 1 / (K - 1)", give=give, atol=1e-5)

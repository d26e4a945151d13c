# %% [markdown]
# # 05 Mixture of Experts: solutions
#
# {{COLAB}}
#
# One way to solve each exercise of [05 Mixture of Experts](../05_mixture_of_experts.ipynb). Others are as good, as long as
# the check says "right".

# %%
# {{SETUP}}

# %%
import torch
import torch.nn.functional as F

from medbridge.course import check, seed_everything

rng = seed_everything(0)

# %% [markdown]
# ### Exercise 5.1: the best weight
# The variance $g^2 s_1^2 + (1 - g)^2 s_2^2 + 2 g (1 - g)\,\rho\,s_1 s_2$ has its minimum where
#
# $$g = \frac{s_2^2 - \rho\,s_1 s_2}{s_1^2 + s_2^2 - 2\rho\,s_1 s_2}.$$
#
# It is a parabola that opens upwards, so where this lies outside [0, 1] the nearer end is best.

# %%
def best_weight(s1, s2, rho):
    g = (s2**2 - rho * s1 * s2) / (s1**2 + s2**2 - 2 * rho * s1 * s2)
    return min(1.0, max(0.0, g))


check("5.1", best_weight)

# %% [markdown]
# The more alike the experts, the less the weaker one is worth; above $\rho = s_1 / s_2$ it is worth nothing:

# %%
for rho in (-0.5, 0.0, 0.3, 0.6, 0.9):
    print(f"s1 = 1, s2 = 1.5, rho = {rho:+.1f}: weight of the better expert {best_weight(1, 1.5, rho):.2f}")

# %% [markdown]
# ### Exercise 5.2: the gradient that reaches an expert
# $\partial\,\mathrm{BCE}/\partial s = p - y$ and $\partial s/\partial s_k = g_k$; the mean divides by $B\,C$.

# %%
def expert_gradient(expert_logits, weights, targets):
    p = (weights * expert_logits).sum(dim=1).sigmoid()
    return weights * (p - targets)[:, None] / targets.numel()


check("5.2", expert_gradient)

# %% [markdown]
# Autograd agrees:

# %%
logits, weights = torch.randn(5, 3, 2, requires_grad=True), torch.randn(5, 3, 2).softmax(dim=1)
targets = (torch.rand(5, 2) < 0.5).float()
F.binary_cross_entropy_with_logits((weights * logits).sum(dim=1), targets).backward()
torch.testing.assert_close(expert_gradient(logits.detach(), weights, targets), logits.grad)

# %% [markdown]
# ### Exercise 5.3: drop an expert at inference
# The others keep their proportions. This is what a softmax without that expert would give.

# %%
def drop(weights, k):
    rest = torch.cat([weights[:, :k], weights[:, k + 1 :]], dim=1)
    total = rest.sum(dim=1, keepdim=True)
    return torch.where(total > 0, rest / total, 1 / rest.shape[1])


check("5.3", drop)
scores = torch.randn(2, 4, 3)
torch.testing.assert_close(drop(scores.softmax(dim=1), 3), scores[:, :3].softmax(dim=1))

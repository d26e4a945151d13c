import numpy as np
import torch
from samples import feature_batch, perturbed
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medbridge.metrics.evaluate import auc
from medbridge.model import MedBridge
from medbridge.readout import ReadOut, align_folds, fit_blend, pool_summary
from medbridge.support.logistic import fit_logistic

LABELS = ("Nodule", "Effusion", "Mass")


def _films(n=400, d=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * 3 + 1
    y = (rng.random((n, 2)) < 1 / (1 + np.exp(-x[:, :2]))).astype(float)
    return x, y, rng.random((n, 2)) < 0.9


def test_pooled_summaries_leave_padding_out():
    summary = torch.tensor([[[1.0, -5.0], [3.0, -7.0], [100.0, 100.0]]])
    pooled = pool_summary([summary, 2 * summary], torch.tensor([[True, True, False]]))
    assert pooled.tolist() == [[1, -5, 2, -6, 3, -5, 2, -10, 4, -12, 6, -10]]


def test_the_regression_is_scikit_learns_on_standardised_columns():
    x, y, mask = _films()
    weight, bias = fit_logistic(x, y, mask, 0.1)
    for c in range(2):
        want = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(x[mask[:, c]], y[mask[:, c], c])
        np.testing.assert_allclose(x @ weight[c] + bias[c], want.decision_function(x), atol=1e-3)
    weight, bias = fit_logistic(x, np.ones_like(y), mask, 0.1)
    assert not weight.any() and (bias > 3).all()


def test_the_blend_follows_the_evidence():
    rng = np.random.default_rng(0)
    _, y, mask = _films(n=2000)
    good, noise = 3 * (y - 0.5) + rng.normal(size=y.shape), 20 * rng.normal(size=y.shape)
    (a, b), _ = fit_blend(good, noise, y, mask)
    assert a > 10 * b >= 0
    (a, b), _ = fit_blend(noise, good, y, mask)
    assert b > 10 * a >= 0
    (a, b), offset = fit_blend(10 * good + 5, noise, y, mask)  # over-confident: shrunk, and moved back
    probabilities = 1 / (1 + np.exp(-(a * (10 * good + 5) + b * noise + offset)))
    assert abs(probabilities[mask].mean() - y[mask].mean()) < 0.01


def test_where_the_folds_speak_for_neither_part_the_films_still_differ():
    rng = np.random.default_rng(0)
    _, y, mask = _films(n=300)
    q, r = (rng.normal(size=y.shape) - 2 * y + 4 for _ in range(2))  # out-of-fold scores of few films may look reversed
    (a, b), offset = fit_blend(q, r, y, mask)
    assert a > 0 and b > 0
    logits = a * q + b * r + offset
    assert logits.std() > 0.05
    assert abs((1 / (1 + np.exp(-logits)))[mask].mean() - y[mask].mean()) < 0.05  # no bias by what was cut off


def test_where_the_queries_know_nothing_the_model_is_a_linear_probe():
    x, y, mask = _films(n=600)
    fold = np.arange(600) % 3
    readout = ReadOut(3, 2, 6)
    before = readout(torch.ones(4, 2), torch.randn(4, 6))
    assert torch.equal(before, torch.ones(4, 2))  # unfitted, it changes nothing
    queries = np.random.default_rng(1).normal(size=y.shape)
    readout.fit(queries, x, y, mask, fold)
    new, truth, known = _films(n=600, seed=2)
    scores = readout(torch.randn(600, 2), torch.from_numpy(new).float()).numpy()
    weight, bias = fit_logistic(x, y, mask, 0.01)
    probe = auc(truth, new @ weight.T + bias, known).mean()
    assert auc(truth, scores, known).mean() > probe - 0.01 > 0.85


def test_the_model_adds_it_to_the_members_mean(experts):
    model = perturbed(MedBridge(experts, LABELS, width=32, queries=4, members=2, readout=True))
    batch = feature_batch(model)
    out = model(batch)
    mean = torch.stack([o.logits for o in out.members]).mean(0)
    torch.testing.assert_close(out.logits, mean)  # not fitted yet
    torch.testing.assert_close(mean, torch.stack([(o.weights * o.expert_logits).sum(1) for o in out.members]).mean(0))
    torch.testing.assert_close(model(batch, member=1).logits, out.members[1].logits)
    with torch.no_grad():
        model.readout.weight.normal_()
        model.readout.blend.copy_(torch.tensor([0.5, 2.0]))
    pooled = pool_summary(model.summaries(batch.summary), batch.view_mask)
    torch.testing.assert_close(model(batch).logits, 0.5 * mean + 2 * pooled @ model.readout.weight.mean(0).T)


def test_folds_are_moved_to_one_mean_and_nothing_changes_within_them():
    rng = np.random.default_rng(0)
    fold = np.repeat([-1, 0, 1, 2], [5, 100, 100, 3])
    logits = rng.normal(size=(208, 2)) + 3.0 * fold[:, None]
    moved = align_folds(logits, fold)
    means = np.array([moved[fold == m].mean(axis=0) for m in (0, 1)])
    assert np.abs(means[0] - means[1]).max() < 0.2 and np.abs(moved[fold == 2].mean() - means.mean()) > 1
    for m in (0, 1, 2):
        np.testing.assert_allclose(np.diff(moved[fold == m], axis=0), np.diff(logits[fold == m], axis=0))
    assert np.array_equal(moved[fold == -1], logits[fold == -1])
    np.testing.assert_allclose(align_folds(logits[fold == 0], np.zeros(100, int)), logits[fold == 0])

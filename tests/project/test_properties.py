"""What must hold for every input: views, masks, metrics, and the mapping of labels."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medbridge.data import Benchmark
from medbridge.data.labels import FINDINGS, canonical, shared_labels
from medbridge.errors import BenchmarkError
from medbridge.focal import MAX_WINDOWS, FocalSampler, extract_views, relative_boxes, whole_box
from medbridge.losses import LOSSES
from medbridge.metrics.calibration import brier, ece
from medbridge.metrics.evaluate import auc

sides = st.integers(1, 90)
unit = st.floats(0, 1, width=32)
NAMES = [name for finding, words in FINDINGS.items() for name in (finding, *words.aliases)]


@st.composite
def scored(draw, columns=3):
    """y, scores and mask of n films: scores on a coarse grid, so that ties are frequent."""
    n = draw(st.integers(2, 30))
    y = draw(hnp.arrays(float, (n, columns), elements=st.sampled_from([0.0, 1.0])))
    scores = draw(hnp.arrays(float, (n, columns), elements=st.integers(0, 16).map(lambda i: i / 16)))
    return y, scores, draw(hnp.arrays(bool, (n, columns)))


# views


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.float32, st.tuples(sides, sides), elements=unit), st.integers(1, 40), st.floats(0.15, 1), st.floats(0, 0.7),
       st.sampled_from(["bilinear", "bicubic"]), st.text(max_size=8))
def test_views_never_invent_a_value(film, size, crop, overlap, interpolation, name):
    assume(max(film.shape) <= 20 * min(film.shape))  # a thinner strip may take more than MAX_WINDOWS, which is refused
    sampler = FocalSampler(crop, overlap)
    boxes = sampler.training_boxes(*film.shape, name)
    views = extract_views(film, boxes, size, interpolation)
    assert views.shape == (len(boxes), size, size) and views.dtype == torch.float32
    low = 0.0 if interpolation == "bicubic" else min(0.0, float(film.min()))
    high = 1.0 if interpolation == "bicubic" else float(film.max())
    assert torch.isfinite(views).all() and views.min() >= low - 1e-5 and views.max() <= high + 1e-5
    np.testing.assert_array_equal(sampler.training_boxes(*film.shape, name), boxes)


@settings(deadline=None)
@given(sides, sides, unit)
def test_a_constant_film_stays_constant_inside(height, width, value):
    boxes = FocalSampler().inference_boxes(height, width)[1:]
    views = extract_views(np.full((height, width), value, np.float32), boxes, 8)
    inside = (np.rint(boxes[:, :2]) >= 0).all(1) & (np.rint(boxes[:, 2:]) <= [width, height]).all(1)
    torch.testing.assert_close(views[inside], torch.full((int(inside.sum()), 8, 8), value), atol=1e-5, rtol=0)


@given(sides, sides, st.floats(0.1, 1), st.floats(0, 0.7))
def test_relative_boxes_have_one_scale_and_the_whole_view_is_one(height, width, crop, overlap):
    assume(max(height, width) <= 20 * min(height, width))  # a thinner strip may take more than MAX_WINDOWS, which is refused
    boxes = FocalSampler(crop, overlap).inference_boxes(height, width)
    relative = relative_boxes(boxes, height, width)
    np.testing.assert_allclose(relative[0], [0, 0, 1, 1], atol=1e-5)
    whole = whole_box(height, width)
    np.testing.assert_allclose(relative * (whole[2] - whole[0]) + whole[[0, 1, 0, 1]], boxes, atol=1e-2)
    assert relative.min() >= -1e-4 and relative.max() <= 1 + 1e-4


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(1e-9, 1), st.floats(0, 1, exclude_max=True))
def test_no_setting_cuts_a_film_into_more_windows_than_the_limit(height, width, crop, overlap):
    try:
        boxes = FocalSampler(crop, overlap, extra=0).inference_boxes(height, width)
    except ValueError as error:
        assert "windows" in str(error)
    else:
        # the limit is on the count before it is rounded up along each axis
        assert len(boxes) <= 4 * MAX_WINDOWS + 1


# masks


@given(hnp.arrays(float, st.tuples(st.integers(1, 12), st.just(2)), elements=st.sampled_from([0.0, 1.0, np.nan])))
def test_targets_are_known_exactly_where_the_table_is(values):
    table = pd.DataFrame(values, columns=["a", "b"]).assign(
        image=[f"{i}.png" for i in range(len(values))], patient_id=[str(i // 2) for i in range(len(values))], split="train")
    y, mask = Benchmark("x", ".", ("a", "b"), table).targets()
    np.testing.assert_array_equal(mask, ~np.isnan(values))
    np.testing.assert_array_equal(y[mask], values[mask])
    assert (y[~mask] == 0).all()


@settings(deadline=None)
@given(scored(), st.sampled_from(sorted(LOSSES)), st.floats(-9, 9))
def test_what_is_masked_out_changes_no_loss_and_gets_no_gradient(data, name, other):
    y, logits, mask = (torch.from_numpy(a) for a in data)
    logits = (logits * 8 - 4).requires_grad_()
    loss = LOSSES[name](logits, y, mask)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[~mask] == 0).all() and loss >= 0
    changed = LOSSES[name](torch.where(mask, logits, other), torch.where(mask, y, 1 - y), mask)
    torch.testing.assert_close(changed, loss)


@settings(deadline=None)
@given(scored())
def test_what_is_masked_out_changes_no_metric(data):
    y, scores, mask = data
    for metric in (auc, brier, ece):
        if metric is not auc:
            assume(mask.any())
        changed = metric(np.where(mask, y, 1 - y), np.where(mask, scores, 0.3), mask)
        np.testing.assert_array_equal(metric(y, scores, mask), changed)


# metrics


@settings(deadline=None)
@given(scored(), st.permutations(range(30)))
def test_auc_depends_on_the_order_of_scores_alone(data, order):
    y, scores, mask = data
    found = auc(y, scores, mask)
    both = [len(set(y[mask[:, c], c])) == 2 for c in range(3)]
    np.testing.assert_array_equal(~np.isnan(found), both)
    assert ((found[both] >= 0) & (found[both] <= 1)).all()
    np.testing.assert_allclose(auc(y, np.exp(3 * scores) - 5, mask), found)
    np.testing.assert_allclose(auc(y, -scores, mask), 1 - found)
    np.testing.assert_allclose(auc(1 - y, scores, mask), 1 - found)
    rows = [i for i in order if i < len(y)]
    np.testing.assert_allclose(auc(y[rows], scores[rows], mask[rows]), found)
    np.testing.assert_allclose(auc(np.r_[y, y], np.r_[scores, scores], np.r_[mask, mask]), found)
    np.testing.assert_array_equal(auc(y, y, mask)[both], 1)


@settings(deadline=None)
@given(scored())
def test_calibration_stays_in_its_range_and_is_zero_for_the_truth(data):
    y, p, mask = data
    assume(mask.any())
    assert 0 <= brier(y, p, mask) <= 1 and 0 <= ece(y, p, mask) <= 1
    assert brier(y, y, mask) == 0 and ece(y, y, mask) == pytest.approx(0)


# labels


@given(st.sampled_from(NAMES), st.data())
def test_spelling_changes_no_finding(name, data):
    finding = canonical(name)
    assert finding in FINDINGS and canonical(finding) == finding
    odd = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in name)
    blanks = data.draw(st.sampled_from([" ", "_", "  ", " _ "]))
    assert canonical(f" {odd.replace(' ', blanks)}\t") == finding


@given(st.lists(st.sampled_from([*NAMES, "Own", "other thing"]), min_size=1, max_size=8, unique=True),
       st.lists(st.sampled_from([*NAMES, "Own", "other thing"]), min_size=1, max_size=8, unique=True))
def test_sharing_is_symmetric_and_pairs_the_same_finding(train, test):
    try:
        shared = shared_labels(train, test)
    except BenchmarkError:
        with pytest.raises(BenchmarkError):
            shared_labels(test, train)
        return
    for pair in shared:
        assert pair.train in train and pair.test in test
        assert (canonical(pair.train) or pair.train) == (canonical(pair.test) or pair.test) == pair.finding
    assert {(s.train, s.test) for s in shared} == {(s.test, s.train) for s in shared_labels(test, train)}

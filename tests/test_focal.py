import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from medbridge.focal import FocalSampler, extract_views, grid_boxes, random_boxes, relative_boxes, whole_box

sizes = st.integers(16, 300)


@given(sizes, sizes, st.floats(0.2, 1.0), st.floats(0.0, 0.7))
def test_grid_covers_every_pixel_with_square_windows_inside_the_film(height, width, crop, overlap):
    boxes = grid_boxes(height, width, crop, overlap)
    side = crop * min(height, width)
    np.testing.assert_allclose(boxes[:, 2] - boxes[:, 0], side, rtol=1e-3)
    np.testing.assert_allclose(boxes[:, 3] - boxes[:, 1], side, rtol=1e-3)
    assert boxes.min() >= -1e-3 and boxes[:, 2].max() <= width + 1e-2 and boxes[:, 3].max() <= height + 1e-2
    seen = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in boxes:
        seen[int(np.floor(y0 + 1e-3)) : int(np.ceil(y1 - 1e-3)), int(np.floor(x0 + 1e-3)) : int(np.ceil(x1 - 1e-3))] = True
    assert seen.all()


@given(st.integers(64, 300), st.floats(0.3, 0.9), st.floats(0.0, 0.6))
def test_neighbouring_windows_overlap_at_least_as_asked(width, crop, overlap):
    boxes = grid_boxes(64, width, crop, overlap)
    starts = np.unique(boxes[:, 0])
    assert (np.diff(starts) <= crop * 64 * (1 - overlap) + 1e-2).all()


def test_random_windows_lie_inside_and_repeat_with_the_name():
    sampler = FocalSampler(extra=6, seed=3)
    a, b = sampler.training_boxes(100, 140, "a.png"), sampler.training_boxes(100, 140, "a.png")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, sampler.training_boxes(100, 140, "b.png"))
    assert not np.array_equal(a, FocalSampler(extra=6, seed=4).training_boxes(100, 140, "a.png"))
    local = a[1:]
    assert local.min() >= 0 and local[:, 2].max() <= 140 and local[:, 3].max() <= 100
    np.testing.assert_array_equal(a[:-6], sampler.inference_boxes(100, 140))


def test_random_windows_are_spread_over_the_film():
    boxes = random_boxes(100, 200, 2000, 0.5, np.random.default_rng(0))
    assert abs(boxes[:, 0].mean() - 75) < 3 and boxes[:, 0].min() < 3 and boxes[:, 0].max() > 147


def test_views_are_what_the_boxes_say():
    film = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) / 4096
    views = extract_views(film, np.array([[8, 16, 24, 32], [0, 0, 64, 64]]), 16)
    torch.testing.assert_close(views[0], torch.from_numpy(film[16:32, 8:24]))
    # four by four pixels are averaged into one, with a wider antialiasing footprint: exact in the middle of a linear ramp
    assert abs(views[1, 8, 8] - film[32:36, 32:36].mean()) < 1e-3


def test_whole_view_of_a_wide_film_is_letterboxed_not_stretched():
    film = np.ones((50, 100), np.float32)
    view = extract_views(film, whole_box(50, 100)[None], 20)[0]
    assert view[10].mean() == pytest.approx(1.0) and view[0].max() == 0 and view[-1].max() == 0
    assert view.mean() == pytest.approx(0.5, abs=0.06)


def test_a_small_spot_survives_in_a_focal_view_and_fades_in_the_whole_view():
    film = np.zeros((1024, 1024), np.float32)
    film[500:512, 300:312] = 1
    whole = extract_views(film, whole_box(1024, 1024)[None], 64)
    local = extract_views(film, np.array([[256, 448, 384, 576]]), 64)
    assert whole.max() < 0.6 < 0.99 < local.max()


def test_relative_boxes_do_not_depend_on_the_pixel_size():
    small, large = grid_boxes(60, 90), grid_boxes(600, 900)
    np.testing.assert_allclose(relative_boxes(small, 60, 90), relative_boxes(large, 600, 900), atol=1e-5)
    np.testing.assert_allclose(relative_boxes(whole_box(60, 90)[None], 60, 90), [[0, 0, 1, 1]])


def test_without_local_views_only_the_whole_film_is_left():
    sampler = FocalSampler(local=False)
    assert len(sampler.inference_boxes(50, 60)) == len(sampler.training_boxes(50, 60, "x")) == 1


@pytest.mark.parametrize("bad", [{"crop": 0.0}, {"crop": 1.5}, {"overlap": 1.0}, {"overlap": -0.1}, {"extra": -1}])
def test_settings_out_of_range_name_the_argument(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        FocalSampler(**bad)


def test_bad_films_and_boxes_say_what_is_expected():
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        extract_views(np.zeros((4, 4, 3), np.float32), np.zeros((1, 4)), 8)
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        extract_views(np.zeros((4, 4), np.float32), np.zeros(4), 8)


@given(sizes, sizes, st.integers(1, 120), st.sampled_from(["bilinear", "bicubic"]), st.integers(0, 5))
def test_views_are_those_of_interpolate(height, width, size, interpolation, seed):
    """Rows first and shared between windows, against each box cut out and resized by PyTorch alone."""
    film = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    boxes = FocalSampler(crop=0.4, overlap=0.3, extra=2).training_boxes(height, width, "a")[:12]
    margin = max(film.shape)
    padded = torch.from_numpy(np.pad(film, margin))
    for view, (x0, y0, x1, y1) in zip(extract_views(film, boxes, size, interpolation), np.rint(boxes).astype(int), strict=True):
        side = max(x1 - x0, y1 - y0)
        if x1 - x0 != y1 - y0:  # rounded to a pixel more along one axis; which way it gives is another test's
            continue
        crop = padded[y0 + margin : y0 + margin + side, x0 + margin : x0 + margin + side]
        want = F.interpolate(crop[None, None], (size, size), mode=interpolation, antialias=True)[0, 0]
        want = want.clamp(0, 1) if interpolation == "bicubic" else want
        torch.testing.assert_close(view, want, atol=1e-6, rtol=0)


def test_a_box_beside_the_film_is_dark():
    views = extract_views(np.ones((40, 50), np.float32), np.array([[60, 0, 80, 20], [0, -30, 20, -10], [0, 0, 20, 20]]), 16)
    assert views[:2].abs().max() == 0 and views[2].min() == pytest.approx(1)

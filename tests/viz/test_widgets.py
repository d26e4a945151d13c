"""Widgets without a browser: a control that moves changes the picture; and the pictures show the numbers that they are given."""

import io
from functools import partial

import ipywidgets as w
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from samples import with_bases

from medbridge.explain.attention import explain
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler, extract_views
from medbridge.model import MedBridge
from medbridge.predict import predict_film
from medbridge.viz import drawing, widgets
from medbridge.viz.plots import attention_view, placed_views, prompt_similarity, router_film, shifted_film


@pytest.fixture(scope="module")
def model(experts, squares):
    return with_bases(MedBridge(experts, squares.labels, queries=4, seed=3))


@pytest.fixture(scope="module")
def few(squares):
    return squares.split("test").take(range(3))


@pytest.fixture
def sketch(monkeypatch):
    """Pictures small, in no layout that is solved anew each time; test_views, test_film and the browser draw the real ones."""

    def png(figure, dpi):
        figure.set_layout_engine("none")
        return drawing.png(figure, dpi // 2)

    monkeypatch.setattr(widgets, "png", png)


def _moves(widget, values):
    """Set each control in turn; every one must change the picture, which stays a PNG."""
    controls, image = widget.children
    by_name = {c.description: c for c in controls.children}
    assert set(by_name) == set(values), "controls that the test does not move"
    for name, value in values.items():
        before = image.value
        by_name[name].value = value
        assert image.value != before, name
        Image.open(io.BytesIO(image.value)).verify()
    return by_name


def test_views(few):
    _moves(widgets.explore_views(few.read(0)), {"crop": 0.4, "overlap": 0.6})


def test_focus(few, sketch):
    """Views can be moved, resized, added and removed."""
    film = few.read(0)
    controls, image = widgets.explore_focus(film, 32).children
    across, down, side, add, drop = controls.children
    seen = {bytes(image.value)}
    for control, value in ((across, 0.8), (down, 0.1), (side, 0.6)):
        control.value = value
        seen.add(bytes(image.value))
    assert drop.disabled
    for _ in range(5):
        add.click()
        seen.add(bytes(image.value))
    assert len(seen) == 9 and add.disabled
    for _ in range(5):
        drop.click()
    assert drop.disabled and not add.disabled


def test_placed_views_are_what_the_encoder_gets(few):
    film = few.read(0)
    boxes = np.array([[0, 0, 96, 96], [10, 20, 42, 52], [60, 30, 76, 46]], dtype=np.float32)
    figure = placed_views(film, boxes, 32, "t")
    views = sorted(figure.axes[1:], key=lambda ax: ax.get_title())
    for ax, view in zip(views, extract_views(film, boxes, 32).numpy(), strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), view)
    assert len(figure.axes[0].patches) == 3


def test_film(model, few):
    _moves(widgets.explore_film(model, few), {"film": 1, "label": "wide"})


def test_attention(model, few, sketch):
    controls = _moves(widgets.explore_attention(model, few), {"film": 1, "expert": 1, "layer": 0, "view": 2, "query": 3})
    assert controls["layer"].options == (("1 of 2", 0), ("2 of 2", 1)) and controls["query"].max == 3
    assert controls["expert"].options == (("small-vit", 0), ("small-resnet", 1))


def test_router(model, few, sketch):
    _moves(widgets.explore_router(model, few), {"film": 2})


def test_regions(model, few, sketch):
    _moves(widgets.explore_regions(model, few.read(0)), {"look for": "a dark square", "share": 0.9})


def test_cache_and_ablation(sketch):
    def draw(alpha, beta):
        figure = Figure()
        figure.subplots().set_title(f"{alpha:g} {beta:g}")
        return figure

    _moves(widgets.explore_cache(draw), {"alpha": 10.0, "beta": 1.0})
    dials = {name: w.IntSlider(1, 1, 3, description=name) for name in ("alpha", "beta")}
    _moves(widgets.explore(draw, **dials), {"alpha": 2, "beta": 3})
    numbers = {f"{split}_{name}": 0.01 for split in ("val", "test") for name in ("diff", "lo", "hi", "holm")}
    table = pd.DataFrame([{"factor": factor, "variant": factor} | numbers for factor in ("default", "views", "pool")])
    widget = widgets.explore_ablation(table, "a table of the test")
    assert widget.children[0].children[0].options == ("all", "views", "pool")
    _moves(widget, {"factor": "pool"})


def test_shift(model, few, sketch):
    film = few.read(0)
    for score, labels in ((partial(predict_film, model), model.labels), (lambda f: f.mean(keepdims=True)[0], ["mean"])):
        _moves(widgets.explore_shift(score, film, labels), {"exposure": 0.8, "contrast": 0.6, "noise": 0.3})


def test_prompts(tiny, squares, tmp_path, sketch):
    films = FeatureCache(tmp_path, progress=False).films(squares.split("val"), [tiny], [[]], FocalSampler(local=False))
    widget = widgets.explore_prompts([tiny], films)
    controls = {c.description: c for c in widget.children[0].children}
    assert isinstance(controls["prompt"], w.Text) and controls["prompt"].value == "a chest x-ray showing bright"
    controls.pop("expert")
    image = widget.children[1]
    for name, value in {"prompt": "a bright square", "against": "a dark square", "films by": "wide"}.items():
        before = image.value
        controls[name].value = value
        assert image.value != before, name
    controls["prompt"].value = ""  # an empty field draws too


def test_attention_view_shows_the_layer_that_it_names(model, few):
    e = explain(model, few.read(0))
    figure = attention_view(e, 1, 0, 2, 3, np.array([[10, 10, 30, 30]]), "t")
    np.testing.assert_array_equal(figure.axes[2].images[1].get_array(), e.layers[1][0][2, 3])
    share = 100 * e.layers[1][0][2, 3].sum()
    assert figure.axes[2].get_title() == (
        f"small-resnet, layer 1 of 2, query 3:\n{share:.0f} % of its attention is on these patches")
    for wrong in ({"expert": 2}, {"layer": 2}, {"view": 99}, {"query": 4}, {"query": -1}):
        name, value = next(iter(wrong.items()))
        with pytest.raises(ValueError, match=f"{name}={value} is not there"):
            attention_view(e, **({"expert": 0, "layer": 0, "view": 0, "query": 0} | wrong))


def test_router_film_shows_weights_and_probabilities(model, few):
    e = explain(model, few.read(0))
    top, bottom = router_film(e, np.array([1, np.nan])).axes
    heights = np.array([bar.get_height() for bar in top.patches]).reshape(3, 2)
    np.testing.assert_allclose(heights, [*e.expert_probabilities, e.probabilities])
    np.testing.assert_allclose(np.array([bar.get_height() for bar in bottom.patches]).reshape(2, 2), e.weights)
    assert top.lines[0].get_xdata().tolist() == [0]
    assert not router_film(e).axes[0].lines


def test_shifted_film_and_prompt_similarity():
    film = np.full((8, 8), 0.5, dtype=np.float32)
    ax = shifted_film(film, film / 2, np.array([0.1, 0.2]), np.array([0.3, 0.4]), ["a", "b"], "t").axes[2]
    assert [c.get_offsets()[:, 0].tolist() for c in ax.collections[1:]] == [[0.1, 0.2], [0.3, 0.4]]
    truth = np.array([0, 0, 1, 1, np.nan])
    films, words = prompt_similarity(np.array([0.1, 0.3, 0.2, 0.4, 0.9]), truth, "a", np.array([0.5, 0.1]), ["a", "b"]).axes
    assert "4 films" in films.get_title() and "AUC 0.75" in films.get_title()
    assert [bar.get_width() for bar in words.patches] == [0.1, 0.5]
    assert "undefined" in prompt_similarity(np.ones(2), np.zeros(2), "a", np.ones(1), ["a"]).axes[0].get_title()


def test_the_threshold_can_be_moved(sketch):
    rng = np.random.default_rng(0)
    y = np.stack([rng.integers(2, size=60), np.zeros(60), rng.integers(2, size=60)], axis=1).astype(float)
    p = rng.random(y.shape)
    box = widgets.explore_threshold(y, p, ["a", "none", "c"], title="films (synthetic)")
    (label, threshold), image = box.children[0].children, box.children[1]
    assert label.options == ("a", "c")  # of 'none' one class alone is there
    pictures = {bytes(image.value)}
    threshold.value = 0.6
    pictures.add(bytes(image.value))
    label.value = "c"
    pictures.add(bytes(image.value))
    assert len(pictures) == 3 and all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_without_two_classes_there_is_nothing_to_move():
    with pytest.raises(ValueError, match="both classes"):
        widgets.explore_threshold(np.zeros((5, 1)), np.random.default_rng(0).random((5, 1)), ["a"])

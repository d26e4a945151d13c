"""A control that is moved changes the picture."""

import numpy as np
import pytest

from medbridge import widgets


def test_the_threshold_can_be_moved():
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

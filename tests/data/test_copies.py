"""Films are known again whatever file they come in, and others are not taken for them."""

import io

import numpy as np
import pytest
from PIL import Image

from medbridge.data.copies import are_copies, copy_groups, film_print, pack_prints
from medbridge.data.images import read_film


@pytest.fixture(scope="module")
def prints(squares):
    return [film_print(squares.read(i)) for i in range(len(squares))]


def _saved(film, **options):
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * film).astype(np.uint8)).save(file, **options)
    return np.asarray(Image.open(file), dtype=np.float32) / 255


@pytest.mark.parametrize("change", [
    lambda film: film, lambda film: _saved(film, format="JPEG", quality=90), lambda film: (0.8 * film + 0.1).astype(np.float32),
    lambda film: np.asarray(Image.fromarray(film).resize((80, 60), Image.Resampling.LANCZOS)),
    lambda film: np.asarray(Image.fromarray(film).resize((224, 224), Image.Resampling.BICUBIC)),
], ids=["same", "JPEG", "contrast", "smaller", "square"])
def test_a_copy_is_known(squares, prints, change):
    copies = [film_print(change(squares.read(i))) for i in range(20)]
    assert are_copies(copies, pack_prints(prints)).mean() >= 0.95
    assert not are_copies(copies, pack_prints(prints[20:])).any()


def test_the_same_pixels_are_known_in_every_lossless_file(squares, prints, tmp_path):
    film = np.rint(255 * squares.read(3)).astype(np.uint8)
    for suffix in ("png", "tif", "bmp"):
        Image.fromarray(film).save(tmp_path / f"x.{suffix}")
        assert film_print(read_film(tmp_path / f"x.{suffix}")) == prints[3]


def test_a_hundred_thousand_prints_take_little_room_and_none_is_lost():
    rng = np.random.default_rng(0)
    many = [rng.bytes(8) + bytes(range(12)) for _ in range(100_000)]
    packed = pack_prints(many)
    assert packed.nbytes < 425_000
    assert are_copies(many[::2000], packed).all() and not are_copies([rng.bytes(8) + bytes(12) for _ in range(100)], packed).any()


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_few_prints_are_found_too(count):
    rng = np.random.default_rng(count)
    some = [rng.bytes(8) for _ in range(count)]
    assert are_copies(some, pack_prints(some)).all() and not are_copies([rng.bytes(8)], pack_prints(some)).any()


def test_nothing_is_a_copy_of_nothing(prints):
    for packed in (None, pack_prints([]), pack_prints([b""])):
        assert not are_copies(prints[:3], packed).any()
    assert not are_copies([b""], pack_prints(prints)).any() and copy_groups([]) == []


def test_groups_hold_films_and_their_copies(squares, prints):
    small = [film_print(np.asarray(Image.fromarray(squares.read(i)).resize((80, 60), Image.Resampling.LANCZOS))) for i in (4, 7)]
    assert copy_groups([*prints[:10], *small, prints[4]]) == [[4, 10, 12], [7, 11]]
    assert copy_groups(prints) == []


def test_films_with_nothing_in_them_are_alike_where_their_pixels_are():
    black, grey = np.zeros((40, 50), np.float32), np.full((40, 50), 0.5, np.float32)
    ramp = np.tile(np.linspace(0, 1, 50, dtype=np.float32), (40, 1))
    assert copy_groups([film_print(film) for film in (black, grey, ramp, black, ramp.T, ramp)]) == [[0, 3], [2, 5]]

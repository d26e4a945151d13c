"""The intensity scale of deep films, JPEG beyond eight bits, and the limit of size."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from film_files import DEEP, RAMP, check_film
from PIL import Image

from medbridge.data import pixels
from medbridge.data.images import probe_film, read_film
from medbridge.errors import ImageError


def test_transparency_is_laid_over_black(tmp_path):
    rgba = np.full((8, 8, 4), 255, dtype=np.uint8)
    rgba[:4, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    film = read_film(tmp_path / "a.png")
    assert (film[:4] == 0).all() and (film[4:] == 1).all()


@pytest.mark.parametrize("suffix", ["png", "tiff", "jp2"])
def test_12_bit_data_in_16_bits_fills_the_range(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(DEEP).save(path)
    film = read_film(path)
    check_film(film)
    assert film[0, 0] == 0 and film[0, -1] == 1 and 0.45 < film[0, 32] < 0.55
    assert probe_film(path) == (48, 64)


def test_percentiles_ignore_a_burnt_in_marker(tmp_path):
    deep = np.tile(np.arange(200, dtype=np.uint16) * 10, (200, 1))
    deep[:3, :3] = 65535
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert read_film(tmp_path / "a.png")[100, 100] > 0.4


def test_constant_films(tmp_path):
    Image.fromarray(np.full((8, 8), 51, np.uint8)).save(tmp_path / "eight.png")
    Image.fromarray(np.full((8, 8), 5000, np.uint16)).save(tmp_path / "deep.png")
    assert np.allclose(read_film(tmp_path / "eight.png"), 0.2)
    assert (read_film(tmp_path / "deep.png") == 0).all()


def test_float_tiff_with_nan_is_refused(tmp_path):
    pixels = RAMP.astype(np.float32)
    Image.fromarray(pixels).save(tmp_path / "ok.tiff")
    assert read_film(tmp_path / "ok.tiff")[0, -1] == 1
    pixels[3, 3] = np.nan
    Image.fromarray(pixels).save(tmp_path / "nan.tiff")
    with pytest.raises(ImageError, match=r"nan\.tiff.*NaN"):
        read_film(tmp_path / "nan.tiff")


@pytest.mark.parametrize("kind", ["12-bit", "16-bit lossless", "8-bit lossless", "liblj92", "jpeg-ls"])
def test_jpeg_beyond_pillow(tmp_path, kind):
    data = {
        "12-bit": lambda: imagecodecs.jpeg8_encode(DEEP, bitspersample=12, level=98),
        "16-bit lossless": lambda: imagecodecs.jpeg8_encode(DEEP, bitspersample=16, lossless=True),
        "8-bit lossless": lambda: imagecodecs.jpeg8_encode(RAMP, lossless=True),
        "liblj92": lambda: imagecodecs.ljpeg_encode(DEEP, bitspersample=12),
        "jpeg-ls": lambda: imagecodecs.jpegls_encode(DEEP),
    }[kind]()
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    film = read_film(path)
    check_film(film)
    assert np.abs(film - np.arange(64) / 63).max() < 0.02
    assert probe_film(path) == (48, 64)
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ImageError, match=r"a\.jpg"):
        read_film(path)


@pytest.mark.parametrize("suffix", ["png", "12.jpg"])
def test_bombs_are_refused_before_decoding(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"bomb.{suffix}"
    if suffix == "png":
        Image.fromarray(RAMP).save(path)
    else:
        path.write_bytes(imagecodecs.jpeg8_encode(DEEP, bitspersample=12))
    monkeypatch.setattr(pixels, "MAX_PIXELS", 48 * 64 - 1)
    for read in (read_film, probe_film):
        with pytest.raises(ImageError, match="limit"):
            read(path)


def test_a_real_bomb(tmp_path):
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")  # 400 MP in 50 kB
    for read in (read_film, probe_film):
        with pytest.raises(ImageError, match=r"bomb\.png"):
            read(tmp_path / "bomb.png")

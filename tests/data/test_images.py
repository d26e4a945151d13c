"""Films of every kind that a hospital exports, whole and broken."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from film_files import DEEP, RAMP, check_film, check_films, write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from medbridge.data.images import probe_film, read_film
from medbridge.errors import ImageError


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "jp2"])
def test_eight_bits_are_divided_by_255(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP).save(path)
    check_film(read_film(path))
    assert np.array_equal(read_film(path), RAMP.astype(np.float32) / 255)
    assert probe_film(path) == (48, 64)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_8_bit_mode_becomes_one_channel(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.fromarray(RAMP).convert("RGB").convert(mode, palette=Image.Palette.ADAPTIVE).save(path)
    film = read_film(path)
    check_film(film)
    if mode == "1":
        assert set(np.unique(film)) == {0, 1}
    else:
        assert np.abs(film - RAMP / 255).max() < 0.02


def test_16_bit_colour_png_keeps_its_low_bits(tmp_path):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.stack([DEEP] * 3, axis=-1)))
    film = read_film(tmp_path / "a.png")
    check_film(film)
    assert len(np.unique(film)) > 50  # Pillow alone would leave 16 grey levels of the 64
    assert probe_film(tmp_path / "a.png") == (48, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_exif_orientation_is_what_a_viewer_shows(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(np.add.outer(np.arange(48) * 4, np.arange(64)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    decoded = Image.open(path) if suffix == "jpg" else image  # Pillow scrambles a TIFF that turns by a quarter
    decoded.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(decoded).convert("L"), dtype=np.float32) / 255
    assert np.array_equal(read_film(path), expected)
    assert probe_film(path) == expected.shape


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), max_side=st.integers(1, 100))
def test_max_side_shrinks_and_never_enlarges(tmp_path_factory, height, width, max_side):
    path = tmp_path_factory.mktemp("films") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)).save(path)
    film = read_film(path, max_side=max_side)
    assert max(film.shape) == min(max_side, max(height, width)) and min(film.shape) >= 1
    assert film.min() >= 0 and film.max() <= 1


@pytest.mark.parametrize("read", [read_film, probe_film])
def test_what_is_no_film(tmp_path, read):
    (tmp_path / "text.png").write_text("patient,label\n1,0\n")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "stub.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    for name, words in [
        ("text.png", "not a PNG"),
        ("empty.png", "empty"),
        ("stub.jpg", "JPEG"),
        ("missing.png", "no such file"),
        ("pipe.png", "regular file"),
        (".", "folder"),
    ]:
        with pytest.raises(ImageError, match=words) as error:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(ImageError):
        read("a\0b.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "jp2", "dcm"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_films_are_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (100, 120), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    write_dicom(path, noise, bits=8) if suffix == "dcm" else Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=rf"cut\.{suffix}"):
        read_film(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_corrupt_bytes_give_a_film_or_an_image_error(tmp_path_factory, data):
    """Whatever a bad disk does: a (H, W) film in [0, 1] or ImageError; never another exception."""
    folder = tmp_path_factory.mktemp("corrupt")
    suffix = data.draw(st.sampled_from(["png", "jpg", "tiff", "jp2", "bmp", "dcm", "12.jpg", "ls.jpg"]))
    path = folder / f"a.{suffix}"
    if suffix == "dcm":
        write_dicom(path, DEEP, bits=12, WindowCenter=2048, WindowWidth=1024)
    elif suffix == "12.jpg":
        path.write_bytes(imagecodecs.jpeg8_encode(DEEP, bitspersample=12))
    elif suffix == "ls.jpg":
        path.write_bytes(imagecodecs.jpegls_encode(DEEP))
    else:
        Image.fromarray(RAMP).save(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, min(len(raw), 700) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            film = read_film(path)
        except ImageError as error:
            assert str(path) in str(error)
        else:
            assert film.ndim == 2 and film.dtype == np.float32 and film.min() >= 0 and film.max() <= 1


def test_multi_frame_tiff_is_refused(tmp_path):
    page = Image.fromarray(RAMP)
    page.save(tmp_path / "a.tiff", save_all=True, append_images=[page])
    with pytest.raises(ImageError, match="2 frames"):
        read_film(tmp_path / "a.tiff")


def test_real_films(tmp_path):
    shared = Path(os.environ.get("MEDBRIDGE_SHARED", Path(__file__).parents[3] / "shared"))
    films = sorted((shared / "data" / "kermany-mini" / "images").glob("*.jpg"))[:24]
    if not films:
        pytest.skip("the real films are not here")
    assert check_films(films) == []
    for path in films[:4]:
        film = read_film(path)
        assert film.shape == probe_film(path) and film.std() > 0.05

"""A part of a file is no film: cut, zeroed or torn, on every decoder path."""

from __future__ import annotations

import zlib

import imagecodecs
import numpy as np
import pydicom
import pytest
from film_files import CODECS, write_coded, write_dicom
from PIL import Image
from scipy.ndimage import gaussian_filter

from medbridge.data.images import read_film
from medbridge.errors import ImageError

RNG = np.random.default_rng(0)
_SOFT = gaussian_filter(RNG.standard_normal((200, 200)), 8)
# with the noise of a film
SOFT = np.clip(2048 + 600 * _SOFT / _SOFT.std() + RNG.normal(0, 20, _SOFT.shape), 0, 4095).astype(np.uint16)
GREY = (SOFT >> 4).astype(np.uint8)
FILES = {  # every way in which files say that they are whole
    "a.png": lambda path: Image.fromarray(GREY).save(path),
    "rgb.png": lambda path: Image.fromarray(np.stack([GREY] * 3, -1)).save(path),
    "deep.png": lambda path: Image.fromarray(SOFT).save(path),
    "deep-rgb.png": lambda path: path.write_bytes(imagecodecs.png_encode(np.stack([SOFT] * 3, -1))),
    "a.jpg": lambda path: Image.fromarray(GREY).save(path, quality=90),
    "optimal.jpg": lambda path: Image.fromarray(GREY).save(path, quality=90, optimize=True),
    "progressive.jpg": lambda path: Image.fromarray(GREY).save(path, quality=90, progressive=True),
    "rgb.jpg": lambda path: Image.fromarray(np.stack([GREY] * 3, -1)).save(path, quality=90),
    "cmyk.jpg": lambda path: Image.fromarray(np.stack([GREY] * 4, -1), "CMYK").save(path, quality=90),
    "12.jpg": lambda path: path.write_bytes(imagecodecs.jpeg8_encode(SOFT, bitspersample=12, level=95)),
    "lossless.jpg": lambda path: path.write_bytes(imagecodecs.jpeg8_encode(SOFT, bitspersample=12, lossless=True)),
    "ls.jpg": lambda path: path.write_bytes(imagecodecs.jpegls_encode(SOFT)),
    "a.jp2": lambda path: Image.fromarray(GREY).save(path),
    "deep.jp2": lambda path: Image.fromarray(SOFT).save(path),
    "lzw.tif": lambda path: Image.fromarray(GREY).save(path, compression="tiff_lzw"),
    "zip.tif": lambda path: Image.fromarray(SOFT).save(path, compression="tiff_adobe_deflate"),
    "rgb.tif": lambda path: Image.fromarray(np.stack([GREY] * 3, -1)).save(path, compression="tiff_adobe_deflate"),
    "jpeg.tif": lambda path: Image.fromarray(GREY).save(path, compression="jpeg"),
    "jpeg.dcm": lambda path: write_dicom(path, GREY, 8, syntax="1.2.840.10008.1.2.4.50", stream=imagecodecs.jpeg8_encode(GREY)),
    "12.dcm": lambda path: write_dicom(path, SOFT, 12, syntax="1.2.840.10008.1.2.4.51",
                                       stream=imagecodecs.jpeg8_encode(SOFT, bitspersample=12, level=95)),
    **{f"{syntax}.dcm": lambda path, syntax=syntax: write_coded(path, SOFT, syntax, 12)
       for syntax, encode in CODECS.items() if encode or syntax.endswith(".99")},
}
UNCOMPRESSED = {
    "a.bmp": lambda path: Image.fromarray(GREY).save(path),
    "a.tif": lambda path: Image.fromarray(GREY).save(path),
    "a.dcm": lambda path: write_dicom(path, SOFT, 12),
}


def _whole(tmp_path, name):
    path = tmp_path / name
    (FILES | UNCOMPRESSED)[name](path)
    assert read_film(path).std() > 0.05
    data = path.read_bytes()
    offset = 0
    if name.endswith(".dcm") and not name.endswith(".99.dcm"):  # damage to tags is not what is tried here
        offset = data.index(pydicom.dcmread(path).PixelData[8:]) + 40
    return path, data, max(offset, 900)


@pytest.mark.parametrize("name", [*FILES, *UNCOMPRESSED])
def test_files_cut_short(tmp_path, name):
    path, data, _ = _whole(tmp_path, name)
    for share in (0.2, 0.5, 0.9, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageError, match="film|file"):
            read_film(path)


@pytest.mark.parametrize("name", FILES)
def test_zeros_from_somewhere_to_the_end(tmp_path, name):
    path, data, start = _whole(tmp_path, name)
    for share in (0.3, 0.6, 0.9):
        at = start + int((len(data) - start) * share)
        path.write_bytes(data[:at] + bytes(len(data) - at))
        with pytest.raises(ImageError, match="film|file"):
            read_film(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.2, 0.45, 0.7])
def test_a_hole_of_a_sector(tmp_path, name, share):
    path, data, start = _whole(tmp_path, name)
    at = start + int((len(data) - start - 1100) * share)
    path.write_bytes(data[:at] + bytes(1024) + data[at + 1024 :])
    with pytest.raises(ImageError, match="film|file"):
        read_film(path)


def test_jpegs_that_lost_their_end_marker_alone(tmp_path):
    for name in ("a.jpg", "progressive.jpg", "rgb.jpg", "12.jpg", "lossless.jpg", "ls.jpg"):
        path, data, _ = _whole(tmp_path, name)
        path.write_bytes(data[:-2])
        with pytest.raises(ImageError, match="film|file"):
            read_film(path)
        path.write_bytes(data + b"what a mailer appends")
        read_film(path)


def test_a_png_whose_checksum_alone_is_wrong(tmp_path):
    path, data, _ = _whole(tmp_path, "a.png")
    at = data.index(b"IDAT") + 4
    torn = bytearray(data)
    torn[at + 500] ^= 1
    path.write_bytes(torn)
    with pytest.raises(ImageError, match=r"a\.png.*checksum"):
        read_film(path)
    size = int.from_bytes(data[at - 8 : at - 4], "big")
    half = data[at - 4 : at + size // 2]
    short = (size // 2).to_bytes(4, "big") + half + zlib.crc32(half).to_bytes(4, "big")
    path.write_bytes(data[: at - 8] + short + data[data.index(b"IEND") - 4 :])
    with pytest.raises(ImageError, match=r"a\.png"):
        read_film(path)


def test_what_cannot_be_seen_is_said_in_the_docs():
    """Uncompressed pixels have no checksum: zeros in their place are a film."""
    from pathlib import Path

    text = " ".join((Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8").split())
    assert "no checksum" in text and "uncompressed" in text

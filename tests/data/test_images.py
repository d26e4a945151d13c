"""Films of every kind that a hospital exports, whole and broken."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian

from medbridge.data import pixels
from medbridge.data.images import check_films, probe_film, read_film
from medbridge.errors import ImageError

RAMP = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))  # (48, 64), dark to bright
DEEP = np.tile(np.arange(64, dtype=np.uint16) * 64, (48, 1))  # 12-bit data


def write_dicom(path: Path, pixels: np.ndarray, bits: int = 16, preamble: bool = True, **tags) -> Path:
    dataset = pydicom.Dataset()
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = min(bits, dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    syntax = tags.pop("syntax", ExplicitVRLittleEndian)
    stream = tags.pop("stream", None)
    for name, value in tags.items():
        setattr(dataset, name, value)
    if stream is not None:
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
    if preamble:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        dataset.save_as(path, enforce_file_format=True)
    else:
        dataset.save_as(path, implicit_vr=True, little_endian=True)
    return path


def check(film: np.ndarray, shape=(48, 64)) -> None:
    assert film.dtype == np.float32 and film.shape == shape and film.flags.c_contiguous
    assert film.min() >= 0 and film.max() <= 1


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "jp2"])
def test_eight_bits_are_divided_by_255(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP).save(path)
    check(read_film(path))
    assert np.array_equal(read_film(path), RAMP.astype(np.float32) / 255)
    assert probe_film(path) == (48, 64)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_8_bit_mode_becomes_one_channel(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.fromarray(RAMP).convert("RGB").convert(mode, palette=Image.Palette.ADAPTIVE).save(path)
    film = read_film(path)
    check(film)
    if mode == "1":
        assert set(np.unique(film)) == {0, 1}
    else:
        assert np.abs(film - RAMP / 255).max() < 0.02


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
    check(film)
    assert film[0, 0] == 0 and film[0, -1] == 1 and 0.45 < film[0, 32] < 0.55
    assert probe_film(path) == (48, 64)


def test_16_bit_colour_png_keeps_its_low_bits(tmp_path):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.stack([DEEP] * 3, axis=-1)))
    film = read_film(tmp_path / "a.png")
    check(film)
    assert len(np.unique(film)) > 50  # Pillow alone would leave 16 grey levels of the 64
    assert probe_film(tmp_path / "a.png") == (48, 64)


def test_percentiles_ignore_a_burnt_in_marker(tmp_path):
    deep = np.tile(np.arange(200, dtype=np.uint16) * 10, (200, 1))
    deep[:3, :3] = 65535
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert read_film(tmp_path / "a.png")[100, 100] > 0.4


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
    check(film)
    assert np.abs(film - np.arange(64) / 63).max() < 0.02
    assert probe_film(path) == (48, 64)
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ImageError, match=r"a\.jpg"):
        read_film(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_exif_orientation_is_what_a_viewer_shows(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(np.add.outer(np.arange(48) * 4, np.arange(64)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    with Image.open(path) as saved:
        expected = np.asarray(ImageOps.exif_transpose(saved).convert("L"), dtype=np.float32) / 255
    assert np.array_equal(read_film(path), expected)
    assert probe_film(path) == expected.shape


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


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), max_side=st.integers(1, 100))
def test_max_side_shrinks_and_never_enlarges(tmp_path_factory, height, width, max_side):
    path = tmp_path_factory.mktemp("films") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)).save(path)
    film = read_film(path, max_side=max_side)
    assert max(film.shape) == min(max_side, max(height, width)) and min(film.shape) >= 1
    assert film.min() >= 0 and film.max() <= 1


# -------------------------------------------------------------------------------------------- DICOM


def test_dicom_window_is_honoured(tmp_path):
    film = read_film(write_dicom(tmp_path / "a.dcm", DEEP, bits=12, WindowCenter=2048, WindowWidth=1024))
    check(film)
    inside = np.clip((DEEP[0] - 1536.0) / 1024, 0, 1)
    assert np.abs(film[0] - inside).max() < 0.01


def test_dicom_rescale_moves_the_window(tmp_path):
    plain = read_film(write_dicom(tmp_path / "a.dcm", DEEP, bits=12, WindowCenter=2048, WindowWidth=1024))
    tags = {
        "RescaleSlope": 2,
        "RescaleIntercept": -1000,
        "WindowCenter": 2 * 2048 - 1000,
        "WindowWidth": 2048,
    }
    moved = read_film(write_dicom(tmp_path / "b.dcm", DEEP, bits=12, **tags))
    assert np.abs(plain - moved).max() < 0.01


def test_dicom_sigmoid_and_voi_lut(tmp_path):
    sigmoid = {"WindowCenter": 2048, "WindowWidth": 1024, "VOILUTFunction": "SIGMOID"}
    film = read_film(write_dicom(tmp_path / "a.dcm", DEEP, bits=12, **sigmoid))
    assert np.abs(film[0] - 1 / (1 + np.exp(-4 * (DEEP[0] - 2048.0) / 1024))).max() < 0.01
    lut = pydicom.Dataset()
    lut.LUTDescriptor = [4096, 0, 16]
    lut.LUTData = [int(v) for v in np.linspace(0, 4095, 4096)]  # 12-bit data in a LUT that claims 16 bits
    dataset = pydicom.dcmread(write_dicom(tmp_path / "b.dcm", DEEP, bits=12))
    dataset.VOILUTSequence = [lut]
    dataset["VOILUTSequence"][0]["LUTData"].VR = "US"
    dataset["VOILUTSequence"][0]["LUTDescriptor"].VR = "US"
    dataset.save_as(tmp_path / "b.dcm")
    assert np.abs(read_film(tmp_path / "b.dcm")[0] - DEEP[0] / 4095).max() < 0.01
    dataset.RescaleSlope, dataset.RescaleIntercept = "1.0", "0.0"  # floats from here on
    dataset.save_as(tmp_path / "c.dcm")
    assert np.array_equal(read_film(tmp_path / "c.dcm"), read_film(tmp_path / "b.dcm"))


def test_dicom_monochrome1_is_inverted(tmp_path):
    tags = {"WindowCenter": 2048, "WindowWidth": 4096}
    two = read_film(write_dicom(tmp_path / "2.dcm", DEEP, bits=12, **tags))
    one = read_film(
        write_dicom(tmp_path / "1.dcm", DEEP, bits=12, PhotometricInterpretation="MONOCHROME1", **tags)
    )
    assert np.allclose(one, 1 - two) and two[0, -1] > two[0, 0]


@pytest.mark.parametrize(
    "tags", [{}, {"WindowCenter": 50, "WindowWidth": 0}, {"WindowCenter": 9e6, "WindowWidth": 10}]
)
def test_dicom_without_a_usable_window_falls_to_percentiles(tmp_path, tags):
    film = read_film(write_dicom(tmp_path / "a.dcm", DEEP, bits=12, **tags))
    assert film[0, 0] == 0 and film[0, -1] == 1 and 0.4 < film[0, 32] < 0.6


def test_dicom_signed_8_bit_colour_padding_and_bare(tmp_path):
    signed = read_film(write_dicom(tmp_path / "s.dcm", DEEP.astype(np.int16) - 2000, bits=16))
    assert signed[0, 0] == 0 and signed[0, -1] == 1
    padded = DEEP.copy()
    padded[:, :20] = 65535
    film = read_film(write_dicom(tmp_path / "p.dcm", padded, PixelPaddingValue=65535))
    assert film[0, 63] > 0.99 and 0.4 < film[0, 42] < 0.6
    rgb = np.stack([RAMP] * 3, axis=-1)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    assert np.abs(read_film(write_dicom(tmp_path / "c.dcm", rgb, bits=8, **colour)) - RAMP / 255).max() < 0.01
    bare = write_dicom(tmp_path / "bare.dcm", DEEP, bits=12, preamble=False)
    assert read_film(bare)[0, -1] == 1
    assert probe_film(bare) == (48, 64)
    renamed = write_dicom(tmp_path / "no_extension", DEEP, bits=12)
    assert read_film(renamed).shape == (48, 64)


@pytest.mark.filterwarnings("ignore:End of file reached")
@pytest.mark.parametrize(
    "uid, encode",
    [
        ("1.2.840.10008.1.2.4.50", lambda a: imagecodecs.jpeg8_encode((a >> 4).astype(np.uint8), level=98)),
        ("1.2.840.10008.1.2.4.51", lambda a: imagecodecs.jpeg8_encode(a, bitspersample=12, level=98)),
        ("1.2.840.10008.1.2.4.57", lambda a: imagecodecs.jpeg8_encode(a, bitspersample=16, lossless=True)),
        ("1.2.840.10008.1.2.4.70", lambda a: imagecodecs.ljpeg_encode(a, bitspersample=12)),
        ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
        ("1.2.840.10008.1.2.4.90", lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", level=0)),
        ("1.2.840.10008.1.2.4.201", imagecodecs.htj2k_encode),
    ],
)
def test_dicom_compressed_films(tmp_path, uid, encode):
    kept = RAMP if uid.endswith(".50") else DEEP
    path = write_dicom(tmp_path / "a.dcm", kept, bits=12, syntax=uid, stream=encode(DEEP))
    film = read_film(path)
    check(film)
    assert np.abs(film - np.arange(64) / 63).max() < 0.02
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ImageError, match=r"a\.dcm"):
        read_film(path)


def test_dicom_signed_lossless_jpeg_keeps_its_sign(tmp_path):
    signed = DEEP.astype(np.int16) - 2000
    stream = imagecodecs.ljpeg_encode(signed.view(np.uint16) & 0xFFF, bitspersample=12)
    path = write_dicom(tmp_path / "a.dcm", signed, bits=12, syntax="1.2.840.10008.1.2.4.70", stream=stream)
    assert (np.diff(read_film(path)[0]) >= 0).all()


def test_dicom_refusals_name_file_and_fix(tmp_path):
    frames = write_dicom(
        tmp_path / "multi.dcm", np.stack([DEEP[:24], DEEP[24:]]), Rows=24, Columns=64, NumberOfFrames=2
    )
    with pytest.raises(ImageError, match=r"multi\.dcm.*2 frames"):
        read_film(frames)
    path = write_dicom(tmp_path / "empty.dcm", DEEP)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(ImageError, match=r"empty\.dcm.*PixelData"):
        read_film(path)
    mpeg = write_dicom(tmp_path / "mpeg.dcm", DEEP, syntax="1.2.840.10008.1.2.4.100", stream=b"\0" * 64)
    with pytest.raises(ImageError, match=r"mpeg\.dcm.*MPEG2.*decompress"):
        read_film(mpeg)
    short = write_dicom(tmp_path / "short.dcm", DEEP)
    short.write_bytes(short.read_bytes()[:-1000])
    with pytest.raises(ImageError, match=r"short\.dcm"):
        read_film(short)
    (tmp_path / "junk.dcm").write_bytes(b"this is a report, not a film\n" * 30)
    with pytest.raises(ImageError, match=r"junk\.dcm"):
        read_film(tmp_path / "junk.dcm")
    huge = write_dicom(tmp_path / "huge.dcm", DEEP, Rows=60000, Columns=60000)
    for read in (read_film, probe_film):
        with pytest.raises(ImageError, match=r"huge\.dcm.*limit"):
            read(huge)


# -------------------------------------------------------------------------------------------- broken files


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


def test_multi_frame_tiff_is_refused(tmp_path):
    page = Image.fromarray(RAMP)
    page.save(tmp_path / "a.tiff", save_all=True, append_images=[page])
    with pytest.raises(ImageError, match="2 frames"):
        read_film(tmp_path / "a.tiff")


def test_check_films_lists_every_bad_file_in_order(tmp_path, capsys):
    for i in range(6):
        Image.fromarray(RAMP).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    paths = [tmp_path / f"{i}.png" for i in (5, 4, 1, 0, 9, 2)]
    problems = check_films(paths, workers=3)
    assert [path.name for path, _ in problems] == ["1.png", "9.png"]
    assert "no such file" in problems[1][1]
    assert "checking films" in capsys.readouterr().err
    assert check_films([], progress=False) == []


def test_real_films(tmp_path):
    shared = Path(os.environ.get("MEDBRIDGE_SHARED", Path(__file__).parents[3] / "shared"))
    films = sorted((shared / "data" / "kermany-mini" / "images").glob("*.jpg"))[:24]
    if not films:
        pytest.skip("the real films are not here")
    assert check_films(films, progress=False) == []
    for path in films[:4]:
        film = read_film(path)
        assert film.shape == probe_film(path) and film.std() > 0.05

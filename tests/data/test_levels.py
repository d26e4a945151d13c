"""What DICOM values mean: layout, sign, rescale, window, padding, polarity, over every codec; read right or refused by name."""

from __future__ import annotations

import warnings

import imagecodecs
import numpy as np
import pydicom
import pytest
from film_files import CODECS, DEEP, RAMP, write_coded, write_dicom
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.pixels import apply_rescale, apply_voi_lut

from medbridge.data.images import read_film
from medbridge.errors import ImageError

SMOOTH = (2048 + 1500 * np.sin(np.add.outer(np.arange(48) / 9, np.arange(64) / 7))).astype(np.uint16)  # 12 bits, 548 to 3547
EVERY = pytest.mark.parametrize("syntax", CODECS)


def _same(film: np.ndarray, other: np.ndarray) -> bool:
    return np.abs(film - other).max() < 0.005


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return read_film(write_dicom(tmp_path_factory.mktemp("plain") / "a.dcm", SMOOTH, bits=12))


@EVERY
def test_bits_at_the_top_of_the_cell(tmp_path, syntax, plain):
    path = write_coded(tmp_path / "a.dcm", SMOOTH << 4, syntax, 16, BitsStored=12, HighBit=15)
    assert _same(read_film(path), plain)


@EVERY
@pytest.mark.parametrize("bit", [12, 13, 15])
def test_overlay_in_an_unused_bit(tmp_path, syntax, bit, plain):
    cells = SMOOTH | (np.arange(48) % 5 == 0).astype(np.uint16)[:, None] << bit
    overlay = {"BitsStored": 12, "HighBit": 11}
    dataset = pydicom.dcmread(write_coded(tmp_path / "a.dcm", cells, syntax, 16, **overlay))
    if bit > 12:  # with a bit between them it cannot be the film's own, header or not
        assert _same(read_film(tmp_path / "a.dcm"), plain)
    else:
        with pytest.raises(ImageError, match="contradict"):
            read_film(tmp_path / "a.dcm")
    dataset.add_new((0x6000, 0x0100), "US", 16)
    dataset.add_new((0x6000, 0x0102), "US", bit)
    dataset.save_as(tmp_path / "b.dcm")
    assert _same(read_film(tmp_path / "b.dcm"), plain)


@EVERY
def test_more_bits_than_the_header_says_are_refused_by_name(tmp_path, syntax):
    path = write_coded(tmp_path / "a.dcm", SMOOTH, syntax, 12, BitsStored=10, HighBit=9)
    with pytest.raises(ImageError, match=r"a\.dcm.*BitsStored 10.*contradict"):
        read_film(path)
    path = write_coded(tmp_path / "b.dcm", SMOOTH | 3, syntax, 16, BitsStored=12, HighBit=15)
    with pytest.raises(ImageError, match=r"b\.dcm.*HighBit 15.*contradict"):
        read_film(path)


@EVERY
def test_signed_values_with_and_without_their_sign_repeated(tmp_path, syntax, plain):
    signed = SMOOTH.astype(np.int16) - 2048
    tags = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1}
    assert _same(read_film(write_coded(tmp_path / "a.dcm", signed.view(np.uint16), syntax, 16, **tags)), plain)
    assert _same(read_film(write_coded(tmp_path / "b.dcm", signed.view(np.uint16) & 0xFFF, syntax, 12, **tags)), plain)
    if syntax.endswith(".4.90"):
        stream = imagecodecs.jpeg2k_encode(signed, level=0, codecformat="j2k", bitspersample=12)
        path = write_dicom(tmp_path / "c.dcm", signed, 12, syntax=syntax, stream=stream)
        assert _same(read_film(path), plain)
        write_dicom(path, signed, 12, syntax=syntax, stream=stream, PixelRepresentation=0)
        with pytest.raises(ImageError, match="contradict"):
            read_film(path)


@EVERY
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_colour_of_any_depth_is_one_picture(tmp_path, syntax, bits):
    if syntax.endswith((".70", ".201")):
        pytest.skip("no encoder of colour here")
    grey = np.rint(SMOOTH / 4095 * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    tags = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsStored": bits,
            "HighBit": bits - 1}
    path = write_coded(tmp_path / "a.dcm", np.stack([grey] * 3, -1), syntax, bits, **tags)
    assert np.abs(read_film(path) - SMOOTH / 4095).max() < 0.01
    if CODECS[syntax] is None:
        neutral = np.full_like(grey, 2 ** (bits - 1))
        path = write_coded(tmp_path / "b.dcm", np.stack([grey, neutral, neutral], -1), syntax, bits,
                           **tags | {"PhotometricInterpretation": "YBR_FULL"})
        assert np.abs(read_film(path) - SMOOTH / 4095).max() < 0.01


def test_colour_that_leaves_its_highest_bits_unused_is_no_black_film(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.stack([DEEP] * 3, -1), PhotometricInterpretation="RGB", SamplesPerPixel=3,
                       PlanarConfiguration=0)
    assert read_film(path).max() == 1


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422"])
def test_jpeg_colour_that_no_marker_explains_is_what_the_header_says(tmp_path, photometric):
    colour = np.stack([RAMP, RAMP[:, ::-1], RAMP // 2], -1)
    space = "RGB" if photometric == "RGB" else "YCBCR"
    stream = imagecodecs.jpeg8_encode(colour, level=98, colorspace="YCBCR", outcolorspace="YCBCR", subsampling="444")
    jfif = stream.index(b"\xff\xe0")
    stream = stream[:jfif] + stream[jfif + 2 + int.from_bytes(stream[jfif + 2 : jfif + 4], "big") :]
    film = read_film(write_dicom(tmp_path / "a.dcm", colour, bits=8, syntax="1.2.840.10008.1.2.4.50", stream=stream,
                                 PhotometricInterpretation=photometric, SamplesPerPixel=3, PlanarConfiguration=0))
    grey = colour @ [0.299, 0.587, 0.114] if space == "RGB" else colour[..., 0]
    assert np.abs(film - grey / 255).max() < 0.02


@EVERY
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("pad", "limit"), [(0, 0), (4095, 4095), (0, 30), (4095, 4000)])
def test_padding_is_background(tmp_path, syntax, photometric, pad, limit):
    cells = SMOOTH.copy()
    cells[:, :20] = limit
    cells[:, :10] = pad
    for window in ({}, {"WindowCenter": 2048, "WindowWidth": 4096}):
        tags = {"PhotometricInterpretation": photometric, **window}
        more = {"PixelPaddingValue": pad} | ({"PixelPaddingRangeLimit": limit} if limit != pad else {})
        film = read_film(write_coded(tmp_path / "a.dcm", cells, syntax, 12, **more, **tags))
        alone = read_film(write_coded(tmp_path / "b.dcm", np.ascontiguousarray(SMOOTH[:, 20:]), syntax, 12, **tags))
        assert (film[:, :20] == 0).all() and _same(film[:, 20:], alone)


def test_padding_beyond_the_stored_bits_and_nothing_but_padding(tmp_path, plain):
    signed = SMOOTH.astype(np.int16) - 2048
    signed[:5] = -30000
    for pad in (-30000, 35536):  # as a writer of the wrong VR has it
        dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", signed, 12))
        dataset.add_new("PixelPaddingValue", "SS" if pad < 0 else "US", pad)
        dataset.save_as(tmp_path / "a.dcm")
        film = read_film(tmp_path / "a.dcm")
        assert (film[:5] == 0).all() and np.abs(film[5:] - plain[5:]).max() < 0.03
    with pytest.raises(ImageError, match="every pixel is padding"):
        read_film(write_dicom(tmp_path / "b.dcm", SMOOTH, 12, PixelPaddingValue=0, PixelPaddingRangeLimit=4095))


@EVERY
@pytest.mark.parametrize("border", [None, 0, 65535])
def test_a_window_that_clips_nearly_all_is_not_used(tmp_path, syntax, border):
    cells = SMOOTH + np.uint16(12000)
    if border is not None:
        cells[:, :8] = border
    inner = SMOOTH[:, 8:].astype(float).ravel()
    for i, (center, width) in enumerate([(300, 50), (60000, 50), (12000, 1), (12000, 0), (-5000, 10)]):
        kind = ("LINEAR", "LINEAR_EXACT", "SIGMOID")[i % 3]
        tags = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": kind}
        film = read_film(write_coded(tmp_path / "a.dcm", cells, syntax, 16, **tags))[:, 8:]
        assert np.corrcoef(film.ravel(), inner)[0, 1] > 0.99 and np.ptp(film) > 0.9


def test_windows_that_show_nothing_and_the_next_that_does(tmp_path):
    windows = {"WindowCenter": [60000, 2048], "WindowWidth": [10, 4096]}
    one = read_film(write_dicom(tmp_path / "a.dcm", SMOOTH, 12, **windows))
    assert _same(one, np.clip((SMOOTH - 2047.5) / 4095 + 0.5, 0, 1))
    flat = read_film(write_dicom(tmp_path / "b.dcm", SMOOTH, 12, WindowCenter=500_000, WindowWidth=1_000_000))
    assert np.ptp(flat) > 0.9


@pytest.mark.parametrize("kind", ["uint16", "8 bits", "bytes", "one byte each"])
def test_luts_of_every_form(tmp_path, kind):
    """A table of 4,096 entries of 8 bits, which pydicom's own function indexes modulo 256."""
    entries = np.arange(4096) if kind in ("uint16", "bytes") else np.arange(4096) >> 4
    lut = pydicom.Dataset()
    lut.add_new("LUTDescriptor", "US", [4096, 0, 16 if kind in ("uint16", "bytes") else 8])
    data = {"bytes": lambda: entries.astype("<u2").tobytes(), "one byte each": lambda: entries.astype(np.uint8).tobytes()}
    lut.add_new("LUTData", "OW" if kind in data else "US", data[kind]() if kind in data else entries.tolist())
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", SMOOTH, 12))
        dataset.add_new(name, "SQ", [lut])
        dataset.save_as(tmp_path / f"{name}.dcm")
    assert np.abs(read_film(tmp_path / "VOILUTSequence.dcm") - SMOOTH / 4095).max() < 0.01
    assert np.corrcoef(read_film(tmp_path / "ModalityLUTSequence.dcm").ravel(), SMOOTH.ravel())[0, 1] > 0.999


@EVERY
def test_the_same_8_bits_are_the_same_film_in_png_and_dicom(tmp_path, syntax):
    grey = (SMOOTH >> 5).astype(np.uint8)  # 17 to 110: a dark film
    Image.fromarray(grey).save(tmp_path / "a.png")
    png = read_film(tmp_path / "a.png")
    for tags in ({}, {"RescaleSlope": 2, "RescaleIntercept": -100}, {"WindowCenter": 9e6, "WindowWidth": 10}):
        for kind, cells in (("MONOCHROME2", grey), ("MONOCHROME1", 255 - grey)):
            path = write_coded(tmp_path / "a.dcm", cells, syntax, 8, PhotometricInterpretation=kind, **tags)
            assert np.abs(read_film(path) - png).max() < 1e-6


def test_the_same_12_bits_are_the_same_film_in_png_tiff_and_dicom(tmp_path, plain):
    for suffix in ("png", "tiff"):
        Image.fromarray(SMOOTH).save(tmp_path / f"a.{suffix}")
        assert np.abs(read_film(tmp_path / f"a.{suffix}") - plain).max() < 1e-6


@pytest.mark.parametrize(
    "tags",
    [{"BitsStored": 17}, {"BitsStored": 0}, {"HighBit": 5}, {"HighBit": 16}, {"BitsAllocated": 12}, {"PixelRepresentation": 2},
     {"SamplesPerPixel": 3}, {"PhotometricInterpretation": "RGB"}, {"PhotometricInterpretation": "PALETTE COLOR"},
     {"PhotometricInterpretation": ""}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, {"Rows": 24}, {"Rows": 96},
     {"RescaleSlope": 0, "RescaleIntercept": 1}],
)
def test_headers_that_contradict_themselves_are_refused_by_name(tmp_path, tags):
    path = write_dicom(tmp_path / "a.dcm", SMOOTH, 12, **tags)
    with pytest.raises(ImageError, match=rf"a\.dcm.*({'|'.join(map(str, [*tags.values(), 'header']))})"):
        read_film(path)


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("little", [True, False])
def test_a_data_set_without_preamble_or_ending_is_judged_by_content(tmp_path, implicit, little, plain):
    if implicit and not little:
        pytest.skip("no such encoding")
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", SMOOTH if little else SMOOTH.byteswap(), 12))
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    del dataset.file_meta
    for name in ("IM0001", "film.png", "film.ima"):
        pydicom.dcmwrite(tmp_path / name, dataset, implicit_vr=implicit, little_endian=little)
        assert np.array_equal(read_film(tmp_path / name), plain)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_header_is_read_as_pydicom_reads_it_or_refused(tmp_path_factory, data):
    draw = data.draw
    syntax = draw(st.sampled_from(list(CODECS)))
    allocated = draw(st.sampled_from([8, 16, 32] if CODECS[syntax] is None else [8, 16]))
    stored = draw(st.integers(2, allocated))
    high = draw(st.integers(stored - 1, allocated - 1))
    signed = draw(st.booleans())
    low = -(2 ** (stored - 1)) if signed else 0
    wave = (np.sin(np.add.outer(np.arange(24) / 4, np.arange(20) / draw(st.integers(2, 6)))) + 1) / 2
    values = np.rint(low + wave * (2**stored - 1)).astype(np.int64)
    values[0, :2] = low, low + 2**stored - 1
    cells = ((values & (2**stored - 1)) << (high + 1 - stored)).astype(f"u{allocated // 8}")
    if draw(st.booleans()) and signed and high == stored - 1:
        cells = values.astype(f"i{allocated // 8}").view(cells.dtype)  # with the sign repeated
    tags = {"BitsStored": stored, "HighBit": high, "PixelRepresentation": int(signed),
            "PhotometricInterpretation": draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))}
    if draw(st.booleans()):
        slope, intercept = draw(st.sampled_from([1, 0.5, 3.25])), draw(st.sampled_from([0, -1024, 7.5]))
        tags |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
    window = draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", None]))
    ends = apply_rescale(np.array([low, low + 2**stored - 1]), _header(tags))
    if window:
        tags |= {"WindowCenter": float(f"{ends.mean():.8g}"), "VOILUTFunction": window,
                 "WindowWidth": float(f"{draw(st.sampled_from([0.4, 0.7, 1, 1.5])) * np.ptp(ends):.8g}")}
        assume(tags["WindowWidth"] > 20 * np.ptp(ends) / (2**stored - 1))  # of few values nearly all may be clipped
    pad = draw(st.sampled_from([None, low, low + 2**stored - 1]))
    assume(pad is None or pad in range(*((-(2**15), 2**15) if signed else (0, 2**16))))
    if pad is not None:
        cells[:3] = cells.flat[np.argmax(values == pad)]
        values[:3] = pad
    path = tmp_path_factory.mktemp("headers") / "a.dcm"
    write_coded(path, cells, syntax, allocated, **tags)
    dataset = pydicom.dcmread(path)
    if pad is not None:
        dataset.add_new("PixelPaddingValue", "SS" if signed else "US", pad)
        dataset.save_as(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        units = apply_rescale(values, dataset)
        if window:  # pydicom's range depends on half a dozen tags; the values at either end say which it is
            least, most = apply_voi_lut(np.array([-1e15, 1e15]), dataset)
            expected = (apply_voi_lut(units, dataset) - least) / (most - least)
        elif stored <= 8:
            expected = (units - ends[0]) / np.ptp(ends)
        else:
            least, most = np.percentile(units[values != pad], (0.5, 99.5))
            expected = np.clip((units - least) / (most - least), 0, 1)
    if tags["PhotometricInterpretation"] == "MONOCHROME1":
        expected = 1 - expected
    expected[values == pad] = 0
    assert np.abs(read_film(path) - expected).max() < 2e-3


def _header(tags: dict) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_header_gives_a_wrong_film_or_another_error(tmp_path_factory, data):
    """Fields that contradict each other and the pixels: a film that correlates with what was written, or ImageError."""
    draw = data.draw
    path = tmp_path_factory.mktemp("headers") / "a.dcm"
    syntax = draw(st.sampled_from(list(CODECS)))
    tags = {"BitsAllocated": draw(st.sampled_from([16, 16, 16, 8, 12, 32])), "BitsStored": draw(st.integers(8, 17)),
            "HighBit": draw(st.integers(5, 17)),
            "RescaleSlope": draw(st.sampled_from([1, 0, -1, 1e-9, 1e30])), "RescaleIntercept": 0,
            "WindowCenter": draw(st.sampled_from([0, 2000, -5, 1e6])),
            "WindowWidth": draw(st.sampled_from([0, 1, 500, 4000, 1e7]))}
    write_coded(path, SMOOTH, syntax, 16, **tags)
    try:
        film = read_film(path)
    except ImageError as error:
        assert str(path) in str(error)
    else:
        assert abs(np.corrcoef(film.ravel(), SMOOTH.ravel())[0, 1]) > 0.8
        assert (np.corrcoef(film.ravel(), SMOOTH.ravel())[0, 1] > 0) == (tags["RescaleSlope"] > 0)

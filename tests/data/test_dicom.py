"""DICOM: window, sign, colour, compressed films, and refusals that name file and fix."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pydicom
import pytest
from film_files import DEEP, RAMP, check_film, write_dicom

from medbridge.data.images import probe_film, read_film
from medbridge.errors import ImageError


def test_dicom_window_is_honoured(tmp_path):
    film = read_film(write_dicom(tmp_path / "a.dcm", DEEP, bits=12, WindowCenter=2048, WindowWidth=1024))
    check_film(film)
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
    check_film(film)
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

"""Films that tests write: two ramps and a DICOM file around any pixels."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from medbridge.data.images import read_film
from medbridge.errors import ImageError

RAMP = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))  # (48, 64), dark to bright
DEEP = np.tile(np.arange(64, dtype=np.uint16) * 64, (48, 1))  # 12-bit data


def write_dicom(path: Path, pixels: np.ndarray, bits: int = 16, preamble: bool = True, stream: bytes | None = None,
                syntax: str = ExplicitVRLittleEndian, **tags) -> Path:
    """A DICOM film of these stored values, or of a compressed ``stream``; ``tags`` overwrite what the pixels say."""
    dataset = pydicom.Dataset()
    stored = min(bits, 8 * pixels.itemsize)
    header = {"Rows": pixels.shape[0], "Columns": pixels.shape[1], "SamplesPerPixel": 1, "BitsAllocated": 8 * pixels.itemsize,
              "PhotometricInterpretation": "MONOCHROME2", "BitsStored": stored, "HighBit": stored - 1,
              "PixelRepresentation": int(pixels.dtype.kind == "i"), "PixelData": pixels.tobytes()}
    for name, value in (header | tags).items():
        setattr(dataset, name, value)
    dataset["PixelData"].VR = "OW"
    if stream is not None:
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
    if not preamble:
        dataset.save_as(path, implicit_vr=True, little_endian=True)
        return path
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(path, enforce_file_format=True)
    return path


def check_film(film: np.ndarray, shape=(48, 64)) -> None:
    assert film.dtype == np.float32 and film.shape == shape and film.flags.c_contiguous
    assert film.min() >= 0 and film.max() <= 1


def check_films(paths) -> list[tuple[Path, str]]:
    """``(path, message)`` of each film that cannot be decoded."""
    problems = []
    for path in paths:
        try:
            read_film(path)
        except ImageError as error:
            problems.append((path, str(error)))
    return problems


def _rle(cells: np.ndarray, bits: int) -> bytes:
    color = cells.ndim == 3
    return get_encoder(RLELossless).encode(
        np.ascontiguousarray(cells), rows=len(cells), columns=cells.shape[1], samples_per_pixel=3 if color else 1,
        bits_allocated=8 * cells.itemsize, bits_stored=8 * cells.itemsize, pixel_representation=0, number_of_frames=1,
        photometric_interpretation="RGB" if color else "MONOCHROME2", planar_configuration=0)


# transfer syntax -> lossless encoder of unsigned cells and their bits; None: uncompressed
CODECS = {
    "1.2.840.10008.1.2.1": None,
    "1.2.840.10008.1.2": None,
    "1.2.840.10008.1.2.2": None,
    "1.2.840.10008.1.2.1.99": None,
    RLELossless: _rle,
    "1.2.840.10008.1.2.4.57": lambda cells, bits: imagecodecs.jpeg8_encode(cells, bitspersample=bits, lossless=True),
    "1.2.840.10008.1.2.4.70": lambda cells, bits: imagecodecs.ljpeg_encode(cells, bitspersample=bits),
    "1.2.840.10008.1.2.4.80": lambda cells, bits: imagecodecs.jpegls_encode(cells),
    "1.2.840.10008.1.2.4.90": lambda cells, bits: imagecodecs.jpeg2k_encode(cells, 0, codecformat="j2k", bitspersample=bits),
    "1.2.840.10008.1.2.4.201": lambda cells, bits: imagecodecs.htj2k_encode(cells),
}


def write_coded(path: Path, cells: np.ndarray, syntax: str, bits: int, **tags) -> Path:
    """A DICOM film of these unsigned cells, of which ``bits`` bits are used, in any of the CODECS."""
    if CODECS[syntax] is None:
        words = np.frombuffer(cells.tobytes(), f"u{max(2, cells.itemsize)}")  # bytes are stored as words here
        swapped = np.frombuffer(words.byteswap(), cells.dtype).reshape(cells.shape) if syntax.endswith(".1.2.2") else cells
        return write_dicom(path, swapped, bits, syntax=syntax, **tags)
    return write_dicom(path, cells, bits, syntax=syntax, stream=CODECS[syntax](cells, bits), **tags)

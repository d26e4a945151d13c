"""Films that tests write: two ramps and a DICOM file around any pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian

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

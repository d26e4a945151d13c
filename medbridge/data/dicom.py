"""DICOM films: modality LUT or rescale, the file's own window, MONOCHROME1 inverted, compressed syntaxes. [ours]"""

import zlib
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder

from medbridge.data.pixels import check_size, decode_jpeg, luma, scale
from medbridge.errors import ImageError

# Compressed DICOM that pydicom decodes only with further plugins (one of them GPL); imagecodecs (BSD) reads them.
_JPEG_SYNTAXES = {f"1.2.840.10008.1.2.4.{n}" for n in (51, 57, 70, 80, 81)}  # 12-bit, lossless, JPEG-LS
_HTJ2K_SYNTAXES = {f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)}
MAX_DEFLATED = 2**30  # bytes that a deflated DICOM may unpack to: beyond the largest film in any bit depth


def _check_deflated(path: Path) -> None:
    """pydicom unpacks a deflated file whole, whatever comes of it; count first."""
    with open(path, "rb") as file:
        meta = {}
        with suppress(Exception):  # no DICOM file: reading it says why
            pydicom.filereader.read_preamble(file, force=True)
            meta = pydicom.filereader._read_file_meta_info(file)
        if meta.get("TransferSyntaxUID") != pydicom.uid.DeflatedExplicitVRLittleEndian:
            return
        unpacker, count, data = zlib.decompressobj(-zlib.MAX_WBITS), 0, file.read(2**16)
        while data and not unpacker.eof:
            count += len(unpacker.decompress(data, 2**20))
            if count > MAX_DEFLATED:
                raise ImageError(f"{path}: unpacks to more than {MAX_DEFLATED:,} bytes, which guards against files that unpack "
                                 f"without end; export the film again")
            data = unpacker.unconsumed_tail or file.read(2**16)


def open_dicom(path: Path, header_only: bool = False) -> pydicom.Dataset:
    _check_deflated(path)
    dataset = pydicom.dcmread(path, force=path.suffix.lower() in (".dcm", ".dicom"), stop_before_pixels=header_only)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise ImageError(f"{path}: holds no image (no Rows and Columns): cut short while copied, or no DICOM film at all; copy "
                         "it again, or give the film's own file")
    return dataset


def dicom_size(dataset: pydicom.Dataset, path: Path) -> tuple[int, int]:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(f"{path}: holds {frames} frames; MedBridge reads single films, export one frame as its own file")
    return int(dataset.Rows), int(dataset.Columns)


def _dicom_pixels(dataset: pydicom.Dataset, path: Path) -> np.ndarray:
    """(H, W) stored values, or (H, W, 3) colour."""
    if not dataset.file_meta.get("TransferSyntaxUID"):  # a bare dataset, without the file header
        implicit, little = dataset.original_encoding
        by_order = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if little and implicit else by_order
    syntax, readable = dataset.file_meta.TransferSyntaxUID, False
    if syntax not in _JPEG_SYNTAXES | _HTJ2K_SYNTAXES:
        with suppress(NotImplementedError):
            readable = get_decoder(syntax).is_available
        if readable:
            return dataset.pixel_array
        raise ImageError(f"{path}: no decoder for transfer syntax {syntax.name}; decompress the file first (e.g. `gdcmconv "
                         "--raw`), or install one of pydicom's decoder plugins that reads it")
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax in _HTJ2K_SYNTAXES:
        siz = stream.find(b"\xff\x51")  # marker, length, capabilities, then width and height
        width, height = (int.from_bytes(stream[siz + i : siz + i + 4], "big") for i in (6, 10))
        check_size(path, height, width)
        pixels = imagecodecs.jpeg2k_decode(stream)
    else:
        pixels = decode_jpeg(stream, path)
    if dataset.PixelRepresentation == 1 and pixels.dtype.kind == "u":  # JPEG carries bare bits: the sign is the highest one
        shift = 8 * pixels.itemsize - dataset.BitsStored
        pixels = (pixels << shift).view(f"i{pixels.itemsize}") >> shift
    return pixels


def read_dicom(path: Path) -> np.ndarray:
    dataset = open_dicom(path)
    size = dicom_size(dataset, path)
    check_size(path, *size)
    if not dataset.get("PixelData"):
        raise ImageError(f"{path}: a DICOM file without PixelData (a report, or a header alone); give the film itself")
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    if photometric == "PALETTE COLOR":
        raise ImageError(f"{path}: a palette-colour DICOM is no radiograph; export it as MONOCHROME2")
    pixels = _dicom_pixels(dataset, path)
    if pixels.shape[:2] != size:
        raise ImageError(f"{path}: the pixels are {pixels.shape}, the header says {size}; export the file again")
    if pixels.ndim == 3:
        return (luma(pixels) / np.iinfo(pixels.dtype).max).astype(np.float32)
    film = _windowed(pixels, dataset, path)
    return 1 - film if photometric == "MONOCHROME1" else film


def _windowed(pixels: np.ndarray, dataset: pydicom.Dataset, path: Path) -> np.ndarray:
    """Stored values -> [0, 1] by the file's own VOI LUT or window, or by percentiles where it has none that shows anything."""
    values = apply_modality_lut(pixels, dataset)
    table, window = dataset.get("VOILUTSequence"), (dataset.get("WindowCenter"), dataset.get("WindowWidth"))
    if table or None not in window:
        try:
            ends, shown = np.array([-(2**31), 2**31]), values
            if table:  # indexed by whole values, which pydicom lets wrap round beyond the table's ends
                entries, first = table[0].LUTDescriptor[:2]
                ends = np.array([first, first + (entries or 2**16) - 1])
                shown = np.clip(np.rint(values), *ends).astype(np.int64)
            # pydicom's output range depends on half a dozen tags; the values at either end say which it is.
            with np.errstate(over="ignore"):
                low, high = sorted(float(v) for v in apply_voi_lut(ends, dataset))
            shown = np.asarray(apply_voi_lut(shown, dataset), dtype=np.float64)
            if high > low and shown.max() > shown.min():
                return np.clip((shown - low) / (high - low), 0, 1).astype(np.float32)
        except (ValueError, TypeError, AttributeError, IndexError, KeyError, NotImplementedError):
            pass  # a window of zero width, a LUT without data: viewers fall back as well
    padding = dataset.get("PixelPaddingValue")
    return scale(values, path, None if padding is None else pixels != padding)

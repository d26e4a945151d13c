"""DICOM films: one file -> the values that its decoder gives, of every transfer syntax; what they mean: :mod:`.levels`."""

import zlib
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

from medbridge.data.levels import check_layout, film_of
from medbridge.data.pixels import check_holes, check_size, decode_jpeg, jpeg_header
from medbridge.errors import ImageError

MAX_DEFLATED = 2**30  # bytes that a deflated DICOM may unpack to: beyond the largest film in any bit depth


def _check_deflated(path: Path) -> None:
    """pydicom unpacks a deflated file whole, whatever comes of it; count first."""
    with open(path, "rb") as file:
        meta = {}
        with suppress(Exception):  # no DICOM file: reading it says why
            pydicom.filereader.read_preamble(file, force=True)
            meta = pydicom.filereader._read_file_meta_info(file)
        if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
            return
        unpacker, count, data = zlib.decompressobj(-zlib.MAX_WBITS), 0, file.read(2**16)
        while data and not unpacker.eof:
            count += len(unpacker.decompress(data, 2**20))
            if count > MAX_DEFLATED:
                raise ImageError(f"{path}: unpacks to more than {MAX_DEFLATED:,} bytes, and maybe without end; export it again")
            data = unpacker.unconsumed_tail or file.read(2**16)
        if not unpacker.eof:
            raise ImageError(f"{path}: a truncated DICOM (its deflated data have no end); copy or export the file again")


def open_dicom(path: Path, header_only: bool = False) -> pydicom.Dataset:
    _check_deflated(path)
    dataset = pydicom.dcmread(path, force=True, stop_before_pixels=header_only)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise ImageError(f"{path}: holds no image (no Rows and Columns): cut short while copied, or no DICOM film; copy it again")
    return dataset


def dicom_size(dataset: pydicom.Dataset, path: Path) -> tuple[int, int]:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(f"{path}: holds {frames} frames; MedBridge reads single films, export one frame as its own file")
    return int(dataset.Rows), int(dataset.Columns)


def read_dicom(path: Path) -> np.ndarray:
    dataset = open_dicom(path)
    size = dicom_size(dataset, path)
    check_size(path, *size)
    if not dataset.get("PixelData"):
        raise ImageError(f"{path}: a DICOM file without PixelData (a report, or a header alone); give the film itself")
    if not dataset.file_meta.get("TransferSyntaxUID"):  # a bare dataset, without the file header
        little = {(True, True): uid.ImplicitVRLittleEndian, (False, True): uid.ExplicitVRLittleEndian}
        dataset.file_meta.TransferSyntaxUID = little.get(dataset.original_encoding, uid.ExplicitVRBigEndian)
    check_layout(dataset, path)
    pixels, precision = _decode(dataset, path)
    if pixels.shape not in (size, (*size, dataset.SamplesPerPixel)):
        raise ImageError(f"{path}: pixels {pixels.shape}, the header says {size} x {dataset.SamplesPerPixel}; export it again")
    if pixels.shape[2:] == (1,) or (pixels.ndim == 3 and dataset.PhotometricInterpretation.startswith("YBR_FULL")):
        pixels = pixels[..., 0]  # Y is the luma
    return film_of(np.ascontiguousarray(pixels), precision, dataset, path)


def _decode(dataset: pydicom.Dataset, path: Path) -> tuple[np.ndarray, int]:
    """(H, W) or (H, W, samples) as decoded, signed only where a JPEG 2000 stream is; and how many bits its samples have."""
    syntax, allocated, samples = dataset.file_meta.TransferSyntaxUID, dataset.BitsAllocated, dataset.SamplesPerPixel
    if syntax in uid.UncompressedTransferSyntaxes:
        needed = -(-dataset.Rows * dataset.Columns * samples * allocated // 8)
        needed = needed * 2 // 3 if dataset.PhotometricInterpretation == "YBR_FULL_422" else needed
        if not 0 <= (more := len(dataset.PixelData) - needed) < max(4, needed // dataset.Rows):  # some writers pad the end
            raise ImageError(f"{path}: the header says {needed:,} bytes of pixels, there are {needed + more:,}: cut short while "
                             "copied, or a header that contradicts them; export the film again")
        pixels = get_decoder(syntax).as_array(dataset, index=0, raw=True, validate=False, correct_unused_bits=False)[0]
        return pixels.astype(pixels.dtype.newbyteorder("=")).view(f"u{pixels.itemsize}"), allocated
    # imagecodecs (BSD) is faster than pydicom, some of whose plugins are GPL
    of_jpeg = syntax in uid.JPEGTransferSyntaxes + uid.JPEGLSTransferSyntaxes
    if not of_jpeg and syntax not in uid.RLETransferSyntaxes + uid.JPEG2000TransferSyntaxes:
        raise ImageError(f"{path}: no decoder for transfer syntax {syntax.name}; decompress it first (e.g. `gdcmconv --raw`)")
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if of_jpeg:
        return decode_jpeg(stream, path, dataset.PhotometricInterpretation == "RGB"), jpeg_header(stream, path)[1]
    if syntax == uid.RLELossless:
        planes = imagecodecs.dicomrle_decode(stream, cell := np.dtype(f"<u{-(-allocated // 8)}"))
        return np.moveaxis(np.frombuffer(planes, cell).reshape(samples, dataset.Rows, dataset.Columns), 0, -1), allocated
    siz = stream.find(b"\xff\x51")  # marker, length, capabilities, then width and height; the bits of a sample at 40
    check_size(path, *(int.from_bytes(stream[siz + i : siz + i + 4], "big") for i in (10, 6)))
    check_holes(stream if stream.rstrip(b"\0").endswith(b"\xff\xd9") else bytes(512), path)
    return imagecodecs.jpeg2k_decode(stream), (stream[siz + 40] & 0x7F) + 1

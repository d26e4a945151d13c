"""From a decoder's pixels to a film in [0, 1]: size, luma, intensity scale; whether PNG and JPEG are whole."""

import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg

from medbridge.errors import ImageError

MAX_PIXELS = 80_000_000  # of a film that is decoded: five times a large detector, and below Pillow's own bomb limit
MAX_SCANS = 200  # of a progressive JPEG (encoders write about ten): each one passes over the whole film again
COMMON_JPEG = ((0xC0, 8), (0xC1, 8), (0xC2, 8))  # SOF marker and bits that Pillow reads: baseline, extended and progressive


def check_size(path: Path, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{path}: the header says {height} x {width} pixels; the file is damaged, export it again")
    if height * width > MAX_PIXELS:
        raise ImageError(f"{path}: {height} x {width} pixels is beyond the limit of {MAX_PIXELS:,}, which guards against files "
                         "that unpack without end; shrink the film first")


def luma(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 1 to 4) -> float (H, W): ITU-R 601 luma as Pillow's 'L', transparency over black."""
    if pixels.ndim == 2:
        return pixels
    channels = pixels.shape[-1]
    grey = pixels[..., :3] @ np.array([0.299, 0.587, 0.114]) if channels >= 3 else pixels[..., 0].astype(np.float64)
    return grey * (pixels[..., -1] / np.iinfo(pixels.dtype).max) if channels in (2, 4) else grey


def limits(sample: np.ndarray, ends: tuple[float, float]) -> tuple[float, float]:
    """The values that become 0 and 1 beyond 8 bits: the 0.5th and 99.5th percentile of a sample; equal for a constant film.
    Of the ``ends``, lowest and highest value, one that is farther from all others than those are apart is a border."""
    low, high = np.percentile(sample, (0.5, 99.5))
    for end in ends:
        if end in (low, high) and (rest := sample[sample != end]).size:
            inner = np.percentile(rest, (0.5, 99.5))
            if np.abs(inner - end).min() > inner[1] - inner[0] > 0:
                (low, high), sample = inner, rest
    return (low, high) if high > low else ends  # nearly constant: a few bright pixels are all that the film holds


def scale(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Beyond 8 bits: :func:`limits` become 0 and 1, float32; a constant film becomes zeros."""
    pixels = pixels.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise ImageError(f"{path}: holds NaN or infinite pixels; export it again as integers")
    low, high = limits(pixels.reshape(-1)[:: max(1, pixels.size // 1_000_000)], (float(pixels.min()), float(pixels.max())))
    return np.clip((pixels - np.float32(low)) / np.float32(high - low), 0, 1) if high > low else np.zeros_like(pixels)


def check_holes(data: bytes, path: Path) -> None:
    """ImageError where zeros stand in the place of JPEG 2000 data, which its decoder cannot see and no encoder writes."""
    if bytes(512) in data:
        raise ImageError(f"{path}: a damaged JPEG 2000 (zeros instead of data); copy or export the file again")


def check_png(data: bytes, path: Path) -> None:
    """ImageError unless every chunk of a PNG has its checksum and the last one is there: Pillow stops looking at the last row."""
    at = 8
    while (end := at + 12 + int.from_bytes(data[at : at + 4], "big")) <= len(data):
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError(f"{path}: damaged or truncated (PNG checksum at byte {at:,}); copy or export the file again")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end
    raise ImageError(f"{path}: damaged or truncated (no end of the PNG); copy or export the file again")


def jpeg_header(data: bytes, path: Path) -> tuple[int, int, int, int, int]:
    """``(SOF marker, bits, H, W, offset of the scan)`` of a JPEG or JPEG-LS stream."""
    at, frame = 2, None
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            frame = (marker, data[at + 4], *(int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7)))
        if marker == 0xDA and frame:
            # 0xFF in the data of a scan is followed by 0, so that its marker cannot be data
            if (scans := data.count(b"\xff\xda", at)) > MAX_SCANS:
                raise ImageError(f"{path}: a JPEG of {scans} scans, which would be decoded without end; export it again")
            return (*frame, at)
        at += 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
    raise ImageError(f"{path}: a JPEG that ends before its first scan; copy or export the file again")


def decode_jpeg(data: bytes, path: Path, rgb: bool = False) -> np.ndarray:
    """A JPEG or JPEG-LS stream -> (H, W), or (H, W, 3) of lossless colour, in stored units; ``rgb``: its container says RGB."""
    marker, bits, height, width, scan = jpeg_header(data, path)
    check_size(path, height, width)
    if (end := data.find(b"\xff\xd9", scan)) < 0:  # decoders fill what is missing with grey
        raise ImageError(f"{path}: a truncated JPEG (no end marker); copy or export the file again")
    if marker == 0xF7:
        return imagecodecs.jpegls_decode(data)
    if (marker, bits) in COMMON_JPEG:
        grey = simplejpeg.decode_jpeg(data, "GRAY")[..., 0]  # its warnings are errors
        # libjpeg takes colour that no marker explains for YCbCr
        plain = rgb and b"JFIF\0" not in data[:scan] and b"Adobe" not in data[:scan]
        return luma(imagecodecs.jpeg8_decode(data, colorspace="RGB", outcolorspace="RGB")) if plain else grey
    pixels, data = imagecodecs.jpeg_decode(data), data[:end].rstrip(b"\xff")
    # This decoder says nothing of missing or left-over data. Other bytes at the end must change the last pixels, and no others.
    size = next(n for n in range(2, len(data)) if data[-n - 1] != 0xFF)  # not between 0xFF and the 0 that follows it
    other = bytes(0x5A if byte != 0x5A else 0x25 for byte in data[-size:])
    changed = np.argwhere(pixels != imagecodecs.jpeg_decode(data[:-size] + other + b"\xff\xd9"))[:, :2]
    unit = 1 if marker == 0xC3 else 8  # lossless, or blocks
    rows, columns = -(-height // unit), -(-width // unit)
    if not len(changed) or (changed // unit @ [columns, 1]).min() < rows * columns - 8 * size - 2:
        raise ImageError(f"{path}: a damaged JPEG (its data do not end where the film does); copy or export the file again")
    return pixels

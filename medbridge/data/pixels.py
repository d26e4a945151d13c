"""From stored values to a film in [0, 1]: size limit, luma, intensity scale, and JPEG of any depth. [ours]"""

from pathlib import Path

import imagecodecs
import numpy as np

from medbridge.errors import ImageError

MAX_PIXELS = 80_000_000  # of a film that is decoded: five times a large detector, and below Pillow's own bomb limit
MAX_SCANS = 200  # of a progressive JPEG (encoders write about ten): each one passes over the whole film again


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


def scale(pixels: np.ndarray, path: Path, counted: np.ndarray | None = None) -> np.ndarray:
    """Beyond 8 bits: the 0.5th to 99.5th percentile of the ``counted`` pixels becomes 0 to 1; a constant film becomes zeros."""
    pixels = pixels.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise ImageError(f"{path}: holds NaN or infinite pixels; export it again as integers")
    sample = pixels if counted is None or not counted.any() else pixels[counted]
    low, high = np.percentile(sample.reshape(-1)[:: max(1, sample.size // 1_000_000)], (0.5, 99.5))
    if high <= low:  # nearly constant: a few bright pixels are all that the film holds
        low, high = float(sample.min()), float(sample.max())
    return np.clip((pixels - np.float32(low)) / np.float32(high - low), 0, 1) if high > low else np.zeros_like(pixels)


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


def decode_jpeg(data: bytes, path: Path) -> np.ndarray:
    """A JPEG beyond what Pillow reads (12-bit, 16-bit, lossless, JPEG-LS) -> (H, W) in stored units."""
    marker, _, height, width, scan = jpeg_header(data, path)
    check_size(path, height, width)
    # The decoder fills what is missing with grey and says nothing; a whole stream ends with the EOI marker.
    if data.find(b"\xff\xd9", scan) < 0:
        raise ImageError(f"{path}: a truncated JPEG (no end marker); copy or export the file again")
    return luma(imagecodecs.jpegls_decode(data) if marker == 0xF7 else imagecodecs.jpeg_decode(data))

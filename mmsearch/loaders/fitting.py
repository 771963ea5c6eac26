"""From an open picture to the pixels an encoder wants: resized, upright, RGB, on white."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmsearch.records import ImageInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Pixels

# Pillow first shrinks by whole steps to this many times the wanted size, then filters;
# its documentation calls 3.0 indistinguishable from filtering all of it.
_REDUCING_GAP = 3.0
# EXIF orientation → what makes the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RUNS_BACKWARDS = ((2, 3, 7, 8), (3, 4, 6, 7))  # orientations with x, with y, reversed


def resampling(want: ImageInput) -> Image.Resampling:
    """Pillow's filter for this. Raises KeyError for a name that it does not have."""
    return Image.Resampling[want.resample.upper()]


def orientation(exif: bytes | None) -> int:
    """The EXIF orientation, 1 to 8; 1 when there is none or it makes no sense.

    Read here because all that is wanted is this one number, and a full parse of hostile
    EXIF costs more than the decode of a small picture.
    """
    if not exif:
        return 1
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order:
            (at,) = struct.unpack_from(order + "I", exif, 4)
            (entries,) = struct.unpack_from(order + "H", exif, at)
            for entry in range(at + 2, at + 2 + 12 * entries, 12):
                tag, kind = struct.unpack_from(order + "HH", exif, entry)
                if tag == 0x0112:
                    code = {3: "H", 4: "I"}[kind]
                    value: int = struct.unpack_from(order + code, exif, entry + 8)[0]
                    return value if 1 <= value <= 8 else 1
    except (struct.error, KeyError):
        pass
    return 1


def fit(
    picture: Image.Image, want: ImageInput, orientation: int, full: tuple[int, int], shrink: float
) -> Pixels:
    """Resize, then turn, then put on white: each step works on as little as it can.

    `picture` is the `full` one decoded `shrink` times smaller; its last row and column
    may be only partly filled, hence boxes in fractions of a pixel.
    """
    picture = _plain(picture)
    size = _padded(full, want.size) if want.fit == "pad" else (want.size, want.size)
    if picture.size != size:
        crop = want.fit == "crop"
        x0, y0, x1, y1 = _centre(full, want.size, orientation) if crop else (0, 0, *full)
        box = (x0 / shrink, y0 / shrink, x1 / shrink, y1 / shrink)
        gap = None if want.exact else _REDUCING_GAP
        picture = picture.resize(size, resampling(want), box, reducing_gap=gap)
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])
    if picture.mode == "RGBa":  # colours are premultiplied: on white is an addition
        array = np.asarray(picture)
        on_white = array[:, :, :3].astype(np.uint16) + (255 - array[:, :, 3:])
        opaque: Pixels = np.minimum(on_white, 255).astype(np.uint8)
        return _on_square(opaque, want)
    return _on_square(np.array(picture.convert("RGB")), want)


def _padded(size: tuple[int, int], wanted: int) -> tuple[int, int]:
    """The size with its longer side as wanted, the other rounded, at least a pixel."""
    longer = max(size)
    width, height = (max(round(side * wanted / longer), 1) for side in size)
    return width, height


def _on_square(pixels: Pixels, want: ImageInput) -> Pixels:
    """These pixels, or, of a picture that is to be padded, in the middle of a square."""
    height, width = pixels.shape[:2]
    if (height, width) == (want.size, want.size):
        return pixels
    square = np.full((want.size, want.size, 3), want.fill, np.uint8)
    top, left = (want.size - height) // 2, (want.size - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _centre(
    size: tuple[int, int], wanted: int, orientation: int
) -> tuple[float, float, float, float]:
    """The square of the stored picture that a resize of the shorter side, then a centred
    crop, would keep. The crop is rounded to whole pixels as torchvision does, seen upright.
    """
    short = min(size)
    box = []
    for length, backwards in zip(size, _RUNS_BACKWARDS, strict=True):
        resized = wanted * length // short
        left = round((resized - wanted) / 2)
        if orientation in backwards:
            left = resized - wanted - left
        box.append((left * length / resized, min((left + wanted) * length / resized, length)))
    (x0, x1), (y0, y1) = box
    return x0, y0, x1, y1


def _plain(picture: Image.Image) -> Image.Image:
    """The same picture in mode L, RGB, or RGBa (premultiplied) when it has transparency."""
    mode = picture.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _narrowed(picture)
    if picture.has_transparency_data:
        return picture.convert("RGBA").convert("RGBa")
    if mode in ("L", "RGB"):
        return picture
    return picture.convert("L" if mode == "1" else "RGB")


def _narrowed(picture: Image.Image) -> Image.Image:
    """Wide greyscale in 8 bits, scaled and never wrapped. The rule:

    16-bit files: 65535 is white. 32-bit files do not say what white is: values below 0
    or beyond 65535 are stretched from the lowest to the highest; else white is 1 when
    nothing exceeds 16 (floats only, highlights are clipped), 255 or 65535, the first
    that nothing exceeds. What is not a number, or infinite, is black.
    """
    values: NDArray[Any] = np.asarray(picture)
    low, white = 0.0, 65535.0
    if picture.mode in ("I", "F"):
        finite = np.isfinite(values)
        low = min(float(values.min(initial=0, where=finite)), 0.0)
        highest = float(values.max(initial=0, where=finite))
        if low < 0 or highest > 65535:
            white = highest if highest > low else low + 1
        elif highest <= 16 and picture.mode == "F":
            white = 1.0
        elif highest <= 255:
            white = 255.0
    grey = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), 256):  # in blocks: the copies are four bytes a pixel
        block = (values[row : row + 256].astype(np.float32) - low) * (255 / (white - low))
        block = np.nan_to_num(block, copy=False, nan=0, posinf=0, neginf=0)
        grey[row : row + 256] = (block.clip(0, 255) + 0.5).astype(np.uint8)
    return Image.fromarray(grey)

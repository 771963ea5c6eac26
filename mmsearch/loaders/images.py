"""One picture file in, upright RGB pixels of the wanted size out, or one LoadError.

Every byte is treated as hostile. The content alone decides the format, the header is
held against the pixel budget before anything is decoded, only the first frame is ever
decoded, and a file whose picture ends early is refused rather than half shown.
Indexing runs this in worker processes that may be killed; a query picture is loaded
in-process by the same code.

No colour profile is applied: an ICC profile is a parser's attack surface, and between
the usual RGB spaces the difference is far below what an encoder notices.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from mmsearch.errors import LoadError
from mmsearch.loaders import fitting, jpeg, png, tiff
from mmsearch.loaders.formats import plugin, sniff
from mmsearch.records import ImageInput, Reason

if TYPE_CHECKING:
    from mmsearch.records import Pixels


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A picture as an encoder wants it; `width` and `height` are the original's, upright."""

    pixels: Pixels  # (size, size, 3), C-contiguous
    format: str
    width: int
    height: int


def load_image(data: bytes | BinaryIO, want: ImageInput, *, max_megapixels: float) -> LoadedImage:
    """Decode the first picture of a file to what `want` asks for.

    The budget counts the pixels that will be decoded: for a JPEG of a single scan those
    of the scaled decode, else the full size. Raises LoadError, and nothing else, for
    whatever is wrong with the file.
    """
    fitting.resampling(want)  # a wrong name is the caller's mistake, not the file's
    content, name = b"", None
    try:
        content = data if isinstance(data, bytes) else data.read()
        name = sniff(content[:64])
        if not content:
            raise LoadError(Reason.EMPTY, "the file has no bytes")
        if name is None:
            raise LoadError(Reason.TYPE_MISMATCH, "not a picture of a supported format")
        with warnings.catch_warnings():  # Pillow warns of what we refuse or do not use
            warnings.simplefilter("ignore")
            return _load(content, name, want, max_megapixels * 1e6)
    except LoadError:
        raise
    except Exception as error:
        raise _translated(error, name, content) from error


def to_pixels(picture: Image.Image, want: ImageInput) -> Pixels:
    """An open picture as `want` asks for it: upright, RGB, on white. Raises LoadError."""
    fitting.resampling(want)
    try:
        picture.load()
        orientation = fitting.orientation(picture.info.get("exif"))
        return fitting.fit(picture, want, orientation, picture.size, 1.0)
    except Exception as error:
        raise _translated(error, None, b"") from error


def _load(content: bytes, name: str, want: ImageInput, budget: float) -> LoadedImage:
    if name == "PNG":
        content = png.essentials(content)
    elif name == "WEBP":
        # Its decoder allocates the canvas when it is made, so look first.
        _check_budget(_webp_size(content), budget)
    picture = plugin(name)(io.BytesIO(content))
    width, height = picture.size
    scans, shrink = 0, 1.0
    if name == "JPEG":
        scans = picture.fp.tell()  # where the compressed data begins
        counted, shrink = jpeg.draft(picture, want, content)
        _check_budget(counted, budget)
    else:
        _check_budget(picture.size, budget)
    if name == "TIFF":
        tiff.check_strips(picture)
    picture.load()
    if name == "JPEG":
        jpeg.check_tail(picture, want, content, scans)
    elif name == "PNG":
        png.check_length(picture, content)
    elif name in ("TIFF", "HEIF"):
        width, height = picture.size  # their plugins turn the picture upright themselves
    orientation = fitting.orientation(picture.info.get("exif"))
    pixels = fitting.fit(picture, want, orientation, (width, height), shrink)
    if orientation > 4:  # a quarter turn
        width, height = height, width
    return LoadedImage(pixels, name, width, height)


def _check_budget(size: tuple[int, int], budget: float) -> None:
    pixels = size[0] * size[1]
    if pixels > budget:
        raise LoadError(
            Reason.OVER_BUDGET,
            f"{size[0]} x {size[1]} = {pixels / 1e6:,.1f} megapixels to decode, over the "
            f"limit of {budget / 1e6:,g}; raise it with --max-megapixels",
        )


def _webp_size(head: bytes) -> tuple[int, int]:
    """Width and height from the first chunk of a WebP."""
    kind = head[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(head) >= 30:
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    raise ValueError("not the header of a WebP")


def _translated(error: Exception, name: str | None, content: bytes) -> LoadError:
    """Whatever a decoder raised, as the LoadError it comes down to."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in said:
        return LoadError(Reason.OUT_OF_MEMORY, "not enough memory to decode the picture")
    if isinstance(error, Image.DecompressionBombError):
        return LoadError(Reason.OVER_BUDGET, f"{said}; this limit is Pillow's own")
    if isinstance(error, OSError) and error.errno and not content:
        return LoadError(Reason.UNREADABLE, said)
    if "truncated" in said.lower() or _ends_early(name, content):
        return LoadError(Reason.TRUNCATED, f"the file ends early: {said.partition(' (')[0]}")
    if said == "unknown pixel mode" or said.startswith("cannot handle 12-bit"):
        return LoadError(Reason.UNSUPPORTED, f"a {name} variant that Pillow cannot read: {said}")
    if said == "not identified by this driver":
        said = "its header makes no sense, or gives a width or height of 0"
    return LoadError(Reason.CORRUPT, f"cannot decode this {name or 'picture'}: {said}")


def _ends_early(name: str | None, content: bytes) -> bool:
    """True when a file that failed to decode is shorter than it says itself."""
    size = len(content)
    if name == "JPEG":
        return jpeg.END not in content[-4096:]
    if name == "GIF":
        return not content.rstrip(b"\0").endswith(b";")
    if name == "BMP":
        return int.from_bytes(content[2:6], "little") > size
    if name == "WEBP":
        return int.from_bytes(content[4:8], "little") + 8 > size
    if name == "TIFF":
        return tiff.reach(content) > size
    at = 0
    while name in ("AVIF", "HEIF") and at < size:  # boxes, end to end
        length = int.from_bytes(content[at : at + 4], "big")
        if length == 1:
            length = int.from_bytes(content[at + 8 : at + 16], "big")
        if length < 8:
            return length != 0  # 0: to the end of the file
        at += length
    return at > size

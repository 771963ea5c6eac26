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

import importlib
import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, features

from mmsearch.errors import LoadError
from mmsearch.records import ImageInput, Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Pixels

# The allow-list: sniff() gives one of these names, and no other decoder is ever run.
# The plugin's class is called rather than Image.open, which would first ask 30 others,
# then hold the full size of a JPEG against a limit that scaled decoding never meets.
_PLUGINS = {
    "JPEG": "PIL.JpegImagePlugin:JpegImageFile",
    "PNG": "PIL.PngImagePlugin:PngImageFile",
    "WEBP": "PIL.WebPImagePlugin:WebPImageFile",
    "GIF": "PIL.GifImagePlugin:GifImageFile",
    "BMP": "PIL.BmpImagePlugin:BmpImageFile",
    "TIFF": "PIL.TiffImagePlugin:TiffImageFile",
    "PPM": "PIL.PpmImagePlugin:PpmImageFile",
    "AVIF": "PIL.AvifImagePlugin:AvifImageFile",
    "HEIF": "pi_heif:HeifImageFile",
}

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Two letters are not enough of a BMP or a PPM: many a text begins with "BM" or "P6 ".
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_PPM_MAGIC = re.compile(rb"P[1-6]\s+(#|\d+\s+(#|\d+\s))")
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
)  # fmt: skip

# A scaled JPEG decode is a plain box filter: below this ratio of decoded to wanted size
# it blurs visibly (RMS error up to 5 of 255 at 1.0, below 2 at 1.5), above it only costs.
_DRAFT_RATIO = 1.5
# Pillow first shrinks by whole steps to this many times the wanted size, then filters;
# its documentation calls 3.0 indistinguishable from filtering all of it.
_REDUCING_GAP = 3.0

_JPEG_END = b"\xff\xd9"
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf"})
# An interlaced PNG's passes: first column, first row, and the steps between.
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip

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


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A picture as an encoder wants it; `width` and `height` are the original's, upright."""

    pixels: Pixels  # (size, size, 3), C-contiguous
    format: str
    width: int
    height: int


def sniff(head: bytes) -> str | None:
    """The picture format that a file's first 64 bytes announce, or None."""
    name = None
    if head.startswith(b"\xff\xd8\xff"):
        name = "JPEG"
    elif head.startswith(b"\x89PNG\r\n\x1a\n"):
        name = "PNG"
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        name = "WEBP"
    elif head[:6] in (b"GIF87a", b"GIF89a"):
        name = "GIF"
    elif head[:2] == b"BM" and head[14:18] in [struct.pack("<I", n) for n in _BMP_HEADERS]:
        name = "BMP"
    elif head[:4] in _TIFF_MAGIC and head[8:10] != b"CR":  # CR2: a camera's raw data
        name = "TIFF"
    elif _PPM_MAGIC.match(head):
        name = "PPM"
    elif head[4:8] == b"ftyp":
        # Box: size, "ftyp", the major brand, a version, then the compatible brands.
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
        if brands & _AVIF_BRANDS:
            name = "AVIF"
        elif brands & _HEIF_BRANDS:
            name = "HEIF"
    return name


def load_image(data: bytes | BinaryIO, want: ImageInput, *, max_megapixels: float) -> LoadedImage:
    """Decode the first picture of a file to what `want` asks for.

    The budget counts the pixels that will be decoded: for a JPEG of a single scan those
    of the scaled decode, else the full size. Raises LoadError, and nothing else, for
    whatever is wrong with the file.
    """
    _filter(want)  # a wrong name is the caller's mistake, not the file's
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
    _filter(want)
    try:
        picture.load()
        orientation = _orientation(picture.info.get("exif"))
        return _pixels(picture, want, orientation, picture.size, 1.0)
    except Exception as error:
        raise _translated(error, None, b"") from error


def _filter(want: ImageInput) -> Image.Resampling:
    return Image.Resampling[want.resample.upper()]


def _load(content: bytes, name: str, want: ImageInput, budget: float) -> LoadedImage:
    if name == "PNG":
        content = _png_essentials(content)
    elif name == "WEBP":
        # Its decoder allocates the canvas when it is made, so look first.
        _check_budget(_webp_size(content), budget)
    picture = plugin(name)(io.BytesIO(content))
    width, height = picture.size
    scans, shrink = 0, 1.0
    if name == "JPEG":
        scans = picture.fp.tell()  # where the compressed data begins
        counted, shrink = _draft(picture, want, content)
        _check_budget(counted, budget)
    else:
        _check_budget(picture.size, budget)
    if name == "TIFF":
        _check_strips(picture)
    picture.load()
    if name == "JPEG":
        _check_jpeg_tail(picture, want, content, scans)
    elif name == "PNG":
        _check_png_length(picture, content)
    elif name in ("TIFF", "HEIF"):
        width, height = picture.size  # their plugins turn the picture upright themselves
    orientation = _orientation(picture.info.get("exif"))
    pixels = _pixels(picture, want, orientation, (width, height), shrink)
    if orientation > 4:  # a quarter turn
        width, height = height, width
    return LoadedImage(pixels, name, width, height)


@cache
def plugin(name: str) -> Any:
    """The class that opens a format. Raises LoadError where it is not installed."""
    if name == "AVIF" and not features.check("avif"):
        raise LoadError(Reason.NEEDS_EXTRA, "AVIF needs a newer Pillow: pip install -U pillow")
    place, attribute = _PLUGINS[name].split(":")
    try:
        module: Any = importlib.import_module(place)
        # One thread a picture: the workers are the parallelism, and every thread reserves
        # address space, which theirs is limited to.
        if name == "AVIF":
            module.DEFAULT_MAX_THREADS = 1
        elif name == "HEIF":
            module.options.DECODE_THREADS = 1
        return getattr(module, attribute)
    except ImportError as error:
        if name != "HEIF":
            raise
        message = 'HEIC needs an extra: pip install "mmsearch[heif]"'
        raise LoadError(Reason.NEEDS_EXTRA, message) from error


def _check_budget(size: tuple[int, int], budget: float) -> None:
    pixels = size[0] * size[1]
    if pixels > budget:
        raise LoadError(
            Reason.OVER_BUDGET,
            f"{size[0]} x {size[1]} = {pixels / 1e6:,.1f} megapixels to decode, over the "
            f"limit of {budget / 1e6:,g}; raise it with --max-megapixels",
        )


def _draft(picture: Any, want: ImageInput, content: bytes) -> tuple[tuple[int, int], float]:
    """Ask for the smallest scaled decode that is clearly larger than wanted.

    Gives the size that the budget counts, and how many times smaller the decode is. What
    counts is what will be decoded, but all of the picture when it comes in several
    scans, for then libjpeg keeps every coefficient of it.
    """
    full: tuple[int, int] = picture.size
    if want.exact:
        return full, 1.0
    enough = int(want.size * _DRAFT_RATIO)
    _, box = picture.draft("RGB", (enough, enough))
    header = 6 + 2 * picture.layers  # of a scan with every layer, just read by Pillow
    start = picture.fp.tell() - header
    one_scan = content[start - 2 : start] == b"\xff\xda" and "progressive" not in picture.info
    return (picture.size if one_scan else full), full[0] / box[2]


def _check_jpeg_tail(picture: Image.Image, want: ImageInput, content: bytes, scans: int) -> None:
    """Refuse a JPEG whose data ends before its picture does.

    libjpeg fills what is missing with mid-grey and only warns, which Pillow does not
    pass on. When the last pixel is exactly that grey, decode again with more data put
    before the end marker: a complete picture ignores it, an incomplete one changes.
    """
    last = picture.getpixel((picture.width - 1, picture.height - 1))
    if set(last if isinstance(last, tuple) else (last,)) - {127, 128}:
        return
    end = content.find(_JPEG_END, scans)
    content = content[:end] + bytes(range(1, 251)) + _JPEG_END
    longer: Any = plugin("JPEG")(io.BytesIO(content))
    _draft(longer, want, content)
    if longer.tobytes() != picture.tobytes():
        raise LoadError(Reason.TRUNCATED, "the picture data ends before the picture does")


def _png_essentials(content: bytes) -> bytes:
    """The chunks that make the first picture, their checksums verified.

    Pillow checks no checksum of picture data, and would unpack text and profiles that
    nobody asked for, up to 64 MB of them. What follows the picture data may be cut off.
    """
    view = memoryview(content)
    kept: list[bytes | memoryview] = [view[:8]]
    at, pictured = 8, False
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content) or kind == b"IEND":
            break
        if kind in _PNG_CHUNKS:
            intact = zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end])
            if intact:
                kept.append(view[at:end])
            elif kind != b"eXIf":
                raise LoadError(Reason.CORRUPT, f"PNG chunk {kind.decode()} fails its checksum")
        pictured = pictured or kind == b"IDAT"
        at = end
    if not pictured:
        raise LoadError(Reason.TRUNCATED, "the file ends before its picture does")
    # The EXIF chunk may come last; Pillow looks for it where the picture begins.
    kept[2:] = sorted(kept[2:], key=lambda chunk: chunk[4:8] == b"IDAT")
    return b"".join([*kept, _PNG_END])


def _check_png_length(picture: Image.Image, content: bytes) -> None:
    """Refuse a PNG whose data unpacks to fewer rows than its header promises.

    Pillow leaves the missing rows black. Counting means unpacking twice, so it is done
    only when the last pixel is black, or for interlaced pictures, sent in seven passes.
    """
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">2I5B", content, 16)
    last = picture.getpixel((width - 1, height - 1))
    if not interlaced and any(last if isinstance(last, tuple) else (last,)):
        return
    bits *= {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    promised = 0
    for x, y, dx, dy in passes:
        columns, rows = -((x - width) // dx), -((y - height) // dy)
        promised += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    unpacker, at = zlib.decompressobj(), 8
    while at < len(content) and promised > 0:
        length, kind = struct.unpack_from(">I4s", content, at)
        packed = content[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        while packed and promised > 0:
            promised -= len(unpacker.decompress(packed, 1 << 20))
            packed = unpacker.unconsumed_tail
        at += 12 + length
    if promised > 0:
        raise LoadError(Reason.TRUNCATED, "the picture data ends before the picture does")


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


def _check_strips(picture: Any) -> None:
    """Refuse a TIFF that has fewer strips than its height needs: the rest stays black."""
    tags = picture.tag_v2
    height, offsets = tags[257], tags.get(273, ())
    if offsets and len(offsets) * tags.get(278, height) < height:
        raise LoadError(Reason.TRUNCATED, "fewer strips than the height of the picture needs")


def _orientation(exif: bytes | None) -> int:
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


def _pixels(
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
        picture = picture.resize(size, _filter(want), box, reducing_gap=gap)
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
        return _JPEG_END not in content[-4096:]
    if name == "GIF":
        return not content.rstrip(b"\0").endswith(b";")
    if name == "BMP":
        return int.from_bytes(content[2:6], "little") > size
    if name == "WEBP":
        return int.from_bytes(content[4:8], "little") + 8 > size
    if name == "TIFF":
        return _tiff_reach(content) > size
    at = 0
    while name in ("AVIF", "HEIF") and at < size:  # boxes, end to end
        length = int.from_bytes(content[at : at + 4], "big")
        if length == 1:
            length = int.from_bytes(content[at + 8 : at + 16], "big")
        if length < 8:
            return length != 0  # 0: to the end of the file
        at += length
    return at > size


def _tiff_reach(content: bytes) -> int:
    """How far into the file the first directory of a classic TIFF points."""
    order = "<" if content[:2] == b"II" else ">"
    at: int = struct.unpack_from(order + "I", content.ljust(8, b"\xff"), 4)[0]
    if at + 2 > len(content):
        return at + 2
    entries: int = struct.unpack_from(order + "H", content, at)[0]
    reach = at + 2 + 12 * entries
    tags: dict[int, NDArray[Any]] = {}
    for entry in range(at + 2, min(reach, len(content) - 11), 12):
        tag, kind, count, value = struct.unpack_from(order + "HHII", content, entry)
        length = count * {3: 2, 4: 4, 5: 8}.get(kind, 1)
        start = value if length > 4 else entry + 8
        reach = max(reach, start + length)
        if tag in (273, 279, 324, 325) and kind in (3, 4) and start + length <= len(content):
            width = order + ("u2" if kind == 3 else "u4")
            tags[tag] = np.frombuffer(content, width, count, start).astype(np.int64)
    for offsets, lengths in ((273, 279), (324, 325)):  # strips, tiles
        if offsets in tags and lengths in tags and len(tags[offsets]) == len(tags[lengths]):
            reach = max(reach, int((tags[offsets] + tags[lengths]).max(initial=0)))
    return reach

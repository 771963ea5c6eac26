"""The formats of pictures: how each is known, and what opens it."""

from __future__ import annotations

import importlib
import re
import struct
from functools import cache
from typing import Any

from PIL import features

from mmsearch.errors import LoadError
from mmsearch.records import Reason

# The allow-list: sniff() gives one of these names, and no other decoder is ever run.
# The plugin's class is called rather than Image.open, which would first ask 30 others,
# then hold the full size of a JPEG against a limit that scaled decoding never meets.
PLUGINS = {
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


@cache
def plugin(name: str) -> Any:
    """The class that opens a format. Raises LoadError where it is not installed."""
    if name == "AVIF" and not features.check("avif"):
        raise LoadError(Reason.NEEDS_EXTRA, "AVIF needs a newer Pillow: pip install -U pillow")
    place, attribute = PLUGINS[name].split(":")
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

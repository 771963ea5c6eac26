"""JPEG: scaled decoding, and pictures whose data ends before they do."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from mmsearch.errors import LoadError
from mmsearch.loaders.formats import plugin
from mmsearch.records import ImageInput, Reason

# A scaled JPEG decode is a plain box filter: below this ratio of decoded to wanted size
# it blurs visibly (RMS error up to 5 of 255 at 1.0, below 2 at 1.5), above it only costs.
_DRAFT_RATIO = 1.5
END = b"\xff\xd9"


def draft(picture: Any, want: ImageInput, content: bytes) -> tuple[tuple[int, int], float]:
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


def check_tail(picture: Image.Image, want: ImageInput, content: bytes, scans: int) -> None:
    """Refuse a JPEG whose data ends before its picture does.

    libjpeg fills what is missing with mid-grey and only warns, which Pillow does not
    pass on. When the last pixel is exactly that grey, decode again with more data put
    before the end marker: a complete picture ignores it, an incomplete one changes.
    """
    last = picture.getpixel((picture.width - 1, picture.height - 1))
    if set(last if isinstance(last, tuple) else (last,)) - {127, 128}:
        return
    end = content.find(END, scans)
    content = content[:end] + bytes(range(1, 251)) + END
    longer: Any = plugin("JPEG")(io.BytesIO(content))
    draft(longer, want, content)
    if longer.tobytes() != picture.tobytes():
        raise LoadError(Reason.TRUNCATED, "the picture data ends before the picture does")

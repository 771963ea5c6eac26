"""What a file says of itself: when and where it was taken and with what, and its captions.

The date taken is the first that can be read of: EXIF's DateTimeOriginal; XMP's
exif:DateTimeOriginal, photoshop:DateCreated and xmp:CreateDate; IPTC's date and time created;
and of a sound the date in its tags. Where it has a time zone, this is left out: what counts is
what the clock on the wall showed. (The date at which a file was last changed is not here: it
counts in filters where no date taken is known.)

Every byte is treated as hostile: no value is read that is longer than a megabyte, and what
cannot be read is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from mmsearch.loaders import blocks, exif, iptc, xmp
from mmsearch.loaders.blocks import Blocks
from mmsearch.loaders.cleaning import captions, clean, wall_clock
from mmsearch.loaders.exif import Tags
from mmsearch.records import Metadata, Modality

_LONGEST_NAME = 100  # letters of a camera or a lens
_UNKNOWN_ISO = 65535  # as large as its 16 bits allow: the number stands in another tag
_TEXT_CODES = {b"ASCII\0\0\0": "utf-8", b"UNICODE\0": "utf-16", b"JIS\0\0\0\0\0": "iso2022_jp"}


def read_metadata(file: BinaryIO, modality: Modality, format: str) -> Metadata:
    """What a file of this format ("JPEG", "MP3") says; it is read from its beginning.

    Never raises for what is in the file, only OSError when the disk fails.
    """
    match modality:
        case Modality.IMAGE:
            return _picture(blocks.find(file, format))
        case Modality.AUDIO:
            from mmsearch.loaders import tags  # a folder of pictures has no need of libsndfile

            return tags.of_sound(file, format)
        case Modality.TEXT:
            return Metadata()


def _picture(found: Blocks) -> Metadata:
    packet, news = xmp.read(found.xmp), iptc.read(found.iptc)
    taken, source = _taken(found.exif, packet, news)
    latitude, longitude = _place(found.exif)
    said = [*_exif_texts(found.exif), *_xmp_texts(packet), *_iptc_texts(news)]
    said += [("png", found.texts.get(name, b"")) for name in ("Title", "Description", "Comment")]
    return Metadata(
        taken=taken,
        taken_source=source,
        camera=_camera(_name(found.exif, exif.MAKE), _name(found.exif, exif.MODEL)),
        lens=_name(found.exif, exif.LENS) or None,
        iso=_iso(found.exif),
        latitude=latitude,
        longitude=longitude,
        captions=captions(said),
    )


# -- when, and with what -----------------------------------------------------------------


def _taken(
    tags: Tags, packet: dict[str, list[str]], news: dict[int, list[bytes]]
) -> tuple[int | None, str | None]:
    """The wall clock's nanoseconds and where they stand."""
    fraction = clean(exif.text(tags, exif.FRACTION))
    date = clean(exif.text(tags, exif.TAKEN))
    candidates: list[tuple[str, bytes | str]] = [
        ("exif", f"{date}.{fraction[:9]}"),
        ("exif", date),
    ]
    for name in ("taken", "created", "digitized"):
        candidates += [("xmp", date) for date in packet.get(name, [])]
    for day in news.get(iptc.DATE, []):
        candidates.append(("iptc", b" ".join([day, *news.get(iptc.TIME, [])[:1]])))
        candidates.append(("iptc", day))
    for source, text in candidates:
        if (moment := wall_clock(text)) is not None:
            return moment, source
    return None, None


def _camera(make: str, model: str) -> str | None:
    """Both, but for what the model repeats: NIKON CORPORATION, NIKON D90."""
    repeated = make and model.casefold().startswith(make.split(maxsplit=1)[0].casefold())
    return (model if repeated or not make else f"{make} {model}".strip()) or None


def _name(tags: Tags, tag: int) -> str:
    name = clean(exif.text(tags, tag))[:_LONGEST_NAME].strip()
    return name if any(map(str.isalnum, name)) else ""


def _iso(tags: Tags) -> int | None:
    for tag in (exif.ISO, exif.EXPOSURE_INDEX, exif.OUTPUT_SENSITIVITY):
        match exif.numbers(tags, tag):
            case (number, *_) if 0 < number < 2**31 and number != _UNKNOWN_ISO:
                return int(number)
    return None


# -- where -------------------------------------------------------------------------------


def _place(tags: Tags) -> tuple[float | None, float | None]:
    """Latitude and longitude in degrees, both or neither."""
    latitude = _degrees(tags, exif.LATITUDE, exif.LATITUDE_SIDE, b"NS", 90)
    longitude = _degrees(tags, exif.LONGITUDE, exif.LONGITUDE_SIDE, b"EW", 180)
    if latitude is None or longitude is None:
        return None, None
    if latitude == longitude == 0:  # in the sea off Africa: what a receiver without a fix writes
        return None, None
    return latitude, longitude


def _degrees(tags: Tags, tag: int, side_tag: int, sides: bytes, most: float) -> float | None:
    """Degrees, minutes and seconds as a number; the side tells its sign."""
    side = exif.text(tags, side_tag)[:1].upper()
    parts = [*exif.numbers(tags, tag), 0.0, 0.0][:3]
    if not side or side not in sides or len(parts) < 3:
        return None
    degrees = parts[0] + parts[1] / 60 + parts[2] / 3600
    if not degrees <= most:  # nor is what was divided by zero
        return None
    return degrees if side == sides[:1] else -degrees


# -- in words ----------------------------------------------------------------------------


def _exif_texts(tags: Tags) -> Iterator[tuple[str, bytes | str]]:
    yield "exif", exif.text(tags, exif.DESCRIPTION)
    for tag in (exif.WINDOWS_TITLE, exif.WINDOWS_COMMENT):
        yield "exif", _windows(exif.text(tags, tag))
    yield "exif", _comment(exif.text(tags, exif.COMMENT))
    yield "exif", ", ".join(_windows(exif.text(tags, exif.WINDOWS_KEYWORDS)).split(";"))


def _windows(data: bytes) -> str:
    return data.decode("utf-16-le", "ignore").partition("\0")[0]


def _comment(data: bytes) -> bytes | str:
    """EXIF's UserComment: eight bytes that name its code, then the text."""
    code, text = _TEXT_CODES.get(data[:8]), data[8:]
    if code == "utf-16" and text[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        # the standard leaves the order to guess: of a letter's two bytes, the high one varies less
        code = "utf-16-be" if len({*text[::2]}) < len({*text[1::2]}) else "utf-16-le"
    return text.decode(code, "ignore").partition("\0")[0] if code else text


def _xmp_texts(packet: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    for name in ("title", "headline", "description"):
        for text in packet.get(name, []):
            yield "xmp", text
    yield "xmp", ", ".join(packet.get("subject", []))


def _iptc_texts(news: dict[int, list[bytes]]) -> Iterator[tuple[str, bytes | str]]:
    for number in (iptc.HEADLINE, iptc.CAPTION):
        for text in news.get(number, []):
            yield "iptc", text
    yield "iptc", ", ".join(map(clean, news.get(iptc.KEYWORD, [])))

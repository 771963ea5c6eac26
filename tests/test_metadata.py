"""What files say of themselves, against files that Pillow and libsndfile wrote, and by hand."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, features
from PIL.PngImagePlugin import PngInfo

from mmsearch.loaders.cleaning import captions, clean, wall_clock
from mmsearch.loaders.metadata import read_metadata
from mmsearch.records import Caption, Metadata, Modality

Base, Gps = ExifTags.Base, ExifTags.GPS


def nanoseconds(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * 10**9


def picture(format: str = "JPEG", **saved: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 8), "teal").save(file, format, **saved)
    return file.getvalue()


def of(data: bytes, format: str = "JPEG") -> Metadata:
    return read_metadata(io.BytesIO(data), Modality.IMAGE, format)


def of_sound(data: bytes, format: str) -> Metadata:
    return read_metadata(io.BytesIO(data), Modality.AUDIO, format)


# -- EXIF ------------------------------------------------------------------------------


def exif(
    main: dict[int, object] | None = None,
    sub: dict[int, object] | None = None,
    gps: dict[int, object] | None = None,
    order: str = "<",
) -> bytes:
    """An EXIF block as Pillow writes it."""
    made = Image.Exif()
    made.endian = order
    made.update(main or {})
    if sub:
        made.get_ifd(ExifTags.IFD.Exif).update(sub)
    if gps:
        made.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    return made.tobytes()


PARIS = {
    Gps.GPSLatitudeRef: "N", Gps.GPSLatitude: (48.0, 51.0, 23.4),
    Gps.GPSLongitudeRef: "E", Gps.GPSLongitude: (2.0, 21.0, 7.2),
}  # fmt: skip
PHOTO = exif(
    {
        Base.Make: "NIKON CORPORATION",
        Base.Model: "NIKON D90",
        Base.ImageDescription: "A dog runs on the beach",
        Base.XPTitle: "海滩".encode("utf-16-le") + b"\0\0",
        Base.XPKeywords: "dog;beach".encode("utf-16-le"),
    },
    {
        Base.DateTimeOriginal: "2024:06:01 12:30:45",
        Base.OffsetTimeOriginal: "+09:00",
        Base.SubsecTimeOriginal: "25",
        Base.LensModel: "AF-S 35mm f/1.8G",
        Base.ISOSpeedRatings: 800,
        Base.UserComment: b"UNICODE\0" + "un chien à la plage".encode("utf-16-le"),
    },
    PARIS,
)
EXPECTED = Metadata(
    taken=nanoseconds(2024, 6, 1, 12, 30, 45) + 250_000_000,  # whatever the zone
    taken_source="exif",
    camera="NIKON D90",
    lens="AF-S 35mm f/1.8G",
    iso=800,
    latitude=pytest.approx(48.8565),
    longitude=pytest.approx(2.352),
    captions=tuple(
        Caption("exif", text)
        for text in ("A dog runs on the beach", "海滩", "un chien à la plage", "dog, beach")
    ),
)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_is_read_from_every_container(format):
    """The same block, wherever it stands, says the same."""
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert of(picture(format, exif=PHOTO), format) == EXPECTED


def test_exif_of_a_tiff_is_the_file_itself():
    """A TIFF's own directory has the tags, whichever byte order, and XMP and IPTC among them."""
    for order in "<>":
        file = io.BytesIO(PHOTO.removeprefix(b"Exif\0\0"))
        info = Image.Exif()
        info.endian = order
        info.load(PHOTO)
        info[700] = XMP
        info[33723] = IPTC
        file = info.tobytes().removeprefix(b"Exif\0\0")
        found = of(file, "TIFF")
        assert (found.camera, found.iso, found.taken) == ("NIKON D90", 800, EXPECTED.taken)
        assert {caption.source for caption in found.captions} == {"exif", "xmp", "iptc"}
    info = Image.Exif()
    info[700] = XMP
    assert of(info.tobytes().removeprefix(b"Exif\0\0"), "TIFF").captions == SAID_IN_XMP


@pytest.mark.parametrize(
    "make, model, camera",
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("LG Electronics", "LG-H870", "LG-H870"),
        ("FUJIFILM\0\0", "  X100V ", "FUJIFILM X100V"),
        ("Leica", "", "Leica"),
        ("", "D90", "D90"),
        ("---", "\0", None),
    ],
)
def test_a_camera_is_named_once(make, model, camera):
    """Make and model, without the make that the model repeats."""
    assert of(picture(exif=exif({Base.Make: make, Base.Model: model}))).camera == camera


@pytest.mark.parametrize(
    "changed, place",
    [
        ({Gps.GPSLatitudeRef: "S", Gps.GPSLongitudeRef: "W"}, (-48.8565, -2.352)),
        ({Gps.GPSLatitude: (90.0, 0.0, 0.0)}, (90.0, 2.352)),
        ({Gps.GPSLatitude: (91.0, 0.0, 0.0)}, (None, None)),
        ({Gps.GPSLongitude: (180.0, 0.0, 1.0)}, (None, None)),
        ({Gps.GPSLatitudeRef: "X"}, (None, None)),
        ({Gps.GPSLatitude: (0.0, 0.0, 0.0), Gps.GPSLongitude: (0.0, 0.0, 0.0)}, (None, None)),
    ],
)
def test_places(changed, place):
    """Degrees with the sign of their side; no place is better than a wrong one."""
    found = of(picture(exif=exif(gps=PARIS | changed)))
    assert (found.latitude, found.longitude) == tuple(
        None if value is None else pytest.approx(value) for value in place
    )


def test_places_divided_by_zero():
    """0/0, which a receiver without a fix writes, is no place."""
    block = exif(gps=PARIS)
    assert block.count(struct.pack("<II", 48, 1)) == 1
    found = of(picture(exif=block.replace(struct.pack("<II", 48, 1), bytes(8))))
    assert (found.latitude, found.longitude) == (None, None)


@pytest.mark.parametrize("fraction", ["", "  ", "no", "123456789123"])
def test_odd_fractions_of_a_second(fraction):
    """As far as nanoseconds go, and no reason to lose the date."""
    sub = {Base.DateTimeOriginal: "2024:06:01 12:30:45", Base.SubsecTimeOriginal: fraction}
    more = 123_456_789 if fraction[:1] == "1" else 0
    assert of(picture(exif=exif(sub=sub))).taken == nanoseconds(2024, 6, 1, 12, 30, 45) + more


@pytest.mark.parametrize(
    "sub, iso",
    [
        ({Base.ISOSpeedRatings: 100}, 100),
        ({Base.ISOSpeedRatings: (200, 0)}, 200),
        ({Base.ISOSpeedRatings: 0}, None),
        ({Base.ISOSpeedRatings: 65535, Base.RecommendedExposureIndex: 102_400}, 102_400),
        ({Base.ISOSpeedRatings: 65535}, None),
    ],
)
def test_iso_beyond_its_sixteen_bits(sub, iso):
    """65,535 says that the number is too large, and stands elsewhere."""
    assert of(picture(exif=exif(sub=sub))).iso == iso


def test_what_cameras_write_unasked_is_no_caption():
    """Neither the factory's description, nor one without a letter."""
    for text in (
        "OLYMPUS DIGITAL CAMERA         ", "SONY DSC", "oplus_1056768", "DCIM\\100GOPRO", "123 456",
        "Created with GIMP", "   ", "\0",
    ):  # fmt: skip
        assert of(picture(exif=exif({Base.ImageDescription: text}))).captions == (), text


# -- IPTC and XMP ----------------------------------------------------------------------


def data_set(number: int, value: bytes) -> bytes:
    return struct.pack(">BBBH", 0x1C, 2, number, len(value)) + value


IPTC = b"".join(
    [
        b"\x1c\x01\x5a\x00\x03\x1b%G",
        data_set(105, b"Dog day"),
        data_set(120, "Ein Hund läuft".encode()),
        data_set(25, b"dog"),
        data_set(25, b"beach"),
        data_set(55, b"20230704"),
        data_set(60, b"081500+0200"),
    ]
)
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
  xmlns:p="http://ns.adobe.com/photoshop/1.0/" xmlns:xap="http://ns.adobe.com/xap/1.0/"
  p:DateCreated="2022-05-01T10:00:00.5-07:00" xap:CreateDate="2021">
  <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Sea &amp; dog</rdf:li></rdf:Alt></dc:title>
  <dc:description><rdf:Alt><rdf:li xml:lang="x-default">Ein Hund läuft</rdf:li>
    <rdf:li xml:lang="zh">一只狗在跑</rdf:li></rdf:Alt></dc:description>
  <dc:subject><rdf:Bag><rdf:li>dog</rdf:li><rdf:li>sea</rdf:li></rdf:Bag></dc:subject>
  <dc:rights><rdf:Alt><rdf:li xml:lang="x-default">All mine</rdf:li></rdf:Alt></dc:rights>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>\0""".encode()
SAID_IN_XMP = tuple(
    Caption("xmp", text) for text in ("Sea & dog", "Ein Hund läuft", "一只狗在跑", "dog, sea")
)


def with_iptc(jpeg: bytes, news: bytes) -> bytes:
    """A JPEG with Photoshop's resources, two of them, behind its first marker."""
    body = b"Photoshop 3.0\0"
    for number, name, data in ((0x0BB7, b"odd", b"x"), (0x0404, b"", news)):
        called = bytes([len(name)]) + name
        body += b"8BIM" + struct.pack(">H", number) + called + b"\0" * (len(called) % 2)
        body += struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def test_iptc():
    """Headline, caption, keywords and the date created, with its time."""
    found = of(with_iptc(picture(), IPTC))
    assert found.captions == tuple(
        Caption("iptc", text) for text in ("Dog day", "Ein Hund läuft", "dog, beach")
    )
    assert (found.taken, found.taken_source) == (nanoseconds(2023, 7, 4, 8, 15), "iptc")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_xmp_is_read_from_every_container(format):
    """Alternatives, bags, attributes and entities of XML itself."""
    if format == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        data = picture("PNG", pnginfo=info)
    else:
        data = picture(format, xmp=XMP)
    found = of(data, format)
    assert found.captions == SAID_IN_XMP
    taken = nanoseconds(2022, 5, 1, 10) + 500_000_000
    assert (found.taken, found.taken_source) == (taken, "xmp")


def test_one_date_in_a_documented_order():
    """EXIF before XMP before IPTC; what is there and makes no sense is passed over."""
    sources = [
        (PHOTO, EXPECTED.taken, "exif"),
        (exif(sub={Base.DateTimeOriginal: "0000:00:00 00:00:00"}), None, "xmp"),
    ]
    for block, taken, source in sources:
        found = of(with_iptc(picture(exif=block, xmp=XMP), IPTC))
        assert found.taken_source == source
        assert taken in (None, found.taken)
    found = of(with_iptc(picture(exif=PHOTO, xmp=XMP), IPTC))
    said = [caption.text for caption in found.captions]
    assert said.count("Ein Hund läuft") == 1  # XMP and IPTC both have it


BOMBS = {
    "a billion words": b"""<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">
        <!ENTITY c "&b;&b;&b;&b;&b;">]>""",
    "another file": b'<!DOCTYPE x [<!ENTITY c SYSTEM "file:///etc/passwd">]>',
    "another document type": b'<!DOCTYPE x SYSTEM "http://localhost/x.dtd">',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_xmp_declares_nothing(bomb):
    """Row 44: a packet with a document type is refused, entities and all."""
    packet = BOMBS[bomb] + XMP.partition(b"?>")[2].replace(b"Sea &amp; dog", b"&c;")
    assert of(picture(xmp=packet)) == Metadata()


def test_a_broken_packet_says_what_came_before():
    """Cut within its keywords, the title and the description are there."""
    cut = XMP[: XMP.index(b"<dc:subject>") + 20]
    assert of(picture(xmp=cut)).captions == SAID_IN_XMP[:3]


def test_texts_of_a_png():
    """Title, description and comment, plain, packed and international; before the picture or
    after it."""
    info = PngInfo()
    info.add_text("Title", "Am Strand")
    info.add_text("Comment", "A long walk", zip=True)
    info.add_itxt("Description", "一只狗", zip=True)
    info.add_text("Software", "A program")
    data = picture("PNG", pnginfo=info)
    expected = tuple(Caption("png", text) for text in ("Am Strand", "一只狗", "A long walk"))
    assert of(data, "PNG").captions == expected
    body = b"tEXtTitle\0At the end"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    late = picture("PNG")[:-12] + chunk + picture("PNG")[-12:]
    assert of(late, "PNG").captions == (Caption("png", "At the end"),)


# -- sounds ----------------------------------------------------------------------------

TAGS = {
    "title": "Blue in Green", "artist": "艺术家", "album": "Kind of Blue", "genre": "Jazz",
    "comment": "recorded at night", "date": "1959-04-22",
}  # fmt: skip
NAMED = "Blue in Green, 艺术家, Kind of Blue, Jazz"


def sound(format: str, subtype: str | None = None, seconds: float = 1.5, **tags: str) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16000, 1, subtype, format=format) as made:
        for name, value in tags.items():
            setattr(made, name, value)
        made.write(np.sin(np.arange(round(16000 * seconds)) / 7).astype(np.float32) / 2)
    return file.getvalue()


def id3(version: int, **frames: bytes) -> bytes:
    """An ID3 tag by hand."""

    def seven_bits(number: int) -> bytes:
        return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))

    body = b""
    for name, data in frames.items():
        size = seven_bits(len(data)) if version == 4 else struct.pack(">I", len(data))
        body += name.encode() + size + b"\0\0" + data
    body += bytes(20)
    return b"ID3" + bytes([version, 0, 0]) + seven_bits(len(body)) + body


@pytest.mark.parametrize(
    "format, subtype, source",
    [
        ("FLAC", None, "vorbis"), ("OGG", "VORBIS", "vorbis"), ("OGG", "OPUS", "vorbis"),
        ("WAV", None, "info"),
    ],
)  # fmt: skip
def test_tags_of_a_sound(format, subtype, source):
    """What it is, what was remarked, its date, and how long it is."""
    assert of_sound(sound(format, subtype, **TAGS), format) == Metadata(
        taken=nanoseconds(1959, 4, 22),
        taken_source=source,
        duration=1.5,
        captions=(Caption(source, NAMED), Caption(source, "recorded at night")),
    )


@pytest.mark.parametrize("version", [3, 4])
def test_id3(version):
    """In an MP3 and in a chunk of a WAV: Latin, UTF-16, and UTF-8 where the version knows it."""
    tag = id3(
        version,
        TIT2=b"\0Blue in Green",
        TPE1=b"\1" + "艺术家".encode("utf-16"),
        TALB=b"\3Kind of Blue" if version == 4 else b"\0Kind of Blue",
        TCON=b"\0(8)",
        COMM=b"\0eng\0recorded at night",
        **{"TYER" if version == 3 else "TDRC": b"\x001959"},
    )
    wav = sound("WAV") + b"id3 " + struct.pack("<I", len(tag)) + tag + b"\0" * (len(tag) % 2)
    for data, format in ((tag + sound("MP3"), "MP3"), (wav, "WAV")):
        found = of_sound(data, format)
        assert found.captions == (
            Caption("id3", NAMED.removesuffix(", Jazz")),
            Caption("id3", "recorded at night"),
        )
        assert (found.taken, found.taken_source) == (nanoseconds(1959, 1, 1), "id3")
        assert found.duration == 1.5


def test_an_mp3_without_a_count_has_no_known_length():
    """libsndfile would guess from the first frame, and does not say that it did."""
    data = sound("MP3", seconds=20)
    assert of_sound(data, "MP3").duration == 20
    for name in (b"Xing", b"Info"):
        data = data.replace(name, b"none")
    assert of_sound(data, "MP3").duration is None


def test_a_field_recorder_says_when():
    """The bext chunk of a WAV: a description, a date and a time."""
    bext = b"Dawn chorus".ljust(256, b"\0") + bytes(64) + b"2024-05-0604:30:00" + bytes(264)
    data = sound("WAV") + b"bext" + struct.pack("<I", len(bext)) + bext
    found = of_sound(data, "WAV")
    assert found.captions == (Caption("bext", "Dawn chorus"),)
    assert (found.taken, found.taken_source) == (nanoseconds(2024, 5, 6, 4, 30), "bext")


def test_texts_say_nothing_of_themselves():
    """A text is all words, and no header."""
    assert read_metadata(io.BytesIO(b"words"), Modality.TEXT, "TEXT") == Metadata()


# -- dates and words -------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, moment",
    [
        ("2024:06:01 12:30:45", (2024, 6, 1, 12, 30, 45)),
        ("2024-06-01T12:30Z", (2024, 6, 1, 12, 30)),
        ("2024-06-01T12:30:45+02:00", (2024, 6, 1, 12, 30, 45)),
        ("2024/06/01", (2024, 6, 1)),
        ("20240601 123045-0730", (2024, 6, 1, 12, 30, 45)),
        ("2024-06", (2024, 6, 1)),
        ("1997", (1997, 1, 1)),
        ("1997-00-00", (1997, 1, 1)),
        ("0000:00:00 00:00:00", None),
        ("2024:02:30 12:00:00", None),
        ("2024:06:01 25:00:00", None),
        ("9999:01:01", None),
        ("    :  :     :  :  ", None),
        ("٢٠٢٤", None),
        ("in 1997", None),
        ("", None),
    ],
)
def test_dates(text, moment):
    """As the clock showed it; half a date begins where it begins; nonsense is none."""
    assert wall_clock(text) == (None if moment is None else nanoseconds(*moment))


def test_words_are_made_fit_to_keep():
    """One line, no control characters, no half letters; Latin where it is not UTF-8."""
    assert clean(b"  two\r\n words\0 behind") == "two words"
    assert clean(b"caf\xe9") == "café"
    assert clean("a\x1b[31mb\u202ec\ufffdd") == "a [31mb c d"
    assert clean("海".encode() * 40_000) == "海" * 8192
    said = captions([("exif", "Dog"), ("xmp", b"dog"), ("iptc", ""), ("png", "Hund")])
    assert said == (Caption("exif", "Dog"), Caption("png", "Hund"))
    assert len(captions(("xmp", f"dog {n}") for n in range(1000))) == 16


# -- hostile files ---------------------------------------------------------------------


def well_formed(found: Metadata) -> bool:
    """What may be stored without another look."""
    texts = [found.camera, found.lens, *(caption.text for caption in found.captions)]
    return (
        all(text is None or (text.isprintable() and 0 < len(text) <= 8192) for text in texts)
        and (found.taken is None) == (found.taken_source is None)
        and (found.latitude is None) == (found.longitude is None)
        and (found.latitude is None or -90 <= found.latitude <= 90)
        and (found.longitude is None or -180 <= found.longitude <= 180)
        and (found.iso is None or 0 < found.iso < 2**31)
        and (found.duration is None or 0 < found.duration < 2**62)
        and (found.taken is None or abs(found.taken) < 2**63)
    )


@pytest.fixture(scope="module")
def samples():
    """(bytes, modality, format) of files that say much."""
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    info.add_text("Comment", "A long walk", zip=True)
    tag = id3(4, TIT2=b"\3Title", COMM=b"\3eng\0comment", TDRC=b"\x002019-05-06")
    wav = sound("WAV", seconds=0.05, **TAGS)
    return [
        (with_iptc(picture(exif=PHOTO, xmp=XMP), IPTC), Modality.IMAGE, "JPEG"),
        (picture("PNG", exif=PHOTO, pnginfo=info), Modality.IMAGE, "PNG"),
        (picture("WEBP", exif=PHOTO, xmp=XMP), Modality.IMAGE, "WEBP"),
        (PHOTO.removeprefix(b"Exif\0\0"), Modality.IMAGE, "TIFF"),
        (tag + sound("MP3", seconds=0.05), Modality.AUDIO, "MP3"),
        (sound("FLAC", seconds=0.05, **TAGS), Modality.AUDIO, "FLAC"),
        (sound("OGG", "VORBIS", seconds=0.05, **TAGS), Modality.AUDIO, "OGG"),
        (wav + b"id3 " + struct.pack("<I", len(tag)) + tag, Modality.AUDIO, "WAV"),
    ]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_files_say_what_can_be_read(samples, data):
    """Rows 43, 47 and 52: bytes changed, cut, doubled and put in, in numbers and texts alike: never
    an error, and nothing that could not be stored."""
    content, modality, format = data.draw(st.sampled_from(samples))
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(min(len(damaged), 2500) - 1, 0)))
        match data.draw(st.integers(0, 3)):
            case 0:
                damaged[at : at + data.draw(st.integers(1, 8))] = data.draw(
                    st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x80\0\0\0"])
                )
            case 1:
                damaged[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case 2:
                del damaged[at : at + data.draw(st.integers(1, 2000))]
            case 3:
                damaged[at:at] = damaged[at : at + data.draw(st.integers(1, 200))]
    assert well_formed(read_metadata(io.BytesIO(bytes(damaged)), modality, format))


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "PPM"]),
)
def test_any_bytes_of_a_picture(content, format):
    """Whatever stands behind the right first bytes."""
    heads = {"JPEG": b"\xff\xd8\xff\xe1", "TIFF": b"II*\0\x08\0\0\0", "PNG": b"\x89PNG\r\n\x1a\n"}
    assert well_formed(of(heads.get(format, b"") + content, format))


def test_lying_lengths_cost_nothing():
    """Rows 43 and 44: values of megabytes that overlap, 65,535 of them; packed texts that unpack
    to fifty times the limit; a comment of ten megabytes: a few megabytes of memory, and silence."""
    entries = b"".join(struct.pack("<HHII", tag, 2, 50_000_000, 8) for tag in range(65_535))
    overlapping = b"II*\0\x08\0\0\0\xff\xff" + entries
    bomb = zlib.compress(bytes(50_000_000), 1)
    assert len(bomb) < 1 << 20
    body = b"zTXtComment\0\0" + bomb
    chunk = struct.pack(">I", len(body) - 4) + body + bytes(4)
    packed = picture("PNG")[:33] + chunk * 2 + picture("PNG")[33:]
    long = b"zTXtComment\0\0" + random.Random(11).randbytes(10_000_000)
    huge = struct.pack(">I", len(long) - 4) + long + bytes(4)
    for data, format in (
        (overlapping, "TIFF"),
        (packed, "PNG"),
        (picture("PNG")[:33] + huge + picture("PNG")[33:], "PNG"),
    ):
        tracemalloc.start()
        assert of(data, format) == Metadata()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8_000_000, (format, peak)


def test_a_comment_of_ten_megabytes():
    """Row 52: of a sound's tags, as much as a caption may have."""
    found = of_sound(sound("FLAC", comment="dog " * 2_500_000, title="a dog"), "FLAC")
    assert [len(caption.text) for caption in found.captions] == [5, 8191]

"""Pictures are loaded by content, within a budget, upright, in the right colours, or refused."""

from __future__ import annotations

import io
import random
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from hostile import (
    EPS,
    FITS,
    HAS_AVIF,
    HAS_HEIF,
    HEIC,
    PDF,
    SVG,
    WMF,
    ZIP,
    chunk,
    encoded,
    exif_bytes,
    files_of_each_format,
    gif_of_frames,
    grey_tiff,
    interlaced_png,
    interlaced_rows,
    jpeg_sized,
    photo,
    png,
    png_rows,
    png_sized,
    see_through,
    webp_canvas,
    wide,
    zero_bomb,
)
from PIL import Image

from mmsearch.errors import LoadError
from mmsearch.loaders import formats, images, load_image, sniff, to_pixels
from mmsearch.records import ImageInput, Reason

WANT = ImageInput(64)
PHOTO = photo()
FORMATS = files_of_each_format(PHOTO)


def load(data: bytes, want: ImageInput = WANT, megapixels: float = 64) -> np.ndarray:
    return load_image(data, want, max_megapixels=megapixels).pixels


def refusal(data: bytes, want: ImageInput = WANT, megapixels: float = 64) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load_image(data, want, max_megapixels=megapixels)
    assert "\n" not in str(caught.value)
    return caught.value


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference in grey levels."""
    return float(np.sqrt(np.mean((a.astype(float) - b.astype(float)) ** 2)))


def plainly(picture: Image.Image, size: int = 64) -> np.ndarray:
    """The oracle: all of the picture resized by Pillow in one go."""
    return np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


# -- formats -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_picture(name):
    """The same photo in any format and compression gives nearly the same pixels."""
    image = load_image(FORMATS[name], WANT, max_megapixels=64)
    assert image.pixels.shape == (64, 64, 3)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags.c_contiguous
    if name == "still.heic":
        assert (image.width, image.height) == (64, 48)
        assert apart(image.pixels[26, 30], np.array([200, 30, 30])) < 12
        return
    assert (image.width, image.height) == (160, 120)
    expected = PHOTO
    if name in ("grey.jpg", "sixteen-bit.png", "run-length.bmp", "grey.pgm", "deep.pgm"):
        expected = PHOTO.convert("L")
    elif name in ("one-bit.png", "fax.tif", "bits.pbm"):
        expected = PHOTO.convert("1")
    elif name == "alpha.webp":
        white = Image.new("RGBA", PHOTO.size, "white")
        expected = Image.alpha_composite(white, see_through(PHOTO))
    elif name.startswith("palette"):
        expected = PHOTO.quantize(64)
    lossy = name.endswith((".jpg", ".webp", ".avif", ".gif")) or name == "jpeg.tif"
    limit = 12 if lossy and name != "lossless.webp" else 1
    assert apart(image.pixels, plainly(expected)) < limit


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_is_known_by_its_first_bytes(name):
    """Sixty-four bytes say which format a file has, whatever it is called."""
    expected = {"jpg": "JPEG", "tif": "TIFF", "heic": "HEIF", "pgm": "PPM", "pbm": "PPM"}
    suffix = name.rsplit(".", 1)[1]
    assert sniff(FORMATS[name][:64]) == expected.get(suffix, suffix.upper())
    assert load_image(FORMATS[name], WANT, max_megapixels=64).format == sniff(FORMATS[name])


@pytest.mark.parametrize(
    "head",
    [
        b"", b"\xff", b"BMW builds cars, and has done so since 1928.", b"P6 was a processor.",
        b"P1 20 things to do", b"RIFF\0\0\0\0WAVEfmt ", b"II*\0\x10\0\0\0CR\2\0",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", b"\0\0\0\0ftyp", b"MZ\x90\0",
        SVG, EPS, PDF, WMF, FITS, ZIP,
    ],
)  # fmt: skip
def test_other_files_are_no_pictures(head):
    """Row 44: what no decoder of the allow-list reads is never taken for a picture."""
    assert sniff(head[:64]) is None
    if head:
        assert refusal(head).reason == Reason.TYPE_MISMATCH


def test_heif_brands_are_read_beyond_the_first():
    """A generic major brand is told apart by the compatible ones."""
    assert sniff(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"
    assert sniff(b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf") == "HEIF"
    assert sniff(b"\0\0\0\x18ftypmif1\0\0\0\0mif1miafheic") is None  # outside of the box


def test_heic_without_its_extra_says_what_to_install(monkeypatch):
    """Without pi-heif a HEIC picture is skipped with the exact pip line."""
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    formats.plugin.cache_clear()
    error = refusal(HEIC)
    formats.plugin.cache_clear()
    assert error.reason == Reason.NEEDS_EXTRA
    assert 'pip install "mmsearch[heif]"' in str(error)


def test_an_open_file_and_an_open_picture_give_the_same_pixels():
    """Bytes, an open file and a PIL picture are three ways to say the same."""
    data = FORMATS["rgb.png"]
    from_file = load_image(io.BytesIO(data), WANT, max_megapixels=64).pixels
    assert np.array_equal(load(data), from_file)
    assert np.array_equal(load(data), to_pixels(Image.open(io.BytesIO(data)), WANT))
    turned = encoded(PHOTO, "PNG", exif=exif_bytes(6))
    assert np.array_equal(load(turned), to_pixels(Image.open(io.BytesIO(turned)), WANT))
    with pytest.raises(LoadError, match="ends early"):
        to_pixels(Image.open(io.BytesIO(data[:2000])), WANT)


# -- row 39: truncation ------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_picture_is_refused(name):
    """Row 39: cut at every percent, a file is `truncated` or gives exactly the same pixels."""
    data = FORMATS[name]
    whole = load(data)
    percents = {len(data) * percent // 100 for percent in range(1, 100)}
    for length in sorted(percents | set(range(len(data) - 16, len(data)))):
        try:
            pixels = load(data[:length])
        except LoadError as error:
            early = length < 64 and error.reason == Reason.TYPE_MISMATCH  # not even its magic
            assert early or error.reason == Reason.TRUNCATED, (length, str(error))
        else:
            assert np.array_equal(pixels, whole), f"changed when cut to {length} bytes"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 9}])
def test_a_truncated_scaled_jpeg_is_refused(options):
    """Row 39: scaled decoding notices a missing end just as full decoding does."""
    data = encoded(photo(900, 700), "JPEG", **options)
    for percent in range(2, 100, 7):
        assert refusal(data[: len(data) * percent // 100]).reason == Reason.TRUNCATED


def test_an_empty_file_is_empty():
    """Row 35: no bytes at all have a code of their own."""
    assert refusal(b"").reason == Reason.EMPTY


def test_bytes_behind_the_picture_do_no_harm():
    """What follows the end of a picture is ignored."""
    for name in ("baseline.jpg", "progressive.jpg", "rgb.png", "plain.gif", "lossy.webp"):
        assert np.array_equal(load(FORMATS[name]), load(FORMATS[name] + b"\0trailing junk" * 99))


@pytest.mark.parametrize(
    "data",
    [
        jpeg_sized(FORMATS["baseline.jpg"], 160, 240),
        jpeg_sized(FORMATS["progressive.jpg"], 160, 240),
        jpeg_sized(encoded(photo(900, 700), "JPEG"), 900, 1400),
        FORMATS["baseline.jpg"][:3000] + b"\xff\xd9",
        FORMATS["grey.jpg"][:2000] + b"\xff\xd9",
        FORMATS["cmyk.jpg"][:9000] + b"\xff\xd9",
        png_sized(FORMATS["rgb.png"], 160, 240),
        png(160, 120, zlib.compress(interlaced_rows(PHOTO)[:-5000]), interlaced=1),
        png(160, 120, zlib.compress(png_rows(PHOTO)[: 481 * 100])),
        grey_tiff(np.asarray(PHOTO.convert("L")), height=240),
    ],
    ids=range(10),
)
def test_a_picture_shorter_than_its_header_says_is_refused(data):
    """Rows 39 and 41: decoders fill missing rows with grey or black; that is no picture."""
    assert refusal(data).reason == Reason.TRUNCATED


def test_a_grey_or_black_end_is_no_truncation():
    """A picture that really ends in mid-grey or black is a picture."""
    flat = Image.new("RGB", (500, 375), (128, 128, 128))
    for name, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})):
        assert (load(encoded(flat, name, **options)) == 128).all()
    black = Image.new("RGB", (33, 21))
    assert not load(encoded(black, "PNG")).any()
    assert not load(interlaced_png(black)).any()
    half = PHOTO.copy()
    half.paste((128, 128, 128), (80, 60, 160, 120))
    assert apart(load(encoded(half, "JPEG", quality=95)), plainly(half)) < 3


def test_a_flipped_bit_in_a_png_is_noticed():
    """PNG carries checksums, and the one over the picture data is verified."""
    data = bytearray(FORMATS["rgb.png"])
    data[len(data) // 2] ^= 4
    error = refusal(bytes(data))
    assert error.reason == Reason.CORRUPT
    assert "checksum" in str(error)


# -- rows 40 and 41: budget and frames ---------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        png(50_000, 50_000, b""), png(1_000_000, 90, b""), png(2**31 - 1, 2**31 - 1, b""),
        zero_bomb(13_000, 13_000), jpeg_sized(FORMATS["baseline.jpg"], 65_500, 65_500),
        jpeg_sized(FORMATS["progressive.jpg"], 20_000, 20_000),
        b"P6 100000 100000 255\n", webp_canvas(16_384, 16_384),
        FORMATS["plain.gif"][:6] + b"\xff" * 4 + FORMATS["plain.gif"][10:],
        FORMATS["rgb.bmp"][:18] + struct.pack("<ii", 70_000, 70_000) + FORMATS["rgb.bmp"][26:],
    ],
    ids=range(10),
)  # fmt: skip
def test_a_picture_over_the_budget_is_refused_by_its_header(data):
    """Row 40: the size in the header is enough; the message names the option that lifts it."""
    error = refusal(data)
    assert error.reason == Reason.OVER_BUDGET
    assert "--max-megapixels" in str(error)


def test_the_budget_of_a_jpeg_counts_what_is_decoded():
    """Row 40: a large JPEG is decoded at an eighth and needs the budget of that."""
    large = encoded(photo(1600, 1200), "JPEG")  # 1.92 megapixels, at an eighth 0.03
    assert load(large, megapixels=0.04).shape == (64, 64, 3)
    assert refusal(large, megapixels=0.02).reason == Reason.OVER_BUDGET
    assert refusal(encoded(photo(1600, 1200), "PNG"), megapixels=1.9).reason == Reason.OVER_BUDGET


def test_a_progressive_jpeg_is_counted_whole():
    """Row 40: several scans make libjpeg keep all coefficients, however small the scale."""
    large = encoded(photo(1600, 1200), "JPEG", progressive=True)
    assert refusal(large, megapixels=1.9).reason == Reason.OVER_BUDGET
    assert load(large, megapixels=2).shape == (64, 64, 3)


def test_only_the_first_frame_is_decoded():
    """Row 41: of an animation, or of many pages, the first picture is the one."""
    others = [photo(seed=seed) for seed in (1, 2, 3)]
    many = {"save_all": True, "append_images": others}
    first = plainly(PHOTO)
    assert apart(load(gif_of_frames(PHOTO, 10_000)), first) < 12
    assert apart(load(encoded(PHOTO, "PNG", **many)), first) < 1
    assert apart(load(encoded(PHOTO, "TIFF", **many)), first) < 1
    assert apart(load(encoded(PHOTO, "WEBP", **many)), first) < 12
    assert apart(load(encoded(PHOTO, "MPO", **many)), first) < 12


def test_a_frame_larger_than_its_screen_is_held_against_the_budget():
    """Row 41: the frame of a GIF may claim more than the file does."""
    data = FORMATS["plain.gif"]
    at = data.index(b",\0\0\0\0")
    lie = data[: at + 5] + struct.pack("<HH", 65_535, 65_535) + data[at + 9 :]
    assert refusal(lie).reason == Reason.OVER_BUDGET
    lie = data[: at + 5] + struct.pack("<HH", 10_000, 10_000) + data[at + 9 :]
    assert refusal(lie).reason == Reason.OVER_BUDGET


# -- row 42: colours ---------------------------------------------------------------------


def test_photos_look_alike_in_every_mode():
    """Row 42: twelve modes of one photo are one photo."""
    rgb, grey = plainly(PHOTO), plainly(PHOTO.convert("L"))
    levels = np.asarray(PHOTO.convert("L"))
    floats = levels.astype(np.float32)
    for data, expected, limit in (
        (encoded(PHOTO.convert("RGBA"), "PNG"), rgb, 1),
        (encoded(PHOTO.convert("LA"), "PNG"), grey, 1),
        (encoded(PHOTO.convert("CMYK"), "TIFF"), rgb, 2),
        (encoded(PHOTO.convert("CMYK"), "JPEG", quality=95), rgb, 8),
        (encoded(PHOTO.convert("RGBX"), "TIFF"), rgb, 1),
        (encoded(PHOTO.quantize(), "PNG", transparency=255), plainly(PHOTO.quantize()), 12),
        (encoded(wide(PHOTO.convert("L")), "TIFF"), grey, 1),
        (grey_tiff(levels.astype(np.uint32)), grey, 1),
        (grey_tiff(levels.astype(np.int32) * 257), grey, 1),
        (grey_tiff(floats), grey, 1),
        (grey_tiff(floats / 255), grey, 1),
        (grey_tiff(floats * 257), grey, 1),
    ):
        assert apart(load(data), expected) < limit


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 65535], [257, 32896]], np.uint16), [0, 255, 1, 128]),
        (np.array([[0, 255], [1, 128]], np.uint32), [0, 255, 1, 128]),
        (np.array([[0, 65535], [257, 32896]], np.uint32), [0, 255, 1, 128]),
        (np.array([[-1000, 1000], [0, 500]], np.int32), [0, 255, 128, 191]),
        (np.array([[0, 510_000], [2000, 256_000]], np.uint32), [0, 255, 1, 128]),
        (np.array([[0, 1], [0.2, 0.5]], np.float32), [0, 255, 51, 128]),
        (np.array([[0, 12.5], [0.2, 1]], np.float32), [0, 255, 51, 255]),
        (np.array([[0, 254], [20, 100.4]], np.float32), [0, 254, 20, 100]),
        (np.array([[0, 1], [np.nan, np.inf]], np.float32), [0, 255, 0, 0]),
        (np.array([[np.nan, np.nan], [-np.inf, np.inf]], np.float32), [0, 0, 0, 0]),
        (np.array([[-1e30, 1e30], [0, 0]], np.float32), [0, 255, 128, 128]),
    ],
    ids=range(11),
)
def test_wide_greyscale_is_scaled_by_rule(values, expected):
    """Row 42: 16-bit, 32-bit and float values become 8 bits by the rule written down."""
    pixels = load(grey_tiff(values), ImageInput(2))
    assert np.ptp(pixels, axis=2).max() == 0
    assert np.abs(pixels[:, :, 0].ravel().astype(int) - expected).max() <= 1


def test_transparency_is_put_on_white():
    """Row 42: half-transparent red on white is pink, and nothing at all is white."""
    for alpha, expected in ((0, [255, 255, 255]), (128, [255, 127, 127]), (255, [255, 0, 0])):
        data = encoded(Image.new("RGBA", (8, 8), (255, 0, 0, alpha)), "PNG")
        assert np.abs(load(data, ImageInput(8)).astype(int) - expected).max() <= 1
        assert np.abs(load(data, ImageInput(5)).astype(int) - expected).max() <= 1
    grey = encoded(Image.new("LA", (8, 8), (0, 51)), "PNG")
    assert np.abs(load(grey).astype(int) - 204).max() <= 1
    invisible = PHOTO.quantize(16)
    invisible.paste(3, (0, 0, 160, 120))
    for name in ("PNG", "GIF"):
        assert (load(encoded(invisible, name, transparency=3)) == 255).all()
    colour_key = encoded(Image.new("RGB", (4, 4), (9, 8, 7)), "PNG", transparency=(9, 8, 7))
    assert (load(colour_key) == 255).all()


def test_hidden_colours_do_not_bleed():
    """Row 42: what lies under full transparency has no part in its neighbours."""
    array = np.zeros((64, 64, 4), np.uint8)
    array[:, :32] = (255, 0, 0, 0)  # invisible red
    array[:, 32:] = (0, 0, 255, 255)
    pixels = load(encoded(Image.fromarray(array), "PNG"), ImageInput(9)).astype(int)
    assert (pixels[:, :, 2] >= 253).all()  # white and blue and in between: blue is full
    assert np.abs(pixels[:, :, 0] - pixels[:, :, 1]).max() <= 1


def test_a_variant_that_no_decoder_knows_is_unsupported():
    """A sound TIFF of 64-bit integers is skipped like any other type that is not read."""
    error = refusal(grey_tiff(np.zeros((4, 4), np.uint64)))
    assert error.reason == Reason.UNSUPPORTED
    assert error.reason.skipped


# -- row 43: upright ---------------------------------------------------------------------

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation, fit):
    """Row 43: however the camera was held, the same picture arrives, in every format."""
    scene = photo(203, 118)  # odd margins, so that a crop cannot hide a pixel's shift
    stored = scene.transpose(TURNS[orientation]) if orientation > 1 else scene
    want = ImageInput(64, fit)
    upright = to_pixels(scene, want)
    names = [("PNG", 2), ("WEBP", 12), ("JPEG", 12)] + ([("AVIF", 12)] if HAS_AVIF else [])
    for order in "<>":
        for name, limit in names:
            data = encoded(stored, name, exif=exif_bytes(orientation, order))
            image = load_image(data, want, max_megapixels=64)
            assert (image.width, image.height) == (203, 118), name
            assert apart(image.pixels, upright) < limit, name
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(encoded(stored, "TIFF", exif=exif), want, max_megapixels=64)
    assert (image.width, image.height) == (203, 118)
    assert apart(image.pixels, upright) < 2


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0", b"Exif\0\0II", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0XX*\0\x08\0\0\0",
        exif_bytes(0), exif_bytes(9), exif_bytes(6)[:-20], b"Exif\0\0" + b"\xff" * 500,
        exif_bytes(6).replace(b"\x12\x01\x03\0", b"\x12\x01\x0c\0"), b"\0" * 60_000,
    ],
    ids=range(10),
)  # fmt: skip
def test_broken_exif_is_ignored(exif):
    """Row 43: a picture is not refused for what its EXIF says, nor turned by nonsense."""
    for name in ("JPEG", "PNG", "WEBP"):
        assert np.array_equal(load(encoded(PHOTO, name, exif=exif)), load(encoded(PHOTO, name)))


def test_a_huge_profile_and_bad_side_data_are_ignored():
    """Row 43: neither size nor damage of what is not the picture matters."""
    profile = bytes(range(256)) * 12_000  # 3 MB, more than Pillow itself accepts in a PNG
    for name in ("JPEG", "PNG", "WEBP", "TIFF"):
        plain = load(encoded(PHOTO, name))
        assert np.array_equal(load(encoded(PHOTO, name, icc_profile=profile)), plain)
    exif_ifd = (0x8769, 4, 1, struct.pack("<I", 0x7FFFFFFF))
    grey = np.asarray(PHOTO.convert("L"))
    assert np.array_equal(load(grey_tiff(grey, more=[exif_ifd])), load(grey_tiff(grey)))


# -- row 44: bombs beside the picture ----------------------------------------------------


def test_text_and_profile_bombs_are_never_unpacked():
    """Row 44: a PNG whose text unpacks to a gigabyte is a picture like any other."""
    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(128)), packer.flush()])
    bombs = chunk(b"zTXt", b"a\0\0" + packed) * 8 + chunk(b"iCCP", b"a\0\0" + packed)
    bombs += chunk(b"iTXt", b"a\0\1\0\0\0" + packed)
    rows = zlib.compress(png_rows(PHOTO))
    plain = load(png(160, 120, rows))
    assert np.array_equal(load(png(160, 120, rows, before=bombs)), plain)
    assert np.array_equal(load(png(160, 120, rows, after=bombs)), plain)


# -- row 45: extreme shapes --------------------------------------------------------------


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 30_000), (30_000, 1), (2, 3)])
def test_extreme_shapes_are_pictures(size, fit):
    """Row 45: one pixel, or a line of them, is a picture."""
    picture = Image.new("RGB", size, (10, 200, 60))
    for name, tolerance in (("PNG", 0), ("BMP", 0), ("JPEG", 3)):
        image = load_image(encoded(picture, name), ImageInput(32, fit), max_megapixels=64)
        assert (image.width, image.height) == size
        assert np.abs(image.pixels.astype(int) - (10, 200, 60)).max() <= tolerance


@pytest.mark.parametrize(
    "data",
    [
        png(0, 100, b""), png(100, 0, b""), b"P6 0 100 255\n",
        jpeg_sized(FORMATS["baseline.jpg"], 160, 0),
        FORMATS["rgb.bmp"][:18] + struct.pack("<ii", 0, 120) + FORMATS["rgb.bmp"][26:],
        b"GIF89a" + bytes(4) + FORMATS["plain.gif"][10:].replace(b"\xa0\0\x78\0", bytes(4)),
    ],
    ids=range(6),
)  # fmt: skip
def test_a_side_of_zero_is_refused(data):
    """Row 45: a header of 0 x n is `corrupt`, and says why."""
    error = refusal(data)
    assert error.reason == Reason.CORRUPT
    assert "width or height of 0" in str(error)


# -- what is resized, and how ------------------------------------------------------------


def test_a_picture_of_the_wanted_size_is_not_resampled():
    """Pixels that are already right stay as they are."""
    picture = photo(64, 64)
    assert np.array_equal(load(encoded(picture, "PNG")), np.asarray(picture))
    jpeg = encoded(picture, "JPEG")
    assert np.array_equal(load(jpeg), np.asarray(Image.open(io.BytesIO(jpeg))))


@pytest.mark.parametrize("size", [(1200, 900), (897, 1300), (400, 300), (65, 64), (230, 99)])
@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_scaled_decoding_is_close_to_full_decoding(size, fit):
    """A JPEG decoded small shows what the full one, carefully resized, shows."""
    data = encoded(photo(*size), "JPEG", quality=92)
    full = Image.open(io.BytesIO(data)).convert("RGB")
    full.load()
    assert apart(load(data, ImageInput(64, fit)), to_pixels(full, ImageInput(64, fit))) < 2.5
    if fit == "squash":
        assert apart(to_pixels(full, WANT), plainly(full)) < 1


@pytest.mark.parametrize("size", [(203, 118), (118, 203), (64, 65), (300, 64), (31, 40)])
def test_a_crop_is_that_of_resizing_the_shorter_side(size):
    """`crop` is the shorter side to size, then the centre, to the pixel."""
    picture = photo(*size)
    short = min(size)
    resized = picture.resize([64 * side // short for side in size], Image.Resampling.BICUBIC)
    left, top = (round((side - 64) / 2) for side in resized.size)
    expected = np.asarray(resized.crop((left, top, left + 64, top + 64)))
    # Not to the last level: Pillow clips between its two passes.
    assert apart(to_pixels(picture, ImageInput(64, "crop")), expected) < 0.7


def test_the_filter_is_the_one_asked_for():
    """`resample` names a Pillow filter, and it is used."""
    for name in ("nearest", "bilinear", "bicubic", "lanczos"):
        expected = PHOTO.resize((64, 64), Image.Resampling[name.upper()])
        got = to_pixels(PHOTO, ImageInput(64, resample=name))
        assert np.array_equal(got, np.asarray(expected))


# -- nothing else escapes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (OSError("out of memory error when reading image file"), Reason.OUT_OF_MEMORY),
        (RecursionError("too deep"), Reason.CORRUPT),
        (SyntaxError("broken\nPNG file"), Reason.CORRUPT),
        (struct.error("unpack"), Reason.CORRUPT),
        (Image.DecompressionBombError("bomb"), Reason.OVER_BUDGET),
        (OSError("image file is truncated (7 bytes not processed)"), Reason.TRUNCATED),
        (KeyError("mode"), Reason.CORRUPT),
        (AssertionError(), Reason.CORRUPT),
        (ZeroDivisionError("division by zero"), Reason.CORRUPT),
    ],
)
def test_whatever_a_decoder_raises_is_translated(monkeypatch, raised, reason):
    """Every exception of a decoder becomes a LoadError with one line and a reason."""

    def decode(_file):
        raise raised

    monkeypatch.setattr(images, "plugin", lambda _name: decode)
    assert refusal(FORMATS["baseline.jpg"]).reason == reason


def test_damaged_files_raise_nothing_but_load_errors():
    """Any damage ends in pixels or a LoadError, on stricter warnings, too."""
    choose = random.Random(42)
    small = files_of_each_format(photo(48, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2500):
            data = bytearray(choose.choice(list(small.values())))
            for _ in range(choose.choice((1, 1, 3, 9))):
                at = choose.randrange(min(len(data), choose.choice((100, 400, 10**6))))
                data[at] = choose.choice((0, 1, 127, 255, choose.randrange(256)))
            try:
                pixels = load(bytes(data), ImageInput(16, "crop"), megapixels=4)
            except LoadError as error:
                assert "\n" not in str(error)
            else:
                assert pixels.shape == (16, 16, 3)


@pytest.mark.skipif(not HAS_HEIF, reason="pi-heif is not installed")
def test_heic_is_read_by_content():
    """A HEIC picture is decoded with pi-heif, and upright as libheif gives it."""
    image = load_image(HEIC, ImageInput(48), max_megapixels=1)
    assert (image.format, image.width, image.height) == ("HEIF", 64, 48)
    assert refusal(HEIC, megapixels=0.003).reason == Reason.OVER_BUDGET

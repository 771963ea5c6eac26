"""Small pictures of found files, for a sheet, a notebook or a terminal."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.errors import LoadError
from mmsearch.files import read_regular
from mmsearch.records import ImageInput
from mmsearch.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

    from mmsearch.loaders import LoadedImage


def load(path: Path, want: ImageInput) -> LoadedImage:
    """A picture that an answer names, read as cautiously as `index` did: it may have changed.

    Raises LoadError.
    """
    from mmsearch import loaders  # a query of words has no need of Pillow

    limits = Settings()
    real = os.path.realpath(os.fsencode(path))
    data, _ = read_regular(real, limits.max_file_mb * 1e6, lambda head: None)
    return loaders.load_image(data, want, max_megapixels=limits.max_megapixels)


def thumbnail(path: Path, longest: int) -> Image.Image | None:
    """A picture file upright, in RGB, its longer side `longest` pixels; None if unreadable."""
    from PIL import Image

    try:
        found = load(path, ImageInput(size=longest))  # squashed to a square: put right below
    except LoadError:
        return None
    scale = longest / max(found.width, found.height)
    size = max(1, round(found.width * scale)), max(1, round(found.height * scale))
    return Image.fromarray(found.pixels).resize(size, Image.Resampling.BICUBIC)


def as_jpeg(picture: Image.Image) -> bytes:
    """The picture as a small JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80, optimize=True)
    return file.getvalue()


def as_png(picture: Image.Image, size: tuple[int, int]) -> bytes:
    """The picture as a PNG file, centred on a transparent canvas of that size."""
    from PIL import Image

    canvas = Image.new("RGBA", size)
    canvas.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    file = io.BytesIO()
    canvas.save(file, "PNG")
    return file.getvalue()

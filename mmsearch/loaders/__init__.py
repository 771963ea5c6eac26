"""One file in; pixels, windows of sound or passages of text out, or one LoadError.

`images` is for pictures, `sounds` for sounds, `texts` for texts. Every byte is treated as
hostile, and what is long is read piece by piece.
"""

from mmsearch.loaders.formats import sniff
from mmsearch.loaders.images import LoadedImage, load_image, to_pixels

__all__ = ["LoadedImage", "load_image", "sniff", "to_pixels"]

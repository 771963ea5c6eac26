"""Reading the training data: photos with captions, photos with class names, and sentences alone.

Nothing here reads what is only for measuring: photos of Flickr8k's test list are opened by
``flickr8k("test")``, which the training stages never call, and sentences equal to a dev or test
caption are left out.
"""

from __future__ import annotations

import functools
import gzip
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = 224
Pixels = npt.NDArray[np.uint8]

# Ways in which people name a thing when they look for its picture.
TEMPLATES = (
    "{}",
    "a {}",
    "a photo of a {}",
    "a picture of the {}",
    "a close-up photo of a {}",
    "a photo of many {}",
    "{} in a photo",
)


@dataclass(frozen=True, slots=True)
class CaptionedPhoto:
    """A photo and the sentences people wrote about it."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NamedPhoto:
    """An encoded photo of one class. ``label``: row of the 1,000 ImageNet classes."""

    data: bytes
    label: int


def squash(image: Image.Image, size: int = SIZE) -> Pixels:
    """A picture as the image tower wants it: RGB, squashed, bicubic. (size, size, 3) uint8."""
    image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def flickr8k(data: Path, split: str) -> list[CaptionedPhoto]:
    """The photos of one official split ('train', 'dev' or 'test') with five captions each."""
    folder = data / "flickr8k"
    captions: dict[str, list[str]] = {}
    for line in (folder / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        key, sentence = line.split("\t")
        captions.setdefault(key.rsplit("#", 1)[0], []).append(sentence.strip())
    names = (folder / f"Flickr_8k.{split}Images.txt").read_text(encoding="utf-8").split()
    return [CaptionedPhoto(folder / "images" / name, tuple(captions[name])) for name in names]


def flickr8k_chinese(data: Path, split: str) -> list[list[str]]:
    """Five Chinese captions of each photo of a split, by people (Flickr8k-CN, Li et al. 2016)."""
    captions: dict[str, list[str]] = {}
    path = data / "flickr8k" / "Flickr8k-CN.zhc.txt"
    for line in path.read_text(encoding="utf-8").splitlines():
        key, sentence = line.split(" ", 1)
        captions.setdefault(key.split("#", 1)[0], []).append(sentence.strip())
    return [captions[photo.path.name] for photo in flickr8k(data, split)]


def class_names(data: Path) -> list[list[str]]:
    """The names of the 1,000 ImageNet classes, each with its synonyms, in the teacher's order."""
    lines = (data / "teachers" / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split(", ") for line in lines]


def tiny_imagenet(data: Path, *, held_out: bool) -> list[NamedPhoto]:
    """64 x 64 photos of 200 ImageNet classes: ten of each are held out, forty others train."""
    with zipfile.ZipFile(data / "tiny_imagenet_20k.zip") as archive:
        lines = archive.read("tiny_imagenet_20k/classes.tsv").decode().splitlines()
        rows = {", ".join(names): row for row, names in enumerate(class_names(data))}
        members: dict[str, list[str]] = {}
        for name in sorted(archive.namelist()):
            if name.endswith(".JPEG"):
                members.setdefault(name.split("/")[1], []).append(name)
        photos = []
        for line in lines:
            wnid, names = line.split("\t")[:2]
            if (
                names not in rows
            ):  # two classes share the name 'crane' or 'maillot': leave the ambiguous out
                continue
            chosen = members[wnid][:10] if held_out else members[wnid][10:50]
            photos += [NamedPhoto(archive.read(name), rows[names]) for name in chosen]
    return photos


def named(template: str, term: str) -> str:
    """A term in a template, with the article that fits: "an astronaut"."""
    text = template.format(term)
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def glosses() -> list[str]:
    """Lines of "term: gloss", written for this model: what words outside captions look like."""
    text = Path(__file__).with_name("glosses.txt").read_text(encoding="utf-8")
    return text.splitlines()


def decode(photo: CaptionedPhoto | NamedPhoto, size: int = SIZE) -> Pixels:
    """(size, size, 3) uint8 RGB."""
    source = photo.path if isinstance(photo, CaptionedPhoto) else io.BytesIO(photo.data)
    with Image.open(source) as image:
        return squash(image, size)


def plain(sentence: str) -> str:
    """A sentence in lower case without punctuation, to tell whether two are the same."""
    return " ".join(re.findall(r"[a-z0-9]+", sentence.lower()))


@functools.cache
def measured_captions(data: Path) -> frozenset[str]:
    """The English captions of Flickr8k's dev and test photos, in their plain form."""
    photos = [photo for split in ("dev", "test") for photo in flickr8k(data, split)]
    return frozenset(plain(caption) for photo in photos for caption in photo.captions)


def unmeasured(data: Path, texts: Sequence[str]) -> list[str]:
    """These sentences without those that equal a dev or test caption."""
    return [text for text in texts if plain(text) not in measured_captions(data)]


def sentences(data: Path, name: str) -> Iterator[str]:
    """The lines of one file of captions_text, such as 'images.en'."""
    with gzip.open(data / "captions_text" / f"{name}.txt.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield line.strip()

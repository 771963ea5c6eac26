"""PAIRS: where `mmsearch train` finds files and what people wrote about them.

    photos.csv, .tsv     columns file (or path, image, audio) and caption (or text), a row a caption
    photos.jsonl         the same as objects; "captions" may be a list
    folder/              x.jpg or x.wav beside x.txt, a line a caption; tars in it are read, too
    Flickr8k.token.txt   name.jpg#0<TAB>caption, the photos beside it or in images/
    captions_*.json      COCO: "images" and "annotations"
    shard-0000.tar       webdataset: members key.jpg and key.txt (or key.json with a caption)

A tar is never extracted: its members are read where they lie, and links and devices among them
are passed over. What is wrong with one pair is told of that pair (`Bad`), and the others go on; a
list or an archive that is itself damaged raises PairsError.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmsearch.errors import LoadError, PairsError
from mmsearch.files import WalkRules, describe, display, read_regular, walk
from mmsearch.lists import READERS, captions_in, read_rows
from mmsearch.records import Modality, Reason
from mmsearch.sidecars import read_lines

_SUFFIXES = {
    Modality.IMAGE: "jpg jpeg jpe jfif png webp gif bmp tif tiff ppm avif heic heif",
    Modality.AUDIO: "wav flac ogg oga mp3",
}
MODALITY_OF = {suffix: kind for kind, names in _SUFFIXES.items() for suffix in names.split()}

_FOLDERS = (".", "images", "Images", "Flicker8k_Dataset", "../images")  # where lists keep photos
_COCO_FOLDERS = (".", "images", "train2017", "val2017", "../train2017", "../val2017", "../images")
_LARGEST = 256_000_000  # bytes of one picture or sound
_LONGEST = 1_000_000  # bytes of one caption file


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture or sound and its captions. A tar's member lies at `offset`, `size` bytes long."""

    file: Path
    modality: Modality
    captions: tuple[str, ...]
    offset: int = 0
    size: int | None = None
    member: str = ""
    digest: str = ""  # SHA-256 of the content, once it was read

    @property
    def name(self) -> str:
        """What messages call it."""
        place = display(os.fsencode(self.file))
        return f"{place}: {display(self.member)}" if self.member else place

    def read(self) -> bytes:
        """The bytes of the picture or sound. Raises LoadError."""
        if self.size is None:
            path = os.path.realpath(os.fsencode(self.file))  # lists of links are common
            return read_regular(path, _LARGEST, lambda head: None)[0]
        if self.size > _LARGEST:
            raise LoadError(Reason.TOO_LARGE, f"{self.size / 1e6:,.0f} MB is over the limit")
        try:
            with open(self.file, "rb") as archive:
                archive.seek(self.offset)
                return archive.read(self.size)
        except OSError as error:
            raise LoadError(Reason.UNREADABLE, describe(error)) from error


@dataclass(frozen=True, slots=True)
class Bad:
    """What was skipped, and why."""

    name: str
    reason: str


def read_pairs(places: Sequence[Path], images: Path | None = None) -> tuple[list[Pair], list[Bad]]:
    """Every file of all PAIRS with all its captions, in the order of the lists, and what is bad.

    `images`: the folder that names in lists are relative to, if it is not where lists are kept.
    No file is opened yet. Raises PairsError for a list or an archive that cannot be read.
    """
    captions: dict[Pair, dict[str, None]] = {}
    bad: list[Bad] = []
    for place in places:
        for found in _rows(place, images):
            if isinstance(found, Bad):
                bad.append(found)
                continue
            said = captions.setdefault(replace(found, captions=()), {})
            for caption in found.captions:
                words = " ".join(caption.split())
                if words:
                    said[words] = None
                else:
                    bad.append(Bad(found.name, "an empty caption"))
    pairs = [replace(pair, captions=tuple(said)) for pair, said in captions.items() if said]
    bad += [Bad(p.name, "no caption") for p, said in captions.items() if not said]
    return pairs, list(dict.fromkeys(bad))


def usable_pairs(
    pairs: Iterable[Pair], decode: Callable[[Pair, bytes], Any], workers: int
) -> Iterator[Pair | Bad]:
    """Read and decode every file once: pairs with their digests, or what is wrong, in order.

    `decode` raises LoadError for a file that is no use. Files of equal content are for
    `merged` to join.
    """

    def judge(pair: Pair) -> Pair | Bad:
        try:
            data = pair.read()
            decode(pair, data)
        except LoadError as error:
            return Bad(pair.name, f"{error.reason}: {error}")
        return replace(pair, digest=hashlib.sha256(data).hexdigest())

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(judge, pairs)


def merged(pairs: Iterable[Pair]) -> list[Pair]:
    """Pairs of equal content as one, with the captions of all: a copy is never a negative."""
    found: dict[str, Pair] = {}
    for pair in pairs:
        first = found.setdefault(pair.digest, pair)
        if first is not pair:
            both = tuple(dict.fromkeys(first.captions + pair.captions))
            found[pair.digest] = replace(first, captions=both)
    return list(found.values())


def data_hash(pairs: Iterable[Pair]) -> str:
    """SHA-256 of the content and the captions of all pairs, wherever the files lie."""
    whole = hashlib.sha256()
    for pair in pairs:
        whole.update(json.dumps([pair.digest, pair.captions], ensure_ascii=False).encode())
    return whole.hexdigest()


def held_out(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """(the rest, those held out): the files whose digests come first.

    The same files each time, wherever they lie and whatever their order. At least one file is
    held out unless the share is 0, and at least one is left.
    """
    count = min(len(pairs) - 1, max(1, round(share * len(pairs)))) if share else 0
    chosen = {pair.digest for pair in sorted(pairs, key=lambda pair: pair.digest)[:count]}
    rest = [pair for pair in pairs if pair.digest not in chosen]
    return rest, [pair for pair in pairs if pair.digest in chosen]


def _rows(place: Path, images: Path | None) -> Iterator[Pair | Bad]:
    name = display(os.fsencode(place))
    try:
        if place.is_dir():
            yield from _folder(place)
        elif not place.exists():
            raise PairsError(f"{name}: no such file or folder")
        elif reader := _READERS.get(place.suffix.lower()):
            yield from reader(place, images)
        else:
            raise PairsError(
                f"{name} is none of the lists that are known: give a folder of x.jpg and x.txt, or "
                f"a file that ends in {', '.join(_READERS)}"
            )
    except UnicodeDecodeError as error:
        raise PairsError(f"{name} is not UTF-8 text: byte {error.start}") from error
    except OSError as error:
        raise PairsError(f"{name}: {describe(error)}") from error


def _listed(place: Path, name: str, folders: Sequence[str], images: Path | None) -> Path:
    """Where a file that a list names is: the first folder that has it, else beside the list."""
    if images is not None:
        return images / name
    tried = [place.parent / folder / name for folder in folders]
    return next((path for path in tried if path.exists()), tried[0])


def _pair(file: Path, captions: Iterable[str], kind: Modality | None = None) -> Pair | Bad:
    kind = kind or MODALITY_OF.get(file.suffix.lower().lstrip("."))
    if kind is None:
        return Bad(display(os.fsencode(file)), "neither a picture nor a sound by its name")
    return Pair(file, kind, tuple(captions))


# --- lists ---


def _list(place: Path, images: Path | None) -> Iterator[Pair | Bad]:
    """CSV, TSV and lines of JSON: see mmsearch.lists."""
    name = display(os.fsencode(place))
    with open(place, encoding="utf-8-sig", newline="") as file:
        try:
            for row in read_rows(file, place.suffix.lower()):
                if row.wrong:
                    yield Bad(f"{name}, line {row.line}", row.wrong)
                else:
                    kind = Modality(row.column) if row.column in ("image", "audio") else None
                    yield _pair(_listed(place, row.file, _FOLDERS, images), row.captions, kind)
        except LoadError as error:
            raise PairsError(f"{name}: {error}") from error


def _tokens(place: Path, images: Path | None) -> Iterator[Pair | Bad]:
    """Flickr8k's: name.jpg#0, a tab (or a space, in the Chinese file), a caption."""
    with open(place, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            key, tab, caption = line.rstrip("\n").partition("\t" if "\t" in line else " ")
            name, mark, _ = key.partition("#")
            if not line.strip():
                continue
            if not (tab and mark and name):
                raise PairsError(
                    f"{display(os.fsencode(place))}, line {number}: not name.jpg#0<TAB>caption, as "
                    "in Flickr8k.token.txt"
                )
            yield _pair(_listed(place, name, _FOLDERS, images), [caption])


def _coco(place: Path, images: Path | None) -> Iterator[Pair | Bad]:
    try:
        whole = json.loads(place.read_text(encoding="utf-8-sig"))
        names = {image["id"]: str(image["file_name"]) for image in whole["images"]}
        said = [(note["image_id"], note["caption"]) for note in whole["annotations"]]
    except UnicodeDecodeError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PairsError(
            f"{display(os.fsencode(place))} is damaged, or not a file of COCO captions with images "
            f"(id, file_name) and annotations (image_id, caption): {type(error).__name__} {error}"
        ) from error
    for image, caption in said:
        if image not in names:
            yield Bad(
                display(os.fsencode(place)), f"a caption of image {image}, which is not there"
            )
            continue
        file = _listed(place, names[image], _COCO_FOLDERS, images)
        yield _pair(file, [caption if isinstance(caption, str) else ""])


# --- files side by side ---


def _folder(place: Path) -> Iterator[Pair | Bad]:
    for folder in walk(os.path.realpath(os.fsencode(place)), WalkRules()):
        if folder.error:
            yield Bad(display(folder.path), folder.error)
        names = [os.fsdecode(name) for name, _ in folder.files]
        here = Path(os.fsdecode(folder.path))
        stems = {Path(name).stem for name in names if Path(name).suffix.lower() == ".txt"}
        for name in names:
            file = here / name
            suffix = file.suffix.lower().lstrip(".")
            if suffix == "tar":
                yield from _tar(file, None)
            elif suffix in MODALITY_OF and file.stem in stems:
                yield _beside(file)
            elif suffix in MODALITY_OF:
                yield Bad(display(os.fsencode(file)), f"no {file.stem}.txt with captions beside it")


def _beside(file: Path) -> Pair | Bad:
    text = os.path.realpath(os.fsencode(file.with_suffix(".txt")))
    try:
        return _pair(file, read_lines(text, _LONGEST))
    except LoadError as error:
        return Bad(display(text), f"its captions cannot be read: {error}")


def _tar(place: Path, images: Path | None) -> Iterator[Pair | Bad]:
    """A webdataset: members of the same name up to the first dot belong together."""
    found: dict[str, tuple[list[Pair], list[str]]] = {}
    name = display(os.fsencode(place))
    try:
        with open(place, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if not member.isreg() or member.issparse():
                    continue
                folder, _, last = member.name.rpartition("/")
                stem, _, ending = last.partition(".")
                media, said = found.setdefault(f"{folder}/{stem}", ([], []))
                suffix = ending.rpartition(".")[2].lower()
                if suffix in ("txt", "json", "caption"):
                    try:
                        said += _said(archive, member, suffix)
                    except (ValueError, RecursionError) as error:
                        yield Bad(f"{name}: {display(member.name)}", f"no caption: {error}")
                elif suffix in MODALITY_OF:
                    at, size = member.offset_data, member.size
                    kind = MODALITY_OF[suffix]
                    media.append(Pair(place, kind, (), at, size, member.name))
            file.seek(archive.offset)
            end = file.read(tarfile.BLOCKSIZE)
            if len(end) < tarfile.BLOCKSIZE or any(end):
                raise tarfile.ReadError("a block that is no header, or no end, where one should be")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise PairsError(
            f"{name} is damaged or not a plain tar (unpack .gz first): {error}"
        ) from error
    for media, said in found.values():
        yield from (replace(pair, captions=tuple(said)) for pair in media)


def _said(archive: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> list[str]:
    """The captions of a tar's text member. Raises ValueError."""
    if member.size > _LONGEST:
        raise ValueError(f"{member.size:,} bytes are too many")
    content = archive.extractfile(member)
    text = content.read().decode("utf-8-sig") if content else ""
    if suffix != "json":
        return [line for line in text.splitlines() if line.strip()]
    row = json.loads(text)
    return list(captions_in(row)) if isinstance(row, dict) else []


_READERS: dict[str, Callable[[Path, Path | None], Iterator[Pair | Bad]]] = {
    **dict.fromkeys(READERS, _list),
    ".json": _coco,
    ".txt": _tokens,
    ".tar": _tar,
}

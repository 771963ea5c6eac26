"""PAIRS: where files and what people wrote about them are found.

    photos.csv, .tsv     columns file (or path, image, audio) and caption (or text), a row a
                         caption; Clotho's caption_1 ... caption_5, AudioCaps' youtube_id,
                         Flickr30k's results.csv with bars; captions.txt with "image,caption"
    photos.jsonl         the same as objects; "captions" may be a list
    folder/              x.jpg or x.wav beside x.txt, a line a caption; tars in it are read, too
    Flickr8k.token.txt   name.jpg#0<TAB>caption, the photos beside it or in images/; Flickr30k's
    dataset_*.json       Karpathy and Fei-Fei's (arXiv 1412.2306): "images" with "sentences"
    captions_*.json      COCO: "images" and "annotations"
    shard-0000.tar       webdataset: members key.jpg and key.txt (or key.json with a caption)

A tar is never extracted: its members are read where they lie, and links and devices among them
are passed over. What is wrong with one pair is told of that pair (`Bad`), and the others go on; a
list or an archive that is itself damaged raises PairsError.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmsearch.datasets.beside import in_folder, in_tar
from mmsearch.datasets.pairs import MODALITY_OF, Bad, Pair, pair
from mmsearch.errors import LoadError, PairsError
from mmsearch.files import describe, display
from mmsearch.lists import READERS, read_rows
from mmsearch.records import Modality

# Where lists keep what they name, as seen from their own folder or from that of `images`.
_FOLDERS = (
    ".", "images", "Images", "Flicker8k_Dataset", "flickr30k-images",
    "flickr30k_images", "flickr30k_images/flickr30k_images", "audio", "..", "../images",
    "train2017", "val2017", "../train2017", "../val2017",
)  # fmt: skip

_Rows = Iterator[Pair | Bad]


def read_pairs(places: Sequence[Path], images: Path | None = None) -> tuple[list[Pair], list[Bad]]:
    """Every file of all PAIRS with all its captions, in the order of the lists, and what is bad.

    `images`: the folder that names in lists are relative to, if it is not where lists are kept.
    No file is opened yet. Raises PairsError for a list or an archive that cannot be read.
    """
    captions: dict[Pair, dict[str, None]] = {}
    bad: list[Bad] = []
    for place in places:
        for found in rows(place, images):
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
    pairs = [replace(one, captions=tuple(said)) for one, said in captions.items() if said]
    bad += [Bad(one.name, "no caption") for one, said in captions.items() if not said]
    return pairs, list(dict.fromkeys(bad))


def rows(place: Path, images: Path | None = None, split: str | None = None) -> _Rows:
    """What a list, an archive or a folder holds, a pair a row: a file may come several times.

    `split`: only that part of the set, where the list itself says what is in it. Raises
    PairsError.
    """
    name = display(os.fsencode(place))
    try:
        if place.is_dir():
            yield from in_folder(place)
        elif not place.exists():
            raise PairsError(f"{name}: no such file or folder")
        elif place.suffix.lower() == ".tar":
            yield from in_tar(place)
        elif reader := _READERS.get(place.suffix.lower()):
            yield from reader(place, images, split)
        else:
            raise PairsError(
                f"{name} is none of the lists that are known: give a folder of x.jpg and x.txt, or "
                f"a file that ends in {', '.join(_READERS)}, .tar"
            )
    except UnicodeDecodeError as error:
        raise PairsError(f"{name} is not UTF-8 text: byte {error.start}") from error
    except OSError as error:
        raise PairsError(f"{name}: {describe(error)}") from error


def _listed(place: Path, name: str, images: Path | None) -> Path:
    """Where a file that a list names is: the first folder that has it, else the likeliest."""
    tried = [(images or place.parent) / folder / name for folder in _FOLDERS]
    own = place.stem.rpartition("captions_")[2]  # COCO's, Clotho's folders are called as splits are
    tried += [(images or place.parent) / above / own / name for above in (".", "..")]
    return next((path for path in tried if path.exists()), tried[0])


def _list(place: Path, images: Path | None, split: str | None) -> _Rows:
    """CSV, TSV and lines of JSON: see mmsearch.lists."""
    name, suffix = display(os.fsencode(place)), place.suffix.lower()
    clips: dict[str, Path] | None = None
    with open(place, encoding="utf-8-sig", newline="") as file:
        try:
            for row in read_rows(file, ".csv" if suffix == ".txt" else suffix):
                if split and row.split and row.split != split:
                    continue
                if row.wrong:
                    yield Bad(f"{name}, line {row.line}", row.wrong)
                elif row.column == "youtube_id":
                    clips = _clips(images or place.parent) if clips is None else clips
                    clip = clips.get(row.file, place.parent / f"{row.file}.wav")
                    yield Pair(clip, Modality.AUDIO, row.captions)
                else:
                    kind = Modality(row.column) if row.column in ("image", "audio") else None
                    yield pair(_listed(place, row.file, images), row.captions, kind)
        except LoadError as error:
            raise PairsError(f"{name}: {error}") from error


def _clips(folder: Path) -> dict[str, Path]:
    """The sounds below a folder by the YouTube id, of 11 characters, that they are called by:
    ID.wav, YID.wav, or ID_30.wav with the second at which it starts.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if MODALITY_OF.get(path.suffix.lower().lstrip(".")) is Modality.AUDIO:
            stem = path.stem
            id = stem[1:] if len(stem) == 12 and stem[0] == "Y" else stem[:11]
            found.setdefault(id, path)
    return found


def _tokens(place: Path, images: Path | None, split: str | None) -> _Rows:
    """Flickr8k's: name.jpg#0, a tab (or a space, in the Chinese file), a caption.

    The photos of a split come as its own list has them (Flickr_8k.testImages.txt, or Flickr30k's
    test.txt), each once.
    """
    with open(place, encoding="utf-8-sig") as file:
        if file.readline().strip().lower() == "image,caption":  # Flickr8k as Kaggle has it
            yield from _list(place, images, split)
            return
    found: dict[str, list[str]] | None = None
    if split is not None:
        found = {name: [] for name in _names(place, split)}
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
            if found is None:
                yield pair(_listed(place, name, images), [caption])
            elif name in found:
                found[name].append(caption)
    for name, said in (found or {}).items():
        yield pair(_listed(place, name, images), said)


def _names(place: Path, split: str) -> list[str]:
    """The photos of a split."""
    for pattern in (f"*{split}Images.txt", f"{split}.txt"):
        for path in sorted(place.parent.glob(pattern)):
            names = path.read_text(encoding="utf-8").split()
            return [name if Path(name).suffix else f"{name}.jpg" for name in names]
    raise PairsError(
        f"{display(os.fsencode(place.parent))} has no list of the split {split!r}: "
        f"*{split}Images.txt or {split}.txt"
    )


def _json(place: Path, images: Path | None, split: str | None) -> _Rows:
    """Karpathy's, or COCO's; what the latter's file is called says which split it is."""
    try:
        whole = json.loads(place.read_text(encoding="utf-8-sig"))
        karpathy = any("sentences" in image for image in whole["images"])
        found = list(_karpathy(whole, split) if karpathy else _coco(whole))
    except UnicodeDecodeError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PairsError(
            f"{display(os.fsencode(place))} is damaged, or not a file of COCO captions with images "
            f"(id, file_name) and annotations (image_id, caption), nor Karpathy's: "
            f"{type(error).__name__} {error}"
        ) from error
    for name, said in found:
        if name is None:
            yield Bad(display(os.fsencode(place)), said[0])
        else:
            yield pair(_listed(place, name, images), said)


def _karpathy(whole: Any, split: str | None) -> Iterator[tuple[str, list[str]]]:
    for image in whole["images"]:
        if split is None or image["split"] == split:
            folder = f"{image['filepath']}/" if "filepath" in image else ""
            yield folder + image["filename"], [said["raw"] for said in image["sentences"]]


def _coco(whole: Any) -> Iterator[tuple[str | None, list[str]]]:
    """(name, its captions) in the order of the images; (None, [why]) of a stray caption."""
    names = {image["id"]: str(image["file_name"]) for image in whole["images"]}
    said: dict[Any, list[str]] = {image: [] for image in names}
    for note in whole["annotations"]:
        image, caption = note["image_id"], note["caption"]
        if image in said:
            said[image].append(caption if isinstance(caption, str) else "")
        else:
            yield None, [f"a caption of image {image}, which is not there"]
    yield from ((names[image], captions) for image, captions in said.items())


_READERS: dict[str, Callable[[Path, Path | None, str | None], _Rows]] = {
    **dict.fromkeys(READERS, _list),
    ".json": _json,
    ".txt": _tokens,
    ".token": _tokens,
}

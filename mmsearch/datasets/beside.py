"""Pairs that lie side by side: x.jpg and x.txt in a folder, or as members of a tar."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mmsearch.datasets.pairs import MODALITY_OF, Bad, Pair, pair
from mmsearch.errors import LoadError, PairsError
from mmsearch.files import WalkRules, display, walk
from mmsearch.lists import captions_in
from mmsearch.sidecars import read_lines

_LONGEST = 1_000_000  # bytes of one caption file


def in_folder(place: Path) -> Iterator[Pair | Bad]:
    """Pictures and sounds with an x.txt beside them, a line a caption; and all that is in tars."""
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
                yield from in_tar(file)
            elif suffix in MODALITY_OF and file.stem in stems:
                yield _beside(file)
            elif suffix in MODALITY_OF:
                yield Bad(display(os.fsencode(file)), f"no {file.stem}.txt with captions beside it")


def _beside(file: Path) -> Pair | Bad:
    text = os.path.realpath(os.fsencode(file.with_suffix(".txt")))
    try:
        return pair(file, read_lines(text, _LONGEST))
    except LoadError as error:
        return Bad(display(text), f"its captions cannot be read: {error}")


def in_tar(place: Path) -> Iterator[Pair | Bad]:
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
        yield from (replace(one, captions=tuple(dict.fromkeys(said))) for one in media)


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

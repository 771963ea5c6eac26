"""Lists of captions: a row names a file and says something of it.

CSV (with tabs TSV) has the columns file (or path, filename, file_name, filepath, image, audio, or
as AudioCaps has it youtube_id) and caption (or captions, text, sentence, title; or caption_1,
caption_2 and so on, as Clotho has it), and perhaps split; lines of JSON are objects with the same
keys, whose "captions" may be a list. A header `image_name| comment_number| comment`, as Flickr30k's
results.csv has it, says that bars part the cells and quotes mean nothing. Several rows may be of
one file. What is wrong with one row is said of that row, and the others go on; a damaged list is
refused as a whole.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from mmsearch.errors import LoadError
from mmsearch.records import Reason

_FILE_COLUMNS = (
    "file", "path", "filename", "file_name", "filepath", "image_name", "image", "audio",
    "youtube_id",
)  # fmt: skip
_CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "title", "comment")
_NUMBERED = tuple(f"caption_{number}" for number in range(1, 11))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a list. `column` is the one that names the file: "image" and "audio" say what
    it is. `split`: the part of the set that it is of, where the list says. `wrong`: why the row
    is of no use, empty for one that is.
    """

    line: int
    column: str = ""
    file: str = ""
    captions: tuple[str, ...] = ()
    split: str = ""
    wrong: str = ""


def read_rows(lines: Iterable[str], suffix: str) -> Iterator[Row]:
    """The rows of a list whose name ends in one of `READERS`; `lines` keep their ends.

    Raises LoadError with CORRUPT, in which the line is named, where the list is damaged.
    """
    return READERS[suffix](lines)


def _table(lines: Iterable[str], delimiter: str = ",") -> Iterator[Row]:
    every = iter(lines)
    if "|" in (head := next(every, "")) and delimiter not in head:
        yield from _barred(head, every)
        return
    reader = csv.DictReader(chain([head], every), delimiter=delimiter, strict=True)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        _check(names)
        for row in reader:
            if None in row:
                wrong = "more cells than columns: a caption with a comma needs quotes"
                yield Row(reader.line_num, wrong=wrong)
            else:
                yield _row(row, reader.line_num)
    except csv.Error as error:
        raise LoadError(Reason.CORRUPT, f"line {reader.line_num}: damaged: {error}") from error


def _barred(head: str, lines: Iterable[str]) -> Iterator[Row]:
    """Flickr30k's results.csv: NAME| NUMBER| CAPTION; one of its rows has spaces for the bars."""
    names = [name.strip().lower() for name in head.split("|")]
    _check(names)
    for number, line in enumerate(lines, 2):
        cells = line.split("|", len(names) - 1)
        if len(cells) == 1:
            cells = line.split(maxsplit=len(names) - 1)
        if cells and len(cells) < len(names):
            yield Row(number, wrong=f"{len(cells)} cells for {len(names)} columns")
        elif cells:
            said = (cell.strip() for cell in cells)
            yield _row(dict(zip(names, said, strict=True)), number)


def _json_lines(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise LoadError(Reason.CORRUPT, f"line {number}: damaged: {error}") from error
        if row is None:
            continue
        if not isinstance(row, dict):
            example = '{"file": ..., "caption": ...}'
            raise LoadError(Reason.CORRUPT, f"line {number}: not an object such as {example}")
        _check(row)
        yield _row(row, number)


def _check(names: Iterable[str]) -> None:
    for wanted, also in ((_FILE_COLUMNS, ()), (_CAPTION_COLUMNS, _NUMBERED)):
        if not {*wanted, *also} & set(names):
            raise LoadError(
                Reason.CORRUPT,
                f"it needs a column {' or '.join(wanted)}; "
                f"it has {', '.join(map(repr, names)) or 'none'}",
            )


def _row(row: Mapping[str, Any], line: int) -> Row:
    column = next(name for name in _FILE_COLUMNS if name in row)
    file, captions = row[column], captions_in(row)
    if not isinstance(file, str) or not file.strip() or "\0" in file:
        return Row(line, wrong=f"a row without a file: {captions}")
    split = row.get("split")
    return Row(line, column, file.strip(), captions, split if isinstance(split, str) else "")


def captions_in(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of a row or of a webdataset's JSON; what is no text counts as empty."""
    if numbered := [row[name] for name in _NUMBERED if row.get(name)]:
        said: Any = numbered
    else:
        said = next((row[name] for name in _CAPTION_COLUMNS if name in row), "")
    several = said if isinstance(said, list) else [said]
    return tuple(caption if isinstance(caption, str) else "" for caption in several)


READERS: dict[str, Callable[[Iterable[str]], Iterator[Row]]] = {
    ".csv": _table,
    ".tsv": lambda lines: _table(lines, "\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}

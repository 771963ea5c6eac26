"""Answers on stdout, in the form that was asked for."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from mmsearch.files import display
from mmsearch.printing.plain import clock, note, print_json
from mmsearch.records import Hit, Modality, Share

_EXCERPT = 72  # characters of a passage
_WORDS, _PIECES = 6, 3  # printed under an answer: those that carry most
_SHARE = 40  # characters of one of them
_COLUMNS = ["rank", "score", "relevance", "path", "modality", "id", "start", "end"]


class Format(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    PATHS = "paths"
    HTML = "html"


def print_hits(
    hits: Sequence[Hit],
    form: Format,
    *,
    nul: bool = False,
    thumbnails: bool | None = None,
    title: str = "",
) -> None:
    """Print answers. `nul` prints bare paths, as they are, with NUL behind each (xargs -0).

    `thumbnails` puts small pictures into a table and a sheet of HTML; None does so in HTML,
    and in a terminal that is known to show them. `title` is what a sheet is headed with.
    """
    out = sys.stdout
    if nul:
        out.buffer.write(b"".join(os.fsencode(hit.path) + b"\0" for hit in hits))
    elif form is Format.PATHS:
        out.buffer.write(b"".join(os.fsencode(hit.path) + b"\n" for hit in hits))
    elif form is Format.JSON:
        print_json([hit.as_dict() for hit in hits])
    elif form is Format.NDJSON:
        for hit in hits:
            print(json.dumps(hit.as_dict(), ensure_ascii=False))
    elif form is Format.CSV:
        _print_csv([hit.as_dict() for hit in hits], _COLUMNS)
    elif form is Format.HTML:
        from mmsearch.sheet import page

        print(page(hits, title=title, thumbnails=thumbnails is not False))
    else:
        _print_table(hits, thumbnails)


def print_many(
    found: Mapping[str, Sequence[Hit]],
    form: Format,
    *,
    nul: bool = False,
    thumbnails: bool | None = None,
) -> None:
    """Print the answers to several queries: a list of each in JSON, else one after the other,
    each row with its query where rows have fields.
    """
    if nul or form in (Format.PATHS, Format.HTML):
        every = [hit for hits in found.values() for hit in hits]
        print_hits(every, form, nul=nul, thumbnails=thumbnails)
    elif form is Format.JSON:
        listed = [(query, [hit.as_dict() for hit in hits]) for query, hits in found.items()]
        print_json([{"query": query, "hits": rows} for query, rows in listed])
    elif form is Format.TABLE:
        for number, (query, hits) in enumerate(found.items()):
            print(f"{'' if number == 0 else chr(10)}{display(query)}")
            _print_table(hits, thumbnails)
    else:
        rows = [{"query": query} | hit.as_dict() for query, hits in found.items() for hit in hits]
        if form is Format.NDJSON:
            for row in rows:
                print(json.dumps(row, ensure_ascii=False))
        else:
            _print_csv(rows, ["query", *_COLUMNS])


def _print_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_table(hits: Sequence[Hit], thumbnails: bool | None) -> None:
    calibrated = any(hit.relevance is not None for hit in hits)
    tables = [list(_lines(hit, calibrated)) for hit in hits]
    if thumbnails is not False and any(hit.modality is Modality.IMAGE for hit in hits):
        from mmsearch.printing import terminal

        if draw := terminal.pictures(sys.stdout):
            for hit, lines in zip(hits, tables, strict=True):
                print(terminal.beside(draw(hit), lines))
            return
        if thumbnails:
            note("this terminal is not known to show pictures; kitty, iTerm2 and WezTerm do")
    for lines in tables:
        print("\n".join(lines))


def _lines(hit: Hit, calibrated: bool) -> Iterator[str]:
    """An answer: its line, and beneath it what else there is to say."""
    score = " " * 6 if hit.score is None else f"{hit.score:6.3f}"
    relevance = ""
    if calibrated:
        relevance = " " * 6 if hit.relevance is None else f"  {hit.relevance:4.0%}"
    yield f"{hit.rank:>3}{relevance}  {score}  {display(os.fsencode(hit.path))}{_place(hit)}"
    if hit.duplicates:
        yield f"     and {len(hit.duplicates)} like it: {_named(hit)}"
    if hit.why and hit.why.words:
        yield f"     words: {_told(hit.why.words, _WORDS)}"
    if hit.why and hit.why.pieces:
        yield f"     pieces: {_told(hit.why.pieces, _PIECES)}"


def _place(hit: Hit) -> str:
    """Where in its file an answer is: the seconds of a sound, the beginning of a passage."""
    if hit.start is not None and hit.end is not None:
        return f"  {clock(hit.start)}–{clock(hit.end)}"
    if hit.text is not None:
        return f"  {_excerpt(hit.text)}"
    return ""


def _named(hit: Hit) -> str:
    names = [display(os.fsencode(path.name)) for path in hit.duplicates]
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _told(shares: Sequence[Share], count: int) -> str:
    """Those that carry most, first, each with what the score loses without it."""
    most = sorted(shares, key=lambda share: -share.carried)[:count]
    told = ", ".join(f"{_excerpt(share.what, _SHARE)} {share.carried:+.3f}" for share in most)
    return told + (", …" if len(shares) > count else "")


def _excerpt(text: str, longest: int = _EXCERPT) -> str:
    return display(text if len(text) <= longest else text[:longest] + "…")

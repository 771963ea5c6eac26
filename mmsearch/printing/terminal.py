"""Small pictures in terminals that can show them.

Two protocols: kitty's graphics (https://sw.kovidgoyal.net/kitty/graphics-protocol) and
iTerm2's inline images (https://iterm2.com/documentation-images.html). A terminal that knows
neither would print the escape sequences as rubbish, so that one is used only where the
environment names a terminal that is known to have it.
"""

from __future__ import annotations

import base64
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

from mmsearch.records import Hit, Modality
from mmsearch.thumbnails import as_png, thumbnail

COLUMNS, ROWS = 8, 3  # of the terminal's cells, for one picture
_CELL = (16, 32)  # pixels a cell is taken to have: a cell is about twice as high as wide
_CHUNK = 4096  # bytes of base64 that kitty takes at a time
_KONSOLE = 220400  # the first version that has kitty's graphics

Draw = Callable[[Hit], str]


def pictures(stream: TextIO, environment: Mapping[str, str] = os.environ) -> Draw | None:
    """What turns an answer into the escape sequence that draws it; None where none would."""
    protocol = _protocol(environment) if stream.isatty() else None
    if protocol is None:
        return None

    def draw(hit: Hit) -> str:
        width, height = COLUMNS * _CELL[0], ROWS * _CELL[1]
        small = thumbnail(hit.path, width) if hit.modality is Modality.IMAGE else None
        if small is None:
            return ""
        small.thumbnail((width, height))
        return protocol(as_png(small, (width, height)))

    return draw


def beside(picture: str, lines: Sequence[str]) -> str:
    """Lines of text with a picture at their left; the cursor ends at the last line of both.

    The room is made first: at the lower edge of the screen everything scrolls, and a
    position saved before that would be the wrong one after it.
    """
    width = shutil.get_terminal_size().columns - COLUMNS
    rows = [row for line in lines for row in _folded(line, max(width, 1))]
    height = max(ROWS, len(rows))
    room = "\n" * height + f"\x1b[{height}A"
    drawn = f"\x1b7{picture}\x1b8" if picture else ""
    indented = [f"\x1b[{COLUMNS}C{row}" for row in rows]
    return room + drawn + "\n".join(indented) + "\n" * (height - len(rows))


def _folded(line: str, width: int) -> Iterator[str]:
    """The line in rows of at most `width` cells: the terminal's own would run below a picture."""
    row, used = "", 0
    for char in line:
        cells = 0 if unicodedata.combining(char) else 1
        if unicodedata.east_asian_width(char) in "WF":
            cells = 2
        if used + cells > width and row:
            yield row
            row, used = "", 0
        row, used = row + char, used + cells
    yield row


def _protocol(environment: Mapping[str, str]) -> Callable[[bytes], str] | None:
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux", "dumb")):
        return None  # it stands between us and the terminal, and lets no pictures through
    if term in ("xterm-kitty", "xterm-ghostty") or "KITTY_WINDOW_ID" in environment:
        return _kitty
    konsole = environment.get("KONSOLE_VERSION", "")
    if konsole.isdecimal() and int(konsole) >= _KONSOLE:
        return _kitty
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return _iterm2
    return None


def _kitty(png: bytes) -> str:
    """Transmit and show (a=T) a PNG (f=100) without an answer (q=2) or a moved cursor (C=1)."""
    data = base64.b64encode(png).decode("ascii")
    chunks = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
    keys = f"a=T,f=100,q=2,C=1,c={COLUMNS},r={ROWS},"
    sequences = []
    for number, chunk in enumerate(chunks, start=1):
        more = int(number < len(chunks))
        sequences.append(f"\x1b_G{keys}m={more};{chunk}\x1b\\")
        keys = ""
    return "".join(sequences)


def _iterm2(png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    size = f"size={len(png)};width={COLUMNS};height={ROWS}"
    return f"\x1b]1337;File=inline=1;{size};preserveAspectRatio=1:{data}\x07"

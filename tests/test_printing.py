"""The table of answers, and small pictures beside it in terminals that can show them."""

from __future__ import annotations

import base64
import io
import re
from datetime import datetime
from pathlib import Path

import pytest
from conftest import paint
from PIL import Image

from mmsearch.ingest import Progress
from mmsearch.printing import Format, Meter, meters, print_hits, print_report, terminal
from mmsearch.records import Hit, Modality, Report, Share, Why

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT


def table(capsys, *hits, **options):
    print_hits(hits, Format.TABLE, **options)
    return capsys.readouterr().out.splitlines()


def test_the_table_as_it_was(capsys):
    """Without relevance: rank, score, path, and where in the file."""
    assert table(
        capsys,
        Hit(1, 0.3124, None, Path("/p/dog.jpg"), IMAGE, 1),
        Hit(2, 0.25, None, Path("/p/bark.ogg"), AUDIO, 2, 5.0, 10.0),
        Hit(10, None, None, Path("/p/notes.txt"), TEXT, 3, text="x" * 80),
    ) == [
        "  1   0.312  /p/dog.jpg",
        "  2   0.250  /p/bark.ogg  0:05–0:10",
        f" 10          /p/notes.txt  {'x' * 72}…",
    ]


def test_relevance_duplicates_and_reasons(capsys):
    """Percent where one is known; below the line what was folded in and what carried it."""
    words = tuple(Share(word, 0.01 * n) for n, word in enumerate("abcdefg"))
    why = Why(words, (Share("x" * 41, -0.0204), *[Share("y", -1.0)] * 3))
    copies = tuple(Path("/p") / f"{n}\n.jpg" for n in range(5))
    assert table(
        capsys,
        Hit(1, 0.3, 0.871, Path("/p/\x1b[31m.ogg"), AUDIO, 1, duplicates=copies, why=why),
        Hit(2, 0.2, None, Path("/p/b.jpg"), IMAGE, 2, taken=datetime(2024, 1, 1), why=Why()),
    ) == [
        r"  1   87%   0.300  /p/\x1b[31m.ogg",
        r"     and 5 like it: 0\n.jpg, 1\n.jpg, 2\n.jpg, …",
        "     words: g +0.060, f +0.050, e +0.040, d +0.030, c +0.020, b +0.010, …",
        f"     pieces: {'x' * 40}… -0.020, y -1.000, y -1.000, …",
        "  2         0.200  /p/b.jpg",
    ]


def test_a_sheet_goes_to_stdout(capsys, tmp_path):
    """--format html; without pictures where they are not wanted."""
    red = Hit(1, 0.3, None, paint(tmp_path / "red.png", "red"), IMAGE, 1)
    print_hits([red], Format.HTML, title="a <red> wall")
    shown = capsys.readouterr().out
    assert shown.startswith("<!doctype html>")
    assert shown.endswith("</html>\n")
    assert "<h1>a &lt;red&gt; wall</h1>" in shown
    assert "<img" in shown
    print_hits([red], Format.HTML, thumbnails=False)
    assert "<img" not in capsys.readouterr().out


# -- pictures ------------------------------------------------------------------------------------


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


PROTOCOLS = [
    ({"TERM": "xterm-kitty"}, "kitty"),
    ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
    ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
    ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230804"}, "kitty"),
    ({"TERM": "xterm-256color", "KONSOLE_VERSION": "211203"}, None),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
    ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
    ({"TERM": "xterm-256color"}, None),
    ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, None),
    ({"TERM": "screen", "LC_TERMINAL": "iTerm2"}, None),
    ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux-0/default,1,0"}, None),
    ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, None),
    ({}, None),
]


@pytest.mark.parametrize("environment, protocol", PROTOCOLS)
def test_only_terminals_known_to_show_pictures_get_them(tmp_path, environment, protocol):
    """By the environment; nothing that is not a terminal gets any."""
    red = Hit(1, 0.3, None, paint(tmp_path / "red.png", "red", (300, 150)), IMAGE, 1)
    assert terminal.pictures(io.StringIO(), environment) is None
    draw = terminal.pictures(Tty(), environment)
    if protocol is None:
        assert draw is None
        return
    drawn = draw(red)
    if protocol == "kitty":
        chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", drawn)
        ((keys, data),) = chunks
        assert keys == "a=T,f=100,q=2,C=1,c=8,r=3,m=0"
        data = base64.b64decode(data)
    else:
        head, data = re.fullmatch(r"\x1b]1337;File=([^:]*):([^\x07]*)\x07", drawn).groups()
        data = base64.b64decode(data)
        assert head == f"inline=1;size={len(data)};width=8;height=3;preserveAspectRatio=1"
    shown = Image.open(io.BytesIO(data))
    # 128 x 64 pixels of red in the middle of 8 x 3 cells of 16 x 32
    assert (shown.format, shown.mode, shown.size) == ("PNG", "RGBA", (128, 96))
    assert shown.getchannel("A").getbbox() == (0, 16, 128, 80)
    assert shown.getpixel((64, 48)) == (255, 0, 0, 255)


def test_a_long_picture_goes_out_in_chunks(tmp_path):
    """Noise does not compress: several chunks, which are one picture together."""
    noise = tmp_path / "noise.png"
    Image.effect_noise((256, 256), 100).save(noise)
    drawn = terminal.pictures(Tty(), {"TERM": "xterm-kitty"})(Hit(1, 0, None, noise, IMAGE, 1))
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", drawn)
    assert len(chunks) > 2
    more = [keys.rpartition("m=")[2] for keys, _ in chunks]
    assert more == ["1"] * (len(chunks) - 1) + ["0"]
    assert {len(data) for _, data in chunks[:-1]} == {4096}
    data = base64.b64decode("".join(data for _, data in chunks))
    assert Image.open(io.BytesIO(data)).getbbox() == (16, 0, 112, 96)


class Screen:
    """A terminal as far as it is used: text, newlines, cursor up and right, save and restore."""

    def __init__(self, width, height):
        self.cells = [[" "] * width for _ in range(height)]
        self.row, self.column, self.saved = 0, 0, (0, 0)
        self.pictures = []  # their names and the rows they begin in; scrolled with the text

    def feed(self, data):
        for text, up, right, mark, picture in re.findall(
            r"([^\x1b\n]+)|\x1b\[(\d+)A|\x1b\[(\d+)C|(\n|\x1b7|\x1b8)|\x1bP(\w+)\x1b\\", data
        ):
            for char in text:
                assert self.column < len(self.cells[0]), "the terminal would have wrapped"
                self.cells[self.row][self.column] = char
                self.column += 1
            self.row -= int(up or 0)
            self.column += int(right or 0)
            if picture:
                assert self.column == 0
                self.pictures.append((picture, self.row))
            elif mark == "\n":
                self.row, self.column = self.row + 1, 0
                if self.row == len(self.cells):
                    self.cells = [*self.cells[1:], [" "] * len(self.cells[0])]
                    self.row -= 1
                    self.pictures = [(name, row - 1) for name, row in self.pictures]
            elif mark == "\x1b7":
                self.saved = self.row, self.column
            elif mark == "\x1b8":
                self.row, self.column = self.saved


@pytest.mark.parametrize("height", [40, 9, 6])
def test_pictures_stand_beside_their_lines(height, monkeypatch):
    """Also where the screen scrolls, and where a line is longer than the screen is wide."""
    monkeypatch.setenv("COLUMNS", "30")
    screen = Screen(30, height)
    entries = {
        "one": ["first line"],
        "two": ["abcdefghijklmnopqrstuvwxyz"],
        "three": ["1", "2", "3", "4"],
        "four": ["last"],
    }
    for name, lines in entries.items():
        screen.feed(terminal.beside(f"\x1bP{name}\x1b\\", lines) + "\n")
    shown = ["".join(row).rstrip() for row in screen.cells]
    begins = {"one": "first line", "two": "abcdefghijklmnopqrstuv", "three": "1", "four": "last"}
    for name, row in screen.pictures:
        if row >= 0:
            assert shown[row] == " " * 8 + begins[name]
    rows = dict(screen.pictures)
    assert [rows[name] - rows["one"] for name in entries] == [0, 3, 6, 10]
    assert shown[rows["two"] + 1] == " " * 8 + "wxyz" if rows["two"] >= 0 else True
    assert (screen.row, screen.column) == (rows["four"] + 3, 0)
    assert terminal.beside("", ["x"]) == "\n\n\n\x1b[3A\x1b[8Cx\n\n"


def test_wide_characters_count_twice():
    """A row of a terminal holds half as many Chinese characters; accents take no room."""
    assert list(terminal._folded("狗在草地上", 4)) == ["狗在", "草地", "上"]
    assert list(terminal._folded("a狗b", 2)) == ["a", "狗", "b"]
    assert list(terminal._folded("e\u0301e\u0301e", 2)) == ["e\u0301e\u0301", "e"]
    assert list(terminal._folded("", 5)) == [""]


def test_a_table_with_pictures(tmp_path, monkeypatch, capsys):
    """Where the terminal can; a sound has its room empty; --no-thumbnails has the plain table."""
    red = Hit(1, 0.3, None, paint(tmp_path / "red.png", "red"), IMAGE, 1)
    hum = Hit(2, 0.2, None, Path("/p/hum.ogg"), AUDIO, 2, 0.0, 5.0)
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("TMUX", raising=False)
    stream = Tty()
    monkeypatch.setattr("sys.stdout", stream)
    print_hits([red, hum], Format.TABLE)
    shown = stream.getvalue()
    assert shown.count("\x1b_G") == 1
    assert shown.count("\x1b[8C") == 2
    plain = Tty()
    monkeypatch.setattr("sys.stdout", plain)
    print_hits([red, hum], Format.TABLE, thumbnails=False)
    assert plain.getvalue() == f"  1   0.300  {red.path}\n  2   0.200  /p/hum.ogg  0:00–0:05\n"
    monkeypatch.setenv("TERM", "vt100")
    print_hits([red], Format.TABLE, thumbnails=True)
    assert "not known to show pictures" in capsys.readouterr().err


def test_a_rate_counts_what_came_since_the_clock_began(monkeypatch, capsys):
    """A model's first step comes with its first files done: they say nothing of its speed."""
    times = iter([0.0, 2.0, 10.0, 10.000001, 12.0])
    monkeypatch.setattr(meters.time, "monotonic", lambda: next(times))
    meter = Meter()
    meter(Progress(4, 8, 4, 0))
    meter(Progress(4, 8, 4, 0, "other"))
    meter(Progress(8, 8, 8, 1, "other"))
    assert capsys.readouterr().err.splitlines() == [
        "indexed 4 of 8, 0 failed, 2 files/s, 0:02 left",
        "encoded with other 4 of 8, 0 failed",
        "encoded with other 8 of 8, 1 failed, 2 files/s, 0:00 left",
    ]


@pytest.mark.parametrize("count, said", [(1, "1 sidecar"), (2, "2 sidecars")])
def test_one_sidecar_is_no_plural(count, said, capsys):
    """The end of a run counts sidecars as a person would."""
    print_report(Report(sidecars=count))
    assert capsys.readouterr().out == f"{said}\n"

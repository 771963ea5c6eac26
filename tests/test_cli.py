"""The command line as a contract: what scripts may count on. Every test runs the real program.

Nothing here depends on what the model finds, only that it finds all there is.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from conftest import clean_environment, paint

import mmsearch
from mmsearch.cli import app
from mmsearch.encoders import BUILTIN

KEYS = ["rank", "score", "relevance", "path", "modality", "id", "start", "end"]
MORE = ["text", "captions", "taken", "duplicates"]  # in JSON
ODD = b"not utf8 \xff\n\x1b[31m.png"

MMSEARCH = [sys.executable, "-m", "mmsearch"]


class Made:
    """A folder of pictures and its library, made by the program itself."""

    def __init__(self, base: Path, run) -> None:
        self.photos = base / "photos"
        self.index = base / "index"
        for name in ("red", "green", "blue", "größe 狗"):
            paint(self.photos / f"{name}.png", name if name.isascii() else "cyan")
        data = (self.photos / "red.png").read_bytes()
        with open(os.path.join(os.fsencode(self.photos), ODD), "wb") as file:
            file.write(data + b"not the same")
        (self.photos / "notes.csv").write_text("words")
        self.first = run("index", self.photos, "--index", self.index)
        self.names = {os.fsencode(name) for name in os.listdir(self.photos)} - {b"notes.csv"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, run_cli):
    """Five pictures and a text, indexed. Tests leave it as it is."""
    return Made(tmp_path_factory.mktemp("made"), run_cli)


@pytest.fixture
def mm(made, run_cli):
    """Run a command on the library of `made`; the exit code and stderr are as expected."""

    def run(*arguments, code=0, err=b"", **options):
        done = run_cli(*arguments, "--index", made.index, **options)
        assert done.returncode == code, done.stderr
        if err is not None:
            assert done.stderr == err
        return done

    return run


def one_line(done, code):
    """An error as a user meets it: one line on stderr, nothing on stdout."""
    assert (done.returncode, done.stdout) == (code, b"")
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("mmsearch: ")
    return line.removeprefix("mmsearch: ")


def usage(done):
    """Wrong usage as the parser of options says it."""
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr
    [line] = [line for line in done.stderr.decode().splitlines() if line.startswith("Error: ")]
    return line


# -- index ---------------------------------------------------------------------------------


def test_index_says_what_it_did(made):
    """Counts on stdout, progress on stderr, exit code 0."""
    assert made.first.returncode == 0
    assert made.first.stdout == b"5 added, 1 skipped (other types)\n"
    assert re.fullmatch(
        rb"(indexed \d+ of 6, 0 failed, \d+ files/s, \d+:\d\d left\n)+"
        rb"\d+\.\d pictures a second; the (loader|encoder) was the limit\n",
        made.first.stderr,
    )


def test_index_again_and_without_a_path(made, mm):
    """Nothing to read, nothing on stderr."""
    for arguments in ([made.photos], []):
        done = mm("index", *arguments)
        assert done.stdout == b"5 unchanged, 1 skipped (other types)\n"


def test_index_json(made, mm):
    """The counts of a report, with the failures as a list."""
    report = json.loads(mm("index", "--json").stdout)
    counts = (
        "added", "changed", "moved", "copied", "gone", "offline", "sidecars", "encoded",
        "captioned", "filled",
    )  # fmt: skip
    expected = dict.fromkeys(counts, 0) | {
        "skipped": 1, "unchanged": 5, "failed": [], "notes": [], "interrupted": False,
        "dry_run": False, "limit": None, "per_second": {},
    }  # fmt: skip
    assert report == expected


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminal to pretend here")
def test_a_terminal_gets_a_bar(tmp_path):
    """On a terminal stderr shows rate and remaining time, and nothing is left of it behind."""
    for number in range(3):
        paint(tmp_path / "photos" / f"{number}.png", "red", (8, 8 + number))
    import termios

    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mmsearch", "index", tmp_path / "photos", "--index",
             tmp_path / "index"],
            stdout=subprocess.PIPE, stderr=theirs, env=clean_environment(tmp_path), check=False,
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65_536):
                shown += data
        except OSError:  # how Linux says that the other side is closed
            pass
    finally:
        os.close(ours)
    assert (done.returncode, done.stdout) == (0, b"3 added\n")
    assert re.search(rb"indexing: .*3/3 \[\d\d:\d\d<\d\d:\d\d, .*(files/s|s/files)\]", shown), shown
    shown = shown.replace(b"\r\n", b"\n")
    bar, said = shown.split(b"\n")[0].rsplit(b"\r", 1)
    assert re.search(rb"\r *$", bar), "the bar is wiped away at the end"
    assert re.fullmatch(rb"\d+\.\d pictures a second; the (loader|encoder) was the limit", said)
    assert shown.count(b"\n") == 1


def test_some_files_failed_is_exit_code_3(tmp_path, run_cli):
    """The rest is indexed, the bad file is named, in this run and by `errors`."""
    paint(tmp_path / "photos" / "good.png", "red")
    (tmp_path / "photos" / "bad.png").write_bytes(b"")
    index = ["--index", tmp_path / "index"]
    bad = str(tmp_path / "photos" / "bad.png")
    dry = run_cli("index", tmp_path / "photos", "--dry-run", *index)
    assert (dry.returncode, dry.stdout) == (3, b"1 would be added, 1 failed\n")
    assert not (tmp_path / "index").exists()
    done = run_cli("index", tmp_path / "photos", "--json", *index)
    assert done.returncode == 3
    [failed] = json.loads(done.stdout)["failed"]
    assert failed == {"path": bad, "reason": "empty", "message": "the file has no bytes"}
    again = run_cli("index", *index)
    assert (again.returncode, again.stdout) == (0, b"2 unchanged\n")
    errors = run_cli("errors", *index)
    assert (errors.returncode, errors.stderr) == (0, b"")
    assert errors.stdout.decode() == f"empty\t{bad}\tthe file has no bytes\n"
    assert json.loads(run_cli("errors", "--json", *index).stdout) == [failed]
    run_cli("index", "--rehash", *index)
    done = run_cli("index", "--rehash", *index)
    assert (done.returncode, done.stdout) == (3, b"1 unchanged, 1 failed\n")
    assert f"failed: {bad}: empty: the file has no bytes\n" in done.stderr.decode()


def test_index_takes_options(tmp_path, run_cli):
    """--exclude may be repeated, --include-hidden and --max-megapixels count."""
    for name in ("a.png", "b.png", "c.png", ".d.png"):
        paint(tmp_path / "photos" / name, "red", (600, 8 * ord(name[-5])))
    index = ["--index", tmp_path / "index"]
    done = run_cli(
        "index", tmp_path / "photos", "--exclude", "a*", "--exclude", "b*", "--include-hidden",
        "--max-megapixels", "0.478", *index,
    )  # fmt: skip
    # 600 x 792 pixels of c.png are within, 600 x 800 of .d.png are not
    assert (done.returncode, done.stdout) == (3, b"1 added, 1 failed\n")
    assert b".d.png: over-budget: " in done.stderr


# -- query ---------------------------------------------------------------------------------


def test_the_table(made, mm):
    """Rank, relevance, score and path, best first; a path cannot harm the terminal."""
    lines = mm("query", "a", "dog", "on", "grass", "--all").stdout.decode().splitlines()
    assert [int(line.split()[0]) for line in lines] == [1, 2, 3, 4, 5]
    relevances = [int(line.split()[1].removesuffix("%")) for line in lines]
    assert relevances == sorted(relevances, reverse=True)
    assert {line[17:19] for line in lines} == {"  "}  # the columns stand straight
    shown = {line[19:] for line in lines}
    plain = {str(made.photos / f"{name}.png") for name in ("red", "green", "blue", "größe 狗")}
    assert shown == plain | {f"{made.photos}/not utf8 \\xff\\n\\x1b[31m.png"}


def test_words_need_no_quotes(mm):
    """Adjacent words are one phrase."""
    assert mm("query", "a", "dog", "--all").stdout == mm("query", "a dog", "--all").stdout
    assert mm("query", "a", "dog", "--all").stdout != mm("query", "a", "+", "dog", "--all").stdout


def test_json_has_exactly_the_documented_keys(made, mm):
    """In this order; what is not there yet is null; bytes that are not UTF-8 come as base64."""
    rows = json.loads(mm("query", "a dog", "--format", "json", "--all").stdout)
    assert len(rows) == 5
    for rank, row in enumerate(rows, start=1):
        odd = "path_bytes" in row
        assert list(row) == KEYS + MORE + ["path_bytes"] * odd
        assert (row["rank"], row["start"], row["end"]) == (rank, None, None)
        assert 0 <= row["relevance"] <= 1
        assert (type(row["score"]), type(row["id"]), row["modality"]) == (float, int, "image")
        raw = base64.b64decode(row["path_bytes"]) if odd else row["path"].encode()
        assert os.path.exists(raw)
        assert odd == (os.path.basename(raw) == ODD)
        assert row["path"] == raw.decode("utf-8", "replace")
    same = mm("query", "a dog", "--format", "json", "--all").stdout
    assert mm("query", "a dog", "--json", "--all").stdout == same


def test_every_format_says_the_same(mm):
    """json, ndjson, csv, paths and -0 agree in number, order and values."""
    rows = json.loads(mm("query", "a dog", "--format", "json", "--all").stdout)
    lines = mm("query", "a dog", "--format", "ndjson", "--all").stdout.splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = mm("query", "a dog", "--format", "csv", "--all").stdout.decode()
    assert table.startswith(",".join(KEYS) + "\n")
    told = list(csv.DictReader(io.StringIO(table)))
    assert [list(row) for row in told] == [KEYS] * 5
    for row, line in zip(rows, told, strict=True):
        expected = {key: "" if row[key] is None else str(row[key]) for key in KEYS}
        assert line == expected
    raw = [
        base64.b64decode(row["path_bytes"]) if "path_bytes" in row else row["path"].encode()
        for row in rows
    ]
    paths = mm("query", "a dog", "--format", "paths", "--all").stdout
    assert paths == b"".join(path + b"\n" for path in raw)
    assert mm("query", "a dog", "-0", "--all").stdout == b"".join(path + b"\0" for path in raw)


@pytest.mark.skipif(shutil.which("xargs") is None, reason="no xargs here")
def test_paths_survive_xargs(made, mm):
    """`mmsearch query ... -0 | xargs -0` opens every file, whatever its name."""
    out = mm("query", "a dog", "-0", "--all").stdout
    script = "import os, sys; print(sum(os.path.getsize(os.fsencode(a)) for a in sys.argv[1:]))"
    done = subprocess.run(
        ["xargs", "-0", sys.executable, "-c", script], input=out, capture_output=True, check=True
    )
    total = sum((made.photos / os.fsdecode(name)).stat().st_size for name in made.names)
    assert int(done.stdout) == total


def test_k_and_type(mm):
    """-k cuts; --type keeps one kind; --all changes nothing."""
    whole = mm("query", "a dog", "-0", "--all").stdout
    two = mm("query", "a dog", "-0", "-k", "2", "--all").stdout
    assert two == b"".join(path + b"\0" for path in whole.split(b"\0")[:2])
    assert mm("query", "a dog", "-k", "99", "--type", "image", "--all", "-0").stdout == whole
    assert mm("query", "a dog", "--type", "text", "--all").stdout == b""
    assert mm("query", "a dog", "--type", "text", "--format", "json", "--all").stdout == b"[]\n"


def scores(done):
    return {row["path"]: row["score"] for row in json.loads(done.stdout)}


def test_pictures_and_weights_combine(made, mm):
    """A picture finds itself; signs and weights are those of the Python API."""
    green, json_please = made.photos / "green.png", ["--format", "json"]
    for arguments in (["./green.png"], ["--image", "green.png"], [str(green)]):
        rows = json.loads(mm("query", *arguments, *json_please, "--all", cwd=made.photos).stdout)
        assert rows[0]["path"] == str(green)
        assert rows[0]["score"] == pytest.approx(1, abs=1e-3)
    asked = mmsearch.text("a dog") + 0.5 * mmsearch.image(green) - 2 * mmsearch.text("a toy")
    with mmsearch.open_library(made.index) as library:
        hits = library.query(asked, all=True)
    expected = {
        os.fsencode(hit.path).decode("utf-8", "replace"): round(hit.score, 6) for hit in hits
    }
    words = ["a", "dog", "+", "0.5:./green.png", "-", "2:a toy"]
    done = mm("query", *words, *json_please, "--all", cwd=made.photos)
    assert scores(done) == pytest.approx(expected)
    words = ["a dog", "-", "2:a toy", "--image", green]
    asked = mmsearch.text("a dog") - 2 * mmsearch.text("a toy") + mmsearch.image(green)
    with mmsearch.open_library(made.index) as library:
        first = library.query(asked, 1, all=True)[0].score
    rows = json.loads(mm("query", *words, *json_please, "--all").stdout)
    assert rows[0]["score"] == pytest.approx(first, abs=1e-5)


def test_a_query_may_begin_with_a_sign(made, mm, run_cli):
    """`-` alone is a sign, behind -- everything is a word."""
    far = mm("query", "-", "dog", "+", "a cat", "--subtract", "--all").stdout
    assert far == mm("query", "a cat", "-", "dog", "--subtract", "--all").stdout
    done = run_cli("query", "--all", "--index", made.index, "--", "-dog")
    assert len(done.stdout.splitlines()) == 5


# -- languages of the machine ------------------------------------------------------------------

PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UTF8 = {"LC_ALL": "C.UTF-8"}


def test_utf8_whatever_the_locale(made, mm):
    """With LC_ALL=C the same words find the same, and the same bytes come out."""
    for arguments in (
        ["query", "größe", "狗", "--all"],
        ["query", made.photos / "größe 狗.png", "--all", "--format", "json"],
        ["status", "--json"],
        ["errors", "--skipped"],
    ):
        plain, utf8 = mm(*arguments, env=PLAIN), mm(*arguments, env=UTF8)
        assert plain.stdout == utf8.stdout
        if arguments[0] == "query":
            assert "größe 狗.png".encode() in utf8.stdout


def test_errors_are_utf8_whatever_the_locale(made, mm, tmp_path, run_cli):
    """A message names a file as the user wrote it."""
    said = mm("index", tmp_path / "wörter 狗", code=2, env=PLAIN, err=None).stderr.decode()
    assert said == f"mmsearch: no such file or folder: {tmp_path}/wörter 狗\n"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "wörter 狗.png").write_bytes(b"")
    done = run_cli("index", tmp_path / "photos", "--json", "--index", tmp_path / "i", env=PLAIN)
    assert done.returncode == 3
    [failed] = json.loads(done.stdout)["failed"]
    assert failed["path"] == f"{tmp_path}/photos/wörter 狗.png"
    done = run_cli("errors", "--index", tmp_path / "i", env=PLAIN)
    assert "wörter 狗.png" in done.stdout.decode()


def test_arguments_that_are_not_utf8(mm):
    """Words of other bytes are searched as far as they can be read; never a traceback."""
    assert len(mm("query", b"caf\xe9 dog", "--all").stdout.splitlines()) == 5


# -- embed ---------------------------------------------------------------------------------


def test_embed_texts(tmp_path, run_cli):
    """The file holds float32 unit rows, those of mmsearch.embed, under the very name given."""
    out = tmp_path / "rows.bin"
    done = run_cli("embed", "a dog", "größe 狗", "--type", "text", "--out", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    rows = np.load(out)
    assert (rows.dtype, rows.ndim, len(rows)) == (np.float32, 2, 2)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(rows, mmsearch.embed(["a dog", "größe 狗"], modality="text"))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.bin"]


def test_embed_reads_one_input_a_line(tmp_path, run_cli):
    """- stands for stdin, in UTF-8 whatever the locale; bytes that are not UTF-8 do no harm."""
    out = tmp_path / "rows.npy"
    lines = "a dog\ngröße 狗\n".encode() + b"caf\xe9"
    done = run_cli("embed", "-", "--type", "text", "--out", out, stdin=lines, env=PLAIN)
    assert done.returncode == 0, done.stderr
    expected = mmsearch.embed(["a dog", "größe 狗", "caf\ufffd"], modality="text")
    assert np.load(out) == pytest.approx(expected, abs=1e-6)


def test_embed_pictures(made, tmp_path, run_cli):
    """Paths as arguments or on stdin, as bytes; the rows are those of mmsearch.embed."""
    out = tmp_path / "rows.npy"
    paths = [os.fsencode(made.photos / "red.png"), os.path.join(os.fsencode(made.photos), b"g")]
    paths[1] = os.fsencode(made.photos / "größe 狗.png")
    expected = mmsearch.embed(paths, modality="image")
    done = run_cli("embed", *paths, "--type", "image", "--out", out)
    assert done.returncode == 0, done.stderr
    assert np.load(out) == pytest.approx(expected, abs=1e-6)
    stdin = b"\n".join(paths) + b"\n"
    done = run_cli("embed", "-", "--type", "image", "--out", out, stdin=stdin, env=PLAIN)
    assert done.returncode == 0, done.stderr
    assert np.load(out) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["nowhere.png", "--type", "image"], 1, "nowhere.png: No such file or directory"),
        (["--type", "text"], 2, "nothing to embed: give texts or files, or - to read one a line"),
        (["x", "--type", "text", "--model", "y"], 1, "no model is called 'y'; there is: builtin"),
    ],
)
def test_embed_refuses(tmp_path, run_cli, arguments, code, message):
    """One line that names the input; no file is left behind."""
    done = run_cli("embed", *arguments, "--out", tmp_path / "rows.npy")
    assert message in one_line(done, code)
    assert list(tmp_path.iterdir()) == []


# -- the other commands ------------------------------------------------------------------------


def test_status(made, mm):
    """Where it is, what it holds, with which model."""
    state = json.loads(mm("status", "--json").stdout)
    assert state["index"] == str(made.index)
    assert state["roots"] == [str(made.photos)]
    holds = {key: state[key] for key in ("files", "gone", "failed", "skipped", "items", "vectors")}
    assert holds == {"files": 5, "gone": 0, "failed": 0, "skipped": 1, "items": 5, "vectors": 5}
    assert state["cache"] == {"rows": 5, "fresh": 0, "dead": 0, "problem": None}
    assert re.fullmatch("[0-9a-f]{64}", state["fingerprint"])
    table = mm("status").stdout.decode()
    assert str(made.index) in table
    assert "5 indexed, 0 gone" in table
    assert "config.toml" in table


def test_errors_lists_the_skipped_on_request(made, mm):
    """Nothing failed; the text among the pictures was skipped."""
    assert mm("errors").stdout == b""
    assert json.loads(mm("errors", "--json").stdout) == []
    expected = {"path": str(made.photos / "notes.csv"), "reason": "unsupported"}
    [row] = json.loads(mm("errors", "--skipped", "--json").stdout)
    assert {key: row[key] for key in expected} == expected


def test_check(made, mm, tmp_path, run_cli):
    """Sound: exit code 0. Not sound: what is wrong, and exit code 1."""
    assert mm("check").stdout == b"sound\n"
    assert json.loads(mm("check", "--json").stdout) == {
        "sound": True, "depth": "full", "problems": []
    }  # fmt: skip
    shutil.copytree(made.index, tmp_path / "index")
    [cache] = (tmp_path / "index" / "cache").glob("*.matrix")
    cache.write_bytes(cache.read_bytes()[:-1])
    done = run_cli("check", "--json", "--index", tmp_path / "index")
    assert (done.returncode, done.stderr) == (1, b"")
    told = json.loads(done.stdout)
    assert (told["sound"], len(told["problems"])) == (False, 1)
    done = run_cli("check", "--index", tmp_path / "index")
    assert (done.returncode, done.stdout.decode()) == (1, told["problems"][0] + "\n")
    database = tmp_path / "index" / "library.db"
    database.write_bytes(b"")
    done = run_cli("check", "--index", tmp_path / "index")
    assert (done.returncode, done.stderr) == (1, b"")
    assert "have mmsearch repair keep what can still be read" in done.stdout.decode()
    for command in (["query", "dog"], ["status"], ["errors"], ["index"]):
        said = one_line(run_cli(*command, "--index", tmp_path / "index"), 1)
        assert str(database) in said
        assert "your photos are untouched: restore" in said


def test_forget(made, tmp_path, run_cli):
    """What is dropped is counted; the photos stay."""
    shutil.copytree(made.index, tmp_path / "index")
    index = ["--index", tmp_path / "index"]
    done = run_cli("forget", made.photos / "red.png", *index)
    assert (done.returncode, done.stdout, done.stderr) == (
        0, b"1 files forgotten; none was deleted\n", b"",
    )  # fmt: skip
    done = run_cli("forget", made.photos, "--json", *index)
    assert json.loads(done.stdout) == {"forgotten": 5}
    assert json.loads(run_cli("forget", "--gone", "--json", *index).stdout) == {"forgotten": 0}
    said = one_line(run_cli("forget", made.photos, *index), 2)
    assert said.startswith(f"{made.photos} is not in the library")
    assert "name what to forget" in one_line(run_cli("forget", *index), 2)
    assert {os.fsencode(name) for name in os.listdir(made.photos)} == made.names | {b"notes.csv"}


def test_the_demo_needs_its_extra_or_runs(tmp_path, run_cli):
    """Without scikit-image: the pip line, exit code 1. (With it, `make demo` is the test.)"""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'skimage':\n"
        "            raise ImportError(name)\n"
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'skimage' else find(name, *a)\n"
    )
    package = str(Path(mmsearch.__file__).parent.parent)
    done = run_cli(
        "demo", "--index", tmp_path / "demo", env={"PYTHONPATH": f"{tmp_path}:{package}"}
    )
    assert 'pip install "mmsearch[demo]"' in one_line(done, 1)


# -- what goes wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("command", [["query", "dog"], ["status"], ["errors"], ["check"]])
def test_a_missing_library(tmp_path, run_cli, command):
    """One line that says what to do, exit code 1; nothing is made."""
    said = one_line(run_cli(*command, "--index", tmp_path / "none"), 1)
    assert said == f"nothing is indexed in {tmp_path / 'none'}; try: mmsearch index FOLDER"
    assert not (tmp_path / "none").exists()


def test_a_missing_path(made, mm, tmp_path, run_cli):
    """Named, exit code 2: with a library, without one, and below a known root."""
    missing = tmp_path / "nowhere"
    for path, index in (
        (missing, tmp_path / "none"), (missing, made.index),
        (made.photos / "nowhere", made.index),
    ):  # fmt: skip
        said = one_line(run_cli("index", path, "--index", index), 2)
        assert said == f"no such file or folder: {path}"
    assert not (tmp_path / "none").exists()
    said = one_line(run_cli("index", "--index", tmp_path / "none"), 2)
    assert said.endswith("yet: name a folder")
    said = one_line(run_cli("query", "./nowhere.png", "--index", made.index), 1)
    assert said == "nowhere.png: No such file or directory"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--bogus"], "No such option: --bogus"),
        (["bogus"], "No such command 'bogus'"),
        (["query", "dog", "--bogus"], "No such option: --bogus"),
        (["query", "dog", "-k", "0"], "'-k'"),
        (["query", "dog", "-k", "many"], "'-k'"),
        (["query", "dog", "--type", "video"], "'--type'"),
        (["index", "--max-megapixels", "many"], "'--max-megapixels'"),
        (["embed", "x", "--out", "y"], "Missing option '--type'"),
        (["embed", "x", "--type", "text"], "Missing option '--out'"),
    ],
)
def test_wrong_usage_is_exit_code_2(run_cli, arguments, message):
    """One line says what is wrong; never a traceback."""
    assert message in usage(run_cli(*arguments))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["query"], "nothing to look for: give some words"),
        (["query", "+"], "nothing to look for: give some words"),
        (["query", "dog", "--format", "xml"], "--format is one of table, json, ndjson, csv, paths"),
        (["query", "dog", "-", "dog", "--subtract"], "the parts of this query cancel each other"),
    ],
)
def test_a_query_that_asks_for_nothing_is_exit_code_2(made, run_cli, arguments, message):
    """One line that says what to write instead."""
    assert one_line(run_cli(*arguments, "--index", made.index), 2).startswith(message)


def test_no_command_prints_the_help(run_cli):
    """`mmsearch` alone shows what there is."""
    done = run_cli()
    assert b"Usage:" in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr


def test_the_version(run_cli):
    """--version is that of the package."""
    assert run_cli("--version").stdout.decode() == f"mmsearch {mmsearch.__version__}\n"


def test_settings_come_from_the_environment(made, run_cli):
    """MMSEARCH_INDEX names the library; a wrong setting is exit code 2."""
    done = run_cli("status", "--json", env={"MMSEARCH_INDEX": str(made.index)})
    assert json.loads(done.stdout)["files"] == 5
    said = one_line(run_cli("status", env={"MMSEARCH_BATCH": "many"}), 2)
    assert said == "the environment: batch = 'many' is not a number"


def test_embed_honours_the_settings_too(tmp_path, run_cli):
    """$MMSEARCH_MODEL counts for every command that opens a model."""
    arguments = ["embed", "a dog", "--type", "text", "--out", tmp_path / "rows.npy"]
    done = run_cli(*arguments, env={"MMSEARCH_MODEL": "nonesuch"})
    assert "no model is called 'nonesuch'" in one_line(done, 1)
    done = run_cli(*arguments, "--model", "builtin", env={"MMSEARCH_MODEL": "nonesuch"})
    assert done.returncode == 0


def test_the_library_is_at_home_in_the_data_folder(tmp_path, run_cli):
    """Without --index and $MMSEARCH_INDEX."""
    paint(tmp_path / "photos" / "red.png", "red")
    environment = {"XDG_DATA_HOME": str(tmp_path / "data")}
    assert run_cli("index", tmp_path / "photos", env=environment).returncode == 0
    assert (tmp_path / "data" / "mmsearch" / "default" / "library.db").exists()
    assert len(run_cli("query", "dog", "--all", env=environment).stdout.splitlines()) == 1


@pytest.mark.parametrize("form", [[], ["--format", "json"], ["-0"], ["--format", "paths"]])
def test_a_reader_that_has_seen_enough(made, tmp_path, form):
    """A closed pipe (`| head -1`) ends the program quietly, with the code of SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*MMSEARCH, "query", "dog", "--all", "--index", made.index, *form],
            stdout=writing, stderr=subprocess.PIPE, env=clean_environment(tmp_path), check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_row_22_a_library_of_another_model(made, tmp_path, run_cli):
    """Row 22: query and index exit 1 and name both; the library stays as it was."""
    import sqlite3

    shutil.copytree(made.index, tmp_path / "index")
    with sqlite3.connect(tmp_path / "index" / "library.db") as raw:
        raw.execute("UPDATE spaces SET name = 'another', fingerprint = ?", ["0123456789" * 6])
    raw.close()
    for command in (["query", "dog"], ["index"], ["index", made.photos], ["status"], ["check"]):
        said = one_line(run_cli(*command, "--index", tmp_path / "index"), 1)
        assert f"was built with another (01234567), you have {BUILTIN} (" in said
    with sqlite3.connect(tmp_path / "index" / "library.db") as raw:
        assert raw.execute("SELECT count(*) FROM spaces").fetchone() == (1,)
    raw.close()


# -- the words -----------------------------------------------------------------------------

COMMANDS = dict(typer.main.get_command(app).commands)
COMMANDS |= {f"bench {name}": made for name, made in COMMANDS["bench"].commands.items()}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_a_sentence(name):
    """Each command says what it does; each option and argument, too."""
    command = COMMANDS[name]
    assert command.help
    assert command.help.rstrip().endswith(".")
    for parameter in command.params:
        if parameter.name != "help":
            said = getattr(parameter, "help", None)
            assert said, f"{name} {parameter.name} says nothing"
            assert said.endswith("."), f"{name} {parameter.name}: {said!r} is no sentence"
            assert said[0].isupper() or not said[0].isalpha(), said


def test_the_commands_are_those_of_the_contract():
    """No more and no fewer."""
    assert set(COMMANDS) == {
        "index", "query", "like", "embed", "label", "status", "errors", "check", "repair",
        "backup", "doctor", "forget", "demo", "bench", "bench recall", "bench labels",
        "bench self", "bench speed", "train", "models",
    }  # fmt: skip


def test_every_command_that_answers_has_json():
    """--json wherever a script would want it."""
    for name in (
        "index", "query", "like", "label", "status", "errors", "check", "repair", "backup",
        "doctor", "forget", "bench recall", "bench labels", "bench self", "bench speed",
    ):  # fmt: skip
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert "--json" in options, name


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_the_readme(name):
    """An undocumented command is a mistake."""
    readme = Path(mmsearch.__file__).parent.parent / "README.md"
    if not readme.exists():
        pytest.skip("the README is not beside an installed package")
    text = readme.read_text(encoding="utf-8")
    assert re.search(rf"mmsearch {name}\b|`{name}`", text), f"README.md says nothing of {name}"


def test_help_fits_a_terminal(run_cli):
    """No line of any help is wider than 80 columns; no markup shows."""
    for name in [None, *sorted(COMMANDS)]:
        text = run_cli(*(name or "").split(), "--help").stdout.decode()
        assert text.startswith("Usage: ")
        assert max(map(len, text.splitlines())) <= 80
        assert "[/" not in text


def test_repair_asks_first(made, tmp_path, run_cli):
    """Without a terminal it wants --yes; a dry run changes nothing; what was there is kept."""
    shutil.copytree(made.index, tmp_path / "index")
    where = ("--index", tmp_path / "index")
    assert run_cli("repair", *where).stdout == b"sound: nothing to repair\n"
    database = tmp_path / "index" / "library.db"
    database.write_bytes(database.read_bytes()[:8192])
    before = database.read_bytes()
    done = run_cli("repair", *where)
    assert (done.returncode, database.read_bytes()) == (2, before)
    assert b"say --yes to have this done" in done.stderr
    planned = run_cli("repair", "--dry-run", "--json", *where)
    assert (planned.returncode, database.read_bytes()) == (0, before)
    plan = json.loads(planned.stdout)
    assert (plan["saved"], bool(plan["problems"]), bool(plan["steps"])) == (None, True, True)
    done = json.loads(run_cli("repair", "--yes", "--json", *where).stdout)
    saved = Path(done["saved"]) / "library.db"
    assert (done["steps"], saved.read_bytes()) == (plan["steps"], before)
    assert run_cli("index", made.photos, *where).returncode in (0, 3)
    assert run_cli("check", *where).stdout == b"sound\n"


def test_backup_and_back(made, tmp_path, run_cli):
    """A backup answers as the library does, and can be restored to another place."""
    there, new = tmp_path / "backup", tmp_path / "new"
    done = json.loads(run_cli("backup", there, "--index", made.index, "--json").stdout)
    assert (done["library"], done["saved"]) == (str(there), None)
    query = ("query", "./red.png", "--format", "json", "--all")
    assert run_cli("backup", "--restore", there, "--index", new).returncode == 0
    answers = [
        run_cli(*query, "--index", place, cwd=made.photos).stdout
        for place in (made.index, there, new)
    ]
    assert len(json.loads(answers[0])) == len(made.names)
    assert answers[0] == answers[1] == answers[2]
    for wrong in (["backup"], ["backup", there, "--restore", there], ["backup", there]):
        assert run_cli(*wrong, "--index", made.index).returncode == 2

"""The depths of check, what is compared with the files, and what the doctor says."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from conftest import FakeEncoder, unit

import mmsearch
from mmsearch import doctor
from mmsearch.doctor import FLOORS, State, examine, older
from mmsearch.errors import LibraryDamaged, UsageError
from mmsearch.settings import load_settings


@pytest.fixture
def three(library, photos):
    """A library of a red, a green and a blue picture, and a text of two passages."""
    for colour in ("red", "green", "blue"):
        photos.paint(f"{colour}.png", colour)
    (photos / "notes.txt").write_text("red\n\n" + "green " * 80)
    library.index(photos)
    return library


def run(library, statement, *values):
    """Change library.db behind the library's back."""
    library.close()
    with closing(sqlite3.connect(library.folder / "library.db")) as raw, raw:
        raw.execute(statement, values)


def test_quick_sees_pages_and_counts_but_not_vectors(three):
    """A flipped vector takes the full depth; a missing row does not."""
    assert three.check("quick") == three.check("full") == three.check("deep") == []
    run(three, "UPDATE vectors SET crc = crc + 1 WHERE id = 2")
    assert three.check("quick") == []
    assert three.check() == ["vector 2 is not what was written; mmsearch repair mends it"]
    run(three, "DELETE FROM vectors WHERE id = 2")
    assert three.check("quick") == ["1 contents have no vector; mmsearch repair mends it"]
    with pytest.raises(UsageError, match="depth is one of quick, full, deep, not 'abyssal'"):
        three.check("abyssal")


@pytest.mark.parametrize("place", [0, 1], ids=["one page", "the other"])
def test_a_name_that_was_flipped_is_found(three, place):
    """In a page of the table or of its index: they differ then, and no answer has the name."""
    three.close()
    path = three.folder / "library.db"
    data = path.read_bytes()
    first = data.index(b"green.png")
    second = data.index(b"green.png", first + 1)
    assert first // 4096 != second // 4096
    at = (first, second)[place]
    path.write_bytes(data[:at] + b"G" + data[at + 1 :])
    assert any("files" in said for said in three.check())
    with pytest.raises(LibraryDamaged, match=r"the name of item \d is not what was written"):
        three.query("green", all=True)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE files SET reason = 'bored', content_id = NULL WHERE id = 1",
     "UPDATE contents SET modality = 'odour' WHERE id = 1"],
)  # fmt: skip
def test_a_word_that_no_list_has_is_damage(three, statement):
    """Neither check nor a query shows a traceback for it."""
    run(three, statement)
    assert any("that is none; mmsearch repair mends it" in said for said in three.check("quick"))
    for use in (lambda: three.query("red", all=True), three.status, three.errors, three.index):
        try:
            use()
        except mmsearch.MmsearchError as error:
            assert "mmsearch repair" in str(error)


def test_deep_finds_files_with_other_bytes(three, photos):
    """Same size, same date, other bytes: named. Another date is left to the next run."""
    path = photos / "red.png"
    data, status = path.read_bytes(), path.stat()
    with open(path, "r+b") as file:
        file.seek(len(data) - 1)
        file.write(bytes([data[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    photos.paint("green.png", "white")
    (photos / "blue.png").unlink()
    assert three.check() == []
    assert three.check("deep") == [
        f"{path} has other bytes than when it was indexed, with the same size and date; "
        "run mmsearch index --rehash"
    ]


def test_deep_encodes_a_sample_again(three, photos, encoder):
    """Vectors that belong to other files pass every checksum; encoding again finds them."""
    run(three, "UPDATE vectors SET part = part + 10 WHERE id IN (1, 2)")
    with closing(sqlite3.connect(three.folder / "library.db")) as raw, raw:
        [(one,), (other,)] = raw.execute("SELECT content_id FROM vectors WHERE id IN (1, 2)")
        for id, content in ((1, other), (2, one)):
            raw.execute("UPDATE vectors SET content_id = ?, part = 0 WHERE id = ?", (content, id))
    assert three.check("full") == []
    found = three.check("deep")
    assert len(found) == 2
    assert all("encoded again is another vector (cosine 0.0000)" in said for said in found)
    assert three.check("deep", sample=0) == []
    # the seed chooses: of four files, two of which are wrong, one
    counts = [len(three.check("deep", sample=1, seed=seed)) for seed in (0, 0, 1, 2, 3)]
    assert counts[0] == counts[1] and set(counts) == {0, 1}


def test_deep_compares_every_part(three, monkeypatch):
    """A model whose texts are turned a little is the same, one that turns them more is not."""
    really = FakeEncoder._text

    def turned(by):
        row = np.array([0, 0, by], np.float32)
        monkeypatch.setattr(
            FakeEncoder, "_text", lambda self, text: unit(*really(self, text) + row)
        )

    turned(0.02)  # cosine 0.9998
    assert three.check("deep") == []
    turned(0.06)  # cosine 0.9982
    [said] = three.check("deep")
    assert "notes.txt encoded again is another vector (cosine 0.998" in said


def test_deep_names_what_cannot_be_read_any_more(three, monkeypatch):
    """A file that was decoded once and is refused now: a decoder has changed."""
    with mmsearch.open_library(three.folder, workers=1, max_megapixels=1e-5) as strict:
        found = strict.check("deep")
    assert len(found) == 3
    assert all("was indexed and cannot be read so now" in said for said in found)


# -- the doctor --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found, least, expected",
    [("3.40.1", "3.51.3", True), ("3.51.3", "3.51.3", False), ("3.51", "3.51.3", True),
     ("3.51.10", "3.51.3", False), ("13.0.0", "11.3", False), ("2.6.0+cu124", "2.6", False),
     ("1.11.0", "1.15", True), ("2.15.0", "2.6", False), ("1.15.0rc1", "1.15", False)],
)  # fmt: skip
def test_versions_are_compared_by_number(found, least, expected):
    """Not as texts, and with what is left out as 0."""
    assert older(found, least) is expected


def lines(folder, **settings):
    """What the doctor says, by what it is about; what is not in order has a remedy."""
    found = {line.name: line for line in examine(load_settings(index=folder, **settings))}
    assert all(line.remedy for line in found.values() if line.state is not State.OK)
    return found


def test_the_doctor_finds_this_place_in_order(tmp_path):
    """The built-in model tells its known pair; nothing is left behind; nothing is wrong here."""
    (tmp_path / "index").mkdir()
    found = lines(tmp_path / "index")
    assert [line for line in found.values() if line.state is State.WRONG] == []
    for name in ("python", "sqlite", "full-text search", "pillow", "gpu", "model", "known pairs",
                 "disk", "locks", "library"):  # fmt: skip
        assert name in found
    assert found["known pairs"].said == "2 of 2 found"
    assert os.listdir(tmp_path / "index") == []


def test_versions_below_the_floors_have_their_remedy(tmp_path, monkeypatch, encoder):
    """Each package that is too old is to be mended; SQLite is worth knowing."""
    monkeypatch.setattr(doctor, "version", lambda name: "1.0")
    monkeypatch.setattr("sqlite3.sqlite_version", "3.51.2")
    monkeypatch.setattr(doctor, "open_encoder", lambda name: encoder)
    found = lines(tmp_path)
    for floor in FLOORS:
        assert (found[floor.package].state, found[floor.package].remedy) == (
            State.WRONG, floor.install
        )  # fmt: skip
        assert f"1.0: before {floor.least}" in found[floor.package].said
    assert found["sqlite"].state is State.WARNING and "3.51.3" in found["sqlite"].remedy
    monkeypatch.setattr("sqlite3.sqlite_version", "3.51.3")
    assert lines(tmp_path)["sqlite"].state is State.OK


def test_what_is_not_installed(tmp_path, monkeypatch, encoder):
    """What is needed is missed, an extra is not."""

    def absent(name):
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", absent)
    monkeypatch.setattr(doctor, "open_encoder", lambda name: encoder)
    found = lines(tmp_path)
    assert {floor.package for floor in FLOORS} & found.keys() == {"pillow", "onnxruntime"}
    assert found["pillow"].state is State.WRONG


def test_a_model_that_is_not_what_it_was(tmp_path, monkeypatch, encoder):
    """Altered files, a wrong ranking, and a name that nobody knows."""
    monkeypatch.setattr(doctor, "open_encoder", lambda name: encoder)
    encoder.files_altered = ["image.onnx"]
    encoder.spoilt = {doctor._PAIRS["a plain red wall"]: (0, 0, 1.0)}
    monkeypatch.setattr(encoder, "_text", lambda text: unit(1, 0, 0) if "red" in text
                        else unit(0, 0, 1))  # fmt: skip
    encoder.spoilt[doctor._PAIRS["the blue sea and the blue sky"]] = (1.0, 0, 0)
    found = lines(tmp_path)
    assert found["model"].state is State.WRONG and "image.onnx" in found["model"].said
    assert found["known pairs"].state is State.WRONG
    encoder.spoilt.clear()
    assert lines(tmp_path)["known pairs"].state is State.OK
    monkeypatch.undo()
    assert lines(tmp_path, model="nobody")["model"].state is State.WRONG


def test_the_doctor_on_a_library(three, monkeypatch, encoder):
    """Its cache, its damage, and the room it has."""
    monkeypatch.setattr(doctor, "open_encoder", lambda name: encoder)
    assert lines(three.folder)["library"].said == f"4 files in {three.folder}"
    assert lines(three.folder)["cache"].said == "fake: 5 rows, 0 newer"
    [cache] = (three.folder / "cache").glob("*.matrix")
    cache.unlink()
    assert (lines(three.folder)["cache"].state, lines(three.folder)["cache"].remedy) == (
        State.WARNING, "run mmsearch index"
    )  # fmt: skip
    usage = doctor.shutil.disk_usage(three.folder)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    assert lines(three.folder)["disk"].state is State.WARNING
    three.close()
    (three.folder / "library.db").write_bytes(b"\0" * 5000)
    assert lines(three.folder)["library"].state is State.WRONG


def test_row_28_places_without_locks(tmp_path, monkeypatch, encoder):
    """Row 28: a file system that knows no locks is wrong, one on the network worth knowing."""
    import errno

    import portalocker

    monkeypatch.setattr(doctor, "open_encoder", lambda name: encoder)
    monkeypatch.setattr(doctor, "_file_system", lambda folder: "nfs4")
    assert lines(tmp_path)["file system"].state is State.WARNING

    def no_locks(*_):
        raise portalocker.LockException(OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)))

    monkeypatch.setattr(portalocker, "lock", no_locks)
    found = lines(tmp_path)["locks"]
    assert (found.state, found.remedy) == (State.WRONG, "keep the library on a local disk")
    assert "this file system has no locks" in found.said
    monkeypatch.setattr(portalocker, "lock", lambda *_: None)  # locks that hold nobody
    assert lines(tmp_path)["locks"].state is State.WRONG


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch, encoder):
    """Searching works there: worth knowing, no more."""
    monkeypatch.setattr(doctor, "open_encoder", lambda name: encoder)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert lines(tmp_path)["locks"].state is State.WARNING


def test_the_command_exits_with_what_it_found(run_cli, tmp_path):
    """0 here; 1 with a library that is damaged; JSON for scripts; each line with its remedy."""
    done = run_cli("doctor", "--index", tmp_path, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and {"name", "state", "said", "remedy"} == set(told[0])
    (tmp_path / "library.db").write_bytes(np.arange(999).tobytes())
    done = run_cli("doctor", "--index", tmp_path)
    assert done.returncode == 1
    assert "wrong    library: " in done.stdout.decode()


def test_full_sees_an_index_of_sqlites_that_lacks_rows(three):
    """What is only found by comparing each index with its table is not looked for by quick."""
    three.close()
    with closing(sqlite3.connect(three.folder / "library.db")) as raw:
        there = "FROM sqlite_schema WHERE name = 'files_by_size'"
        (row,) = raw.execute(f"SELECT type, name, tbl_name, rootpage, sql {there}").fetchall()
        raw.execute("PRAGMA writable_schema = ON")
        with raw:
            raw.execute(f"DELETE {there}")
    with closing(sqlite3.connect(three.folder / "library.db")) as raw:
        with raw:  # behind the back of the index
            raw.execute("UPDATE files SET size = size + 1 WHERE id = 1")
        raw.execute("PRAGMA writable_schema = ON")
        with raw:
            raw.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)
    assert three.check("quick") == []
    (said,) = three.check("full")
    assert "files_by_size" in said

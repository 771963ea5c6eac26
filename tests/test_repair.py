"""What repair saves of a damaged library, and that it harms nothing. Row 16 of the faults."""

from __future__ import annotations

import random
import shutil
import sqlite3
import zlib
from contextlib import closing

import pytest
from test_backup import everything

import mmsearch
from mmsearch.catalog import Catalog, grafting, tables
from mmsearch.catalog.grafting import readable
from mmsearch.catalog.remains import Remains
from mmsearch.errors import LibraryDamaged, LibraryLocked, LibraryMissing
from mmsearch.locking import WriterLock

PAGE = 4096


@pytest.fixture
def many(library, photos):
    """Sixty pictures of different colours with captions, and a text; nothing open."""
    for number in range(60):
        photos.paint(f"{number:02}.png", (255, 4 * number, 128))
        (photos / f"{number:02}.txt").write_text(f"a caption that counts {number} dogs")
    passages = "\n\n".join(f"passage {n} of foxes " + "word " * 70 for n in range(9))
    (photos / "notes.md").write_text(passages)
    library.index(photos)
    library.close()
    return library


def run(library, statement, *values):
    """Change library.db behind the library's back."""
    with closing(sqlite3.connect(library.folder / "library.db")) as raw, raw:
        raw.execute("PRAGMA foreign_keys = OFF")
        return raw.execute(statement, values).fetchall()


def saved_files(library):
    """What repair has kept, by folder."""
    return {
        path.name: (path / "library.db").read_bytes()
        for path in library.folder.glob("before-repair-*")
    }


def test_a_sound_library_is_left_as_it_is(many):
    """Nothing is written, kept or asked."""
    before = (many.folder / "library.db").read_bytes()
    done = many.repair(lambda plan: pytest.fail("nobody is to be asked"))
    assert (done.problems, done.steps, done.again, done.saved) == ([], [], [], None)
    assert (many.folder / "library.db").read_bytes() == before
    assert saved_files(many) == {}


def test_what_a_killed_repair_left_goes_with_the_next(many):
    """Row 1: it finds a sound library, and removes a half-written cache; a dry run does not."""
    left = many.folder / "cache" / "space-1-9.matrix.new"
    left.write_bytes(b"half")
    assert many.repair(dry_run=True).steps == [] and left.exists()
    assert many.repair().steps == [] and not left.exists()
    names = sorted(path.name for path in (many.folder / "cache").iterdir())
    for path in (many.folder / "cache").iterdir():
        path.unlink()
    run(many, "DELETE FROM caches")  # killed when the new library.db had taken its place
    assert many.repair().steps == []
    assert sorted(path.name for path in (many.folder / "cache").iterdir()) == names


THE_VECTOR = """(SELECT vectors.id FROM vectors JOIN files
    ON files.content_id = vectors.content_id WHERE files.name = CAST('07.png' AS BLOB))"""
ITS_CONTENT = "(SELECT content_id FROM files WHERE name = CAST('07.png' AS BLOB))"
LONG = b"\0\x40\0\x40\0\x40"  # 2, 2, 2
DAMAGE = {
    "a vector": f"UPDATE vectors SET data = zeroblob(6) WHERE id = {THE_VECTOR}",
    "a checksum": f"UPDATE vectors SET crc = crc + 1 WHERE id = {THE_VECTOR}",
    "a vector of six numbers": f"UPDATE vectors SET data = data || data WHERE id = {THE_VECTOR}",
    "a vector that is gone": f"DELETE FROM vectors WHERE id = {THE_VECTOR}",
    "a vector of no space": f"UPDATE vectors SET space_id = 9 WHERE id = {THE_VECTOR}",
    "a vector that is too long": f"UPDATE vectors SET data = x'{LONG.hex()}',"
    f" crc = {zlib.crc32(LONG)} WHERE id = {THE_VECTOR}",
    "a modality": f"UPDATE contents SET modality = 'odour' WHERE id = {ITS_CONTENT}",
    "a content that is gone": f"DELETE FROM contents WHERE id = {ITS_CONTENT}",
    "both fates": "UPDATE files SET reason = 'empty' WHERE name = CAST('07.png' AS BLOB)",
    "no fate": "UPDATE files SET content_id = NULL WHERE name = CAST('07.png' AS BLOB)",
    "a reason that is none": "UPDATE files SET content_id = NULL, reason = 'bored'"
    " WHERE name = CAST('07.png' AS BLOB)",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_row_16_what_is_damaged_is_read_again(many, encoder, damage):
    """Row 16: one file is named and read again, all others keep their vectors, ids and words."""
    right = everything(many)
    run(many, DAMAGE[damage])
    damaged = (many.folder / "library.db").read_bytes()
    assert many.check() != []
    done = many.repair()
    assert [path.name for path in done.again] == ["07.png"]
    assert saved_files(many) == {"before-repair-1": damaged}
    assert done.saved == many.folder / "before-repair-1"
    assert many.check() == []
    left = {key: row for key, row in right.items() if key[0] != b"07.png"}
    assert everything(many) == left
    assert [failure.path for failure in many.errors()] == done.again
    encoder.pictures = 0
    report = many.index()
    assert (report.added, report.unchanged, encoder.pictures) == (1, 60, 1)
    assert values(many) == {key: row[1:] for key, row in right.items()}
    assert many.check() == []
    assert many.repair().saved is None


def values(library):
    """Everything but the items' ids, which one that is read again has anew."""
    return {key: row[1:] for key, row in everything(library).items()}


def test_a_lost_caption_is_read_again(many, encoder):
    """The file keeps its vector; what is said of it is asked again by the next run."""
    right = everything(many)
    run(many, "DELETE FROM parts WHERE text LIKE '%counts 7 %'")
    assert many.check() != []
    assert many.repair().again == []
    assert many.status()["captions"] == 59
    encoder.pictures = 0
    assert many.index().captioned == 1
    assert (encoder.pictures, many.status()["captions"], everything(many)) == (0, 60, right)
    assert many.check() == []


def test_lost_captions_of_copies_are_read_again_one_by_one(library, photos):
    """Of the other as well, when what the content says of itself is known again by the first."""
    photos.paint("a.png", "red")
    shutil.copy(photos / "a.png", photos / "b.png")
    (photos / "a.txt").write_text("the first one")
    (photos / "b.txt").write_text("the second one")
    library.index(photos)
    library.close()
    run(library, "DELETE FROM parts WHERE text LIKE 'the % one'")
    library.repair()
    told = [library.status()["captions"]]
    for given in ([photos / "a.png"], []):
        library.index(*given)
        told.append(library.status()["captions"])
    assert told == [0, 1, 2]
    assert library.check() == []


WORDS = {
    "a word": "UPDATE keywords_content SET c0 = 'other' WHERE id = 3",
    "a row": "DELETE FROM keywords_content WHERE id = 3",
    "a name that nobody has": "INSERT INTO keywords (rowid, names) VALUES (999, 'nobody')",
    "the index": "UPDATE keywords_data SET block = zeroblob(9) WHERE id = (SELECT max(id) FROM"
    " keywords_data)",
    "parts of words": "DELETE FROM substrings_data WHERE id > 10",
    "their table": "DROP TABLE substrings_idx",
}


@pytest.mark.parametrize("damage", WORDS)
def test_words_are_made_anew(many, encoder, damage):
    """Damaged keywords cost nothing but the making: no file is read again."""
    right = everything(many)
    words = [hit.path for hit in many.query("counts", hybrid="only", all=True, k=99)]
    many.close()
    run(many, WORDS[damage])
    assert any("keywords" in said or "substrings" in said or "damaged" in said
               for said in many.check())  # fmt: skip
    done = many.repair()
    assert (done.again, everything(many), many.check()) == ([], right, [])
    assert [hit.path for hit in many.query("counts", hybrid="only", all=True, k=99)] == words


def test_a_cache_is_written_anew(many):
    """The cache alone: library.db stays, a copy of it is kept all the same."""
    right = everything(many)
    [path] = (many.folder / "cache").glob("*.matrix")
    path.write_bytes(path.read_bytes()[:-5])
    done = many.repair()
    assert (done.again, many.check(), everything(many)) == ([], [], right)
    assert list(saved_files(many)) == ["before-repair-1"]


@pytest.mark.parametrize("seed", range(6))
def test_row_16_pages_that_are_lost(many, photos, seed):
    """Row 16: wherever pages are overwritten, what is left is right, and one run makes it whole."""
    right = values(many)
    database = many.folder / "library.db"
    data = bytearray(database.read_bytes())
    chance = random.Random(seed)
    for _ in range(1 + seed % 3):
        start = PAGE * chance.randrange(1, len(data) // PAGE)
        data[start : start + PAGE] = chance.choice([bytes(PAGE), chance.randbytes(PAGE)])
    database.write_bytes(data)
    before = {path: path.read_bytes() for path in photos.folder.iterdir()}
    done = many.repair()
    assert {path: path.read_bytes() for path in photos.folder.iterdir()} == before
    if done.saved:
        assert saved_files(many) == {"before-repair-1": bytes(data)}
    assert values(many).items() <= right.items()
    many.index(photos)
    assert many.check() == []
    assert values(many) == right


@pytest.mark.parametrize("data", [b"", b"no library at all" * 300, bytes(9000)])
def test_row_16_a_file_of_which_nothing_is_left(many, photos, data):
    """Row 16: an empty library takes its place, the old one is kept, the next run indexes anew."""
    (many.folder / "library.db").write_bytes(data)
    assert len(many.check()) == 1
    with pytest.raises(LibraryDamaged, match="have mmsearch repair keep what can still be read"):
        many.query("red")
    done = many.repair()
    assert "then run mmsearch index with your folders: some may be forgotten" in done.steps
    assert saved_files(many) == {"before-repair-1": data}
    assert many.index(photos).added == 61
    assert many.check() == []


FIRST = {
    "zeros": lambda page: bytes(PAGE),
    "other bytes": lambda page: random.Random(1).randbytes(PAGE),
    "no header": lambda page: bytes(100) + page[100:],
    "no list of tables": lambda page: page[:100] + bytes(PAGE - 100),
    "an empty list": lambda page: page[:100] + b"\x0d\0\0\0\0\x10\0\0" + bytes(PAGE - 108),
}


@pytest.mark.parametrize("vacuumed", [False, True])
@pytest.mark.parametrize("damage", FIRST)
def test_row_16_a_first_page_that_is_lost(many, damage, vacuumed):
    """Row 16: SQLite cannot open it, but every file, vector and word of it is saved."""
    if vacuumed:
        run(many, "VACUUM")
    right = everything(many)
    many.close()
    database = many.folder / "library.db"
    data = database.read_bytes()
    data = FIRST[damage](data[:PAGE]) + data[PAGE:]
    database.write_bytes(data)
    before = sorted(path.name for path in many.folder.iterdir())
    assert len(many.check()) == 1
    done = many.repair()
    assert saved_files(many) == {"before-repair-1": data}
    assert (done.again, everything(many), many.check()) == ([], right, [])
    after = sorted(path.name for path in many.folder.iterdir() if "repair" not in path.name)
    assert set(after) - set(before) <= {"library.db-wal", "library.db-shm"}


def test_the_first_page_is_tried_with_what_was_there(many, tmp_path):
    """With the header of a new library, before any other list of tables than its own."""
    many.close()
    path = many.folder / "library.db"
    page = path.read_bytes()[:PAGE]
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    first = next(grafting._first_pages(path, tmp_path))
    assert first.keys() == {1}
    assert first[1][:16] == b"SQLite format 3\0"
    assert first[1][28:32] == (path.stat().st_size // PAGE).to_bytes(4, "big")
    assert first[1][100:] == page[100:]


def test_the_pages_of_a_list_of_tables(tmp_path):
    """All that hold a statement, and those above them, whose rows lie on others."""
    path = tmp_path / "many.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA page_size = 512")
        for number in range(600):
            raw.execute(f"CREATE TABLE many_{number} (a, b, c)")
        raw.commit()
    data = path.read_bytes()
    pages = {n + 1: data[n * 512 : (n + 1) * 512] for n in range(len(data) // 512)}
    told = {n for n, page in pages.items() if b"CREATE TABLE many_" in page}
    above = {n for n, page in pages.items() if page[100 if n == 1 else 0] == 5}
    assert 1 in above and len(above) > 1 and len(told) > 10
    found = grafting._schema_pages(data, 512)
    assert (set(found), len(found)) == (told | above, len(told | above))


def test_a_graft_needs_no_log(many, tmp_path):
    """A copy of library.db alone, whose first page is lost: every vector of it is read, and
    nothing is left beside it.
    """
    right = {data for (data,) in run(many, "SELECT data FROM vectors")}
    many.close()
    data = (many.folder / "library.db").read_bytes()
    alone = tmp_path / "alone" / "library.db"
    alone.parent.mkdir()
    alone.write_bytes(bytes(PAGE) + data[PAGE:])
    with readable(alone) as graft, Remains(graft) as remains:
        assert graft != alone
        assert {row["data"] for row in remains.rows(tables.vectors)} == right
    assert list(alone.parent.iterdir()) == [alone]


def test_what_a_log_holds_is_saved(many, tmp_path):
    """A damaged library whose last commit stands in the log alone: the log is read as well."""
    with Catalog.open(many.folder / "library.db", write=True) as catalog:
        with catalog.transaction():
            catalog.put_setting("written", "late")
        shutil.copytree(many.folder, tmp_path / "copied")
    (tmp_path / "copied" / "library.db-shm").unlink()
    folder = tmp_path / "copied"
    data = bytearray((folder / "library.db").read_bytes())
    at = data.rindex(b"a caption that counts")
    data[at : at + 9] = b"\xff" * 9
    (folder / "library.db").write_bytes(data)
    with mmsearch.open_library(folder, workers=1) as copied:
        assert copied.repair().saved
        assert copied.check() == []
    assert (
        not (folder / "library.db-wal").exists() or not (folder / "library.db-wal").stat().st_size
    )
    with Catalog.open(folder / "library.db") as catalog:
        assert catalog.setting("written") == "late"


def test_nothing_is_changed_without_a_yes(many):
    """A plan that is not approved, and a dry run, leave every byte."""
    run(many, DAMAGE["a vector"])
    before = {path: path.read_bytes() for path in many.folder.rglob("*") if path.is_file()}
    plans = []
    assert many.repair(plans.append).saved is None
    assert many.repair(dry_run=True).steps == plans[0].steps
    after = {path: path.read_bytes() for path in many.folder.rglob("*") if path.is_file()}
    (lock,) = (path for path in before if path.name == "LOCK")
    del before[lock], after[lock]
    for ending in ("-wal", "-shm"):
        before.pop(many.folder / f"library.db{ending}", None)
        after.pop(many.folder / f"library.db{ending}", None)
    assert after == before


def test_labels_are_kept(many):
    """But for those of a file that is read again, and of its caption."""
    run(many, "INSERT INTO labels SELECT id, 'dog', id / 64.0 FROM contents")
    run(many, "INSERT INTO labels SELECT id, 'fox', 0.5 FROM contents")
    right = {*run(many, "SELECT * FROM labels")}
    run(many, DAMAGE["a vector"])
    assert many.repair().again
    many.close()
    left = {id for (id,) in run(many, "SELECT id FROM contents")}
    assert {*run(many, "SELECT * FROM labels")} == {row for row in right if row[0] in left}
    assert (len(right), len(left)) == (242, 119)


def test_gone_files_that_are_damaged_are_forgotten(many, photos):
    """What is gone cannot be read again; what is there is."""
    (photos / "05.png").unlink()
    many.index(photos)
    assert many.status()["gone"] == 1
    many.close()
    run(
        many, "DELETE FROM vectors WHERE content_id IN (SELECT content_id FROM files WHERE gone_at "
        "OR name = CAST('07.png' AS BLOB))",
    )  # fmt: skip
    assert many.repair().again == [photos / "07.png"]
    many.index()
    assert (many.status()["gone"], many.check()) == (0, [])


def test_row_16_rows_with_values_of_another_kind_are_counted(many):
    """Row 16: they are passed over, and how many there were is known."""
    run(many, "UPDATE files SET size = 'many' WHERE id IN (3, 5)")
    with readable(many.folder / "library.db") as path, Remains(path) as remains:
        assert len(list(remains.rows(tables.files))) == 61 + 60 - 2
        assert dict(remains.lost) == {"files": 2}


def test_row_16_what_was_lost_is_told(many):
    """Row 16: how many rows of which table, and how many files are read again for it."""
    names = "(CAST('03.png' AS BLOB), CAST('05.png' AS BLOB))"
    theirs = f"content_id IN (SELECT content_id FROM files WHERE name IN {names})"
    run(many, f"UPDATE vectors SET crc = crc + 1 WHERE {theirs}")
    told = many.repair().steps
    assert told[1].endswith(": 59 files, without damaged rows (2 of vectors)")
    assert told[2].startswith("have 2 files read again: ")


def test_a_stretch_is_hopeless_by_its_own_keys(tmp_path):
    """Some from its first to its last are tried, and none beside it."""
    tried = []

    class Raw:
        def execute(self, query, keys):
            tried.append(keys)
            raise sqlite3.DatabaseError("malformed")

    (tmp_path / "none.db").touch()
    remains = Remains(tmp_path / "none.db")
    remains._raw = Raw()
    assert remains._is_hopeless("?", 10_000, 20_000)
    keys = [low for low, high in tried if low == high]
    assert (keys[0], keys[-1], len(keys), keys == sorted(keys)) == (10_000, 20_000, 64, True)
    assert not remains._is_hopeless("?", 10_000, 10_100)  # so few are tried one by one


@pytest.mark.parametrize("left", [30, 0])
def test_ids_are_not_given_twice(many, photos, left):
    """The highest id that was ever given is remembered, of what is gone too, and where nothing is
    left: a lagging cache cannot mistake a row.
    """
    last = run(many, "SELECT name FROM files WHERE content_id ORDER BY id DESC")
    many.forget([photos / name.decode() for (name,) in last[:-left]] if left else [photos])
    many.close()
    run(
        many, "INSERT INTO vectors (space_id, content_id, part, data, crc) VALUES (9, 9, 0, x'', 0)"
    )
    highest = run(many, "SELECT name, seq FROM sqlite_sequence ORDER BY name")
    assert dict(highest)["vectors"] > run(many, "SELECT count(*) FROM vectors")[0][0]
    assert many.repair().saved
    many.close()
    assert run(many, "SELECT name, seq FROM sqlite_sequence ORDER BY name") == highest


def test_beside_a_writer_and_without_a_library(many, tmp_path):
    """A writer's library is not repaired under its hands; where nothing is, nothing is made."""
    with WriterLock(many.folder / "LOCK"), pytest.raises(LibraryLocked, match="is locked by pid"):
        many.repair()
    with mmsearch.open_library(tmp_path / "none") as none, pytest.raises(LibraryMissing):
        none.repair()
    assert not (tmp_path / "none").exists()

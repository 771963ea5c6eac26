"""Folders as they are in the world: links, pipes, strange names and dates, rights, sizes."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from hostile import as_a_person, encoded, exif_bytes, package_environment, photo, sparse
from hypothesis import given
from hypothesis import strategies as st

import mmsearch
from mmsearch.files import WalkRules, display, walk


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


@pytest.fixture
def real_library(tmp_path):
    """A library with the built-in model and decoders of its own, where vectors matter."""
    with mmsearch.open_library(tmp_path / "index", workers=1) as opened:
        yield opened


def put(path, seed: int = 0, **options) -> bytes:
    """Write a photo; its bytes."""
    data = encoded(photo(96, 72, seed), "JPEG", **options)
    path = os.fsencode(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return data


def found(library) -> list[bytes]:
    """The name of every file that a search can answer with."""
    hits = library.query("red", k=10_000, all=True)
    return sorted(os.fsencode(hit.path.name) for hit in hits)


def failed(report) -> dict[str, str]:
    return {path.name: reason for path, reason in report.failed}


def own_score(library, path) -> float:
    """How well the library's vector of a file fits what the file holds now."""
    hits = library.query(mmsearch.image(str(path)), k=10_000, all=True)
    return next(hit.score for hit in hits if hit.path == path)


# -- row 27: dates -----------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 1, -1, -(2**31), 2**31, 2**33])
def test_any_date_is_a_date(library, folder, seconds):
    """Row 27: a file from 1901 or 2242 is indexed once and then unchanged."""
    put(folder / "a.jpg")
    os.utime(folder / "a.jpg", (seconds, seconds))
    assert library.index(folder).added == 1
    again = library.index(folder)
    assert (again.added, again.changed, again.unchanged) == (0, 0, 1)


def test_a_date_beyond_64_bits_of_nanoseconds(library, folder):
    """Row 27: seconds near 2^63 are more than SQLite holds in nanoseconds, and do no harm."""
    put(folder / "a.jpg")
    try:
        os.utime(folder / "a.jpg", (2**62, 2**62))
    except OverflowError:
        pytest.skip("this system's clock does not reach that far")
    assert library.index(folder).added == 1
    assert library.index(folder).unchanged == 1


def test_a_new_date_alone_is_no_new_picture(library, folder):
    """Row 27: the clock jumped, the content is the same: nothing is encoded again."""
    put(folder / "a.jpg")
    library.index(folder)
    for seconds in (10**9, 2 * 10**9):
        os.utime(folder / "a.jpg", (seconds, seconds))
        report = library.index(folder)
        assert (report.changed, report.unchanged, report.encoded) == (0, 1, 0)


def test_new_content_is_noticed_when_the_clock_went_back(real_library, folder):
    """Row 27: an older date is another date."""
    put(folder / "a.jpg", 1)
    real_library.index(folder)
    put(folder / "a.jpg", 2)
    os.utime(folder / "a.jpg", (10**6, 10**6))
    assert real_library.index(folder).changed == 1
    assert own_score(real_library, folder / "a.jpg") > 0.999


def test_a_replaced_file_of_the_same_size_and_date_is_noticed(real_library, folder):
    """Row 27: another inode under the name is another file."""
    one = put(folder / "a.jpg", 1)
    two = put(folder / "new", 2)
    size = max(len(one), len(two))
    for name, data in (("a.jpg", one), ("new", two)):
        (folder / name).write_bytes(data.ljust(size, b"\0"))
        os.utime(folder / name, (10**9, 10**9))
    os.rename(folder / "new", folder.parent / "new")
    real_library.index(folder)
    os.rename(folder.parent / "new", folder / "a.jpg")
    assert real_library.index(folder).changed == 1
    assert own_score(real_library, folder / "a.jpg") > 0.999


def test_rehash_sees_what_the_date_hides(real_library, folder):
    """Row 27: rewritten in place, same size, same date: `rehash` compares the content."""
    one, two = put(folder / "a.jpg", 1), encoded(photo(96, 72, 2), "JPEG")
    size = max(len(one), len(two))
    (folder / "a.jpg").write_bytes(one.ljust(size, b"\0"))
    os.utime(folder / "a.jpg", (10**9, 10**9))
    real_library.index(folder)
    (folder / "a.jpg").write_bytes(two.ljust(size, b"\0"))
    os.utime(folder / "a.jpg", (10**9, 10**9))
    assert real_library.index(folder).unchanged == 1
    assert real_library.index(folder, rehash=True).changed == 1
    assert own_score(real_library, folder / "a.jpg") > 0.999


# -- rows 29 and 30: what is no regular file ---------------------------------------------


def test_links_are_not_followed(library, folder, tmp_path):
    """Row 29: neither loops nor ways out; each link counts as skipped, its target once."""
    put(tmp_path / "outside" / "secret.jpg", 1)
    put(folder / "a.jpg", 2)
    for name, target in {
        "loop": ".", "up": "..", "out": tmp_path / "outside", "root": "/", "itself": "itself",
        "out.jpg": tmp_path / "outside" / "secret.jpg", "again.jpg": "a.jpg", "broken.jpg": "no",
    }.items():  # fmt: skip
        (folder / name).symlink_to(target)
    report = library.index(folder)
    assert (report.added, report.skipped, report.failed) == (1, 8, [])
    assert found(library) == [b"a.jpg"]


def test_a_root_may_be_a_link(library, folder, tmp_path):
    """Row 29: a folder that the user names is followed, and known by its real place."""
    put(folder / "a.jpg")
    (tmp_path / "link").symlink_to(folder)
    assert library.index(tmp_path / "link").added == 1
    assert library.index(folder).unchanged == 1
    assert library.query("red", k=1, all=True)[0].path == folder / "a.jpg"


def test_pipes_sockets_and_devices_are_skipped(library, folder, monkeypatch):
    """Row 30: nothing that is not a regular file is opened, so that nothing can hang."""
    put(folder / "a.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        report = library.index(folder)
    assert (report.added, report.skipped, report.failed) == (1, 3, [])


def test_a_folder_swapped_for_a_link_is_not_entered(folder, tmp_path):
    """Row 29: a link that takes a folder's place while the walk goes on leads nowhere."""
    put(folder / "b" / "mine.jpg", 1)
    put(tmp_path / "outside" / "secret.jpg", 2)
    seen = []
    for found_folder in walk(os.fsencode(folder), WalkRules()):
        seen += [name for name, _ in found_folder.files]
        if found_folder.path == os.fsencode(folder):
            shutil.rmtree(folder / "b")
            (folder / "b").symlink_to(tmp_path / "outside")
    assert seen == []


def test_a_folder_deleted_meanwhile_is_nobodys_fault(library, folder):
    """Row 34: a folder that goes while its neighbours are listed is not a failure."""
    put(folder / "a.jpg", 1)
    put(folder / "b" / "c" / "deep.jpg", 2)
    errors = []
    for found_folder in walk(os.fsencode(folder), WalkRules()):
        errors.append(found_folder.error)
        if found_folder.path == os.fsencode(folder):
            shutil.rmtree(folder / "b")
    assert errors == [None]


# -- row 31: rights ----------------------------------------------------------------------

_UNREADABLE = """
import json, os, sys
import mmsearch
folder, index = sys.argv[1:]
if os.access(folder + "/file.jpg", os.R_OK):
    sys.exit("may read anything")
with mmsearch.open_library(index, workers=1) as library:
    first = library.index(folder)
    os.chmod(folder + "/file.jpg", 0o600)
    os.chmod(folder + "/closed", 0o700)
    second = library.index(folder)
    os.chmod(folder + "/closed", 0)
    third = library.index(folder)
    hits = library.query("a photo", k=100, all=True)
print(json.dumps([
    [first.added, sorted([os.path.basename(path), reason] for path, reason in first.failed)],
    [second.added, second.unchanged, second.failed],
    [third.gone, third.unchanged, [[os.path.basename(path), why] for path, why in third.failed]],
    sorted(hit.path.name for hit in hits),
]))
"""


def test_what_may_not_be_read_is_named_and_tried_again(folder, tmp_path):
    """Row 31: an unreadable file and folder are named, the rest is indexed; once the rights
    are given they are read, and a folder that closes again loses nothing."""
    for seed, name in enumerate(("a.jpg", "file.jpg", "closed/inside.jpg", "open/b.jpg")):
        put(folder / name, seed)
    (folder / "file.jpg").chmod(0)
    (folder / "closed").chmod(0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _UNREADABLE, folder, tmp_path / "index"],
            env=package_environment(), capture_output=True, check=False, preexec_fn=as_a_person,
        )  # fmt: skip
    finally:
        (folder / "closed").chmod(0o700)
    if b"may read anything" in done.stderr:
        pytest.skip("root's right to read anything cannot be given up here")
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == [
        [2, [["closed", "unreadable"], ["file.jpg", "unreadable"]]],
        [2, 2, []],
        [0, 3, [["closed", "unreadable"]]],
        ["a.jpg", "b.jpg", "file.jpg", "inside.jpg"],
    ]


# -- rows 32 and 33: names ---------------------------------------------------------------


def test_any_bytes_are_a_name(library, folder):
    """Row 32: a name of any bytes is found again as those bytes."""
    choose = random.Random(7)
    usable = bytes(set(range(256)) - set(b"\0/"))
    names = {bytes(choose.choices(usable, k=choose.randrange(1, 60))) for _ in range(40)}
    names = {name.lstrip(b".") + b".jpg" for name in names}
    for seed, name in enumerate(sorted(names)):
        put(os.path.join(os.fsencode(folder), name), seed)
    assert library.index(folder).added == len(names)
    assert found(library) == sorted(names)
    assert library.index(folder).unchanged == len(names)


@given(st.binary(min_size=1, max_size=40))
def test_any_name_can_be_shown(name):
    """Row 32: shown to a person, a name is printable and says where it is not."""
    shown = display(name)
    assert shown.isprintable()
    shown.encode("utf-8")
    if name.isascii() and name.decode().isprintable():
        assert shown == name.decode()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.jpg", r"caf\xe9.jpg"), ("café.jpg".encode(), "café.jpg"),
        (b"a\nb\x1b[31m", r"a\nb\x1b[31m"), ("gpj.\u202efdp".encode(), r"gpj.\u202efdp"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"), ("猫\U0001f408".encode(), "猫\U0001f408"),
    ],
)  # fmt: skip
def test_a_strange_name_is_shown_escaped(name, shown):
    """Row 32: escapes show what is there; nothing reaches the terminal raw."""
    assert display(name) == shown


def test_the_longest_names_and_paths(library, folder):
    """Row 33: 255-byte names and paths up to the system's limit are indexed."""
    base = os.fsencode(folder)
    put(os.path.join(base, b"\xc3\xa9" * 125 + b"x.jpg"), 1)
    path = base
    while len(path) + 210 < 4095:
        path = os.path.join(path, b"d" * 200)
    longest = os.path.join(path, b"n" * (4095 - len(path) - 5) + b".jpg")
    assert len(longest) == 4095
    put(longest, 2)
    report = library.index(folder)
    assert (report.added, report.failed) == (2, [])
    assert os.path.basename(longest) in found(library)


def _dig(top: bytes, name: bytes, depth: int, bottom: bytes) -> None:
    """Folders inside folders, deeper than any path reaches, with a photo at the bottom."""
    at = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    file = os.open(bottom, os.O_WRONLY | os.O_CREAT, dir_fd=at)
    os.write(file, encoded(photo(96, 72, 99), "JPEG"))
    os.close(file)
    os.close(at)


@pytest.mark.parametrize(("name", "depth"), [(b"n" * 250, 20), (b"d", 2_500)])
def test_a_tree_deeper_than_any_path_is_reported(library, folder, name, depth):
    """Row 33: where a path would exceed 4096 bytes that folder is named, the rest indexed."""
    put(folder / "a.jpg")
    _dig(os.fsencode(folder), name, depth, b"bottom.jpg")
    try:
        for _ in range(2):  # a folder that cannot be listed is tried in every run
            report = library.index(folder)
            assert len(report.failed) == 1
            path, reason = report.failed[0]
            assert reason == "unreadable"
            assert len(os.fsencode(path)) >= 4096
            assert os.fsencode(path).endswith(b"/" + name)
        assert found(library) == [b"a.jpg"]
        assert "name too long" in library.errors()[0].message
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)  # deeper than Python's own recursion


def test_one_path_too_long_leaves_its_neighbours(library, folder):
    """Row 33: a file whose own path exceeds the limit costs its folder nothing else."""
    path = os.fsencode(folder)
    while len(path) < 3890:
        path = os.path.join(path, b"d" * min(200, 3999 - len(path)))
    put(os.path.join(path, b"a.jpg"), 1)
    put(os.path.join(path, b"z", b"b.jpg"), 2)
    at = os.open(path, os.O_RDONLY)
    for number in range(5):
        os.close(os.open(b"%d" % number + b"n" * 240, os.O_CREAT, dir_fd=at))
    os.close(at)
    report = library.index(folder)
    assert found(library) == [b"a.jpg", b"b.jpg"]
    assert [(os.fsencode(name), reason) for name, reason in report.failed] == [(path, "unreadable")]


# -- row 34: files that change meanwhile -------------------------------------------------


def test_a_file_replaced_between_decoding_and_commit_gets_its_own_vector(real_library, folder):
    """Row 34: what is committed is what the file holds, not what it held."""
    put(folder / "a.jpg", 1)
    swapped = []

    def replace(progress):
        if progress.total and not swapped:
            swapped.append(put(folder / "a.jpg", 2, exif=exif_bytes(1)))

    report = real_library.index(folder, progress=replace)
    assert swapped
    assert (report.added, report.failed) == (1, [])
    assert own_score(real_library, folder / "a.jpg") > 0.999
    assert real_library.index(folder).unchanged == 1


def test_a_file_that_keeps_changing_is_named(library, folder):
    """Row 34: `changed`, not indexed, the others are; it is read again in the next run."""
    put(folder / "a.jpg", 1)
    put(folder / "restless.jpg", 2)
    data = (folder / "restless.jpg").read_bytes()
    times = []

    def grow(progress):
        if progress.total:
            times.append(1)
            (folder / "restless.jpg").write_bytes(data + bytes(len(times)))

    report = library.index(folder, progress=grow)
    assert failed(report) == {"restless.jpg": "changed"}
    assert found(library) == [b"a.jpg"]
    report = library.index(folder)
    assert (report.added, report.unchanged, report.failed) == (1, 1, [])


@pytest.mark.parametrize("known", [False, True])
def test_row_34_what_becomes_a_link_meanwhile_is_named(library, folder, known):
    """Row 34: `changed`; the next run sees a link, which it skips, and nothing is lost by that:
    the file is found again when it is back, and what was known of it was kept.
    """
    put(folder / "a.jpg", 1)
    put(folder / "b.jpg", 2)
    if known:
        assert library.index(folder).added == 2
        os.utime(folder / "b.jpg", (1, 1))  # so that it is read
    away = folder.parent / "b.jpg"

    def swap(progress):
        if progress.total and not away.exists():
            away.hardlink_to(folder / "b.jpg")
            (folder.parent / "link").symlink_to(away)
            (folder.parent / "link").replace(folder / "b.jpg")  # there is always something there

    report = library.index(folder, progress=swap)
    assert failed(report) == {"b.jpg": "changed"}
    assert [failure.message for failure in report.failures] == ["it became a link"]
    report = library.index(folder)
    assert (report.skipped, report.failed, report.gone) == (1, [], int(known))
    assert found(library) == [b"a.jpg"]
    away.rename(folder / "b.jpg")
    report = library.index(folder)
    assert (report.added, report.encoded, report.failed) == (1, int(not known), [])
    assert found(library) == [b"a.jpg", b"b.jpg"]


def test_a_file_deleted_meanwhile_is_nobodys_fault(library, folder):
    """Row 34: gone before the commit means neither indexed nor failed."""
    put(folder / "a.jpg", 1)
    put(folder / "b.jpg", 2)

    def delete(progress):
        if progress.total:
            (folder / "b.jpg").unlink(missing_ok=True)

    report = library.index(folder, progress=delete)
    assert report.failed == []
    assert found(library) == [b"a.jpg"]


# -- rows 35 and 36: types and twins -----------------------------------------------------


def test_content_decides_not_the_suffix(library, folder):
    """Row 35: a picture under any name is indexed; what only claims to be one is named."""
    png, jpeg = encoded(photo(96, 72, 1), "PNG"), encoded(photo(96, 72, 2), "JPEG")
    for name, data in {
        "png.jpg": png, "jpeg.txt": jpeg, "empty.jpg": b"", "text.jpg": b"a text",
        "empty.csv": b"", "text.csv": b"a text", "svg.PNG": b"<svg xmlns='...'/>",
    }.items():  # fmt: skip
        (folder / name).write_bytes(data)
    report = library.index(folder)
    assert (report.added, report.skipped) == (2, 2)
    assert failed(report) == {
        "empty.jpg": "empty", "text.jpg": "type-mismatch", "svg.PNG": "type-mismatch",
    }  # fmt: skip


def test_twins_share_a_vector_and_are_all_found(library, folder):
    """Row 36: one vector a content; links, copies and other cases of a name are listed."""
    data = put(folder / "one.jpg", 1)
    os.link(folder / "one.jpg", folder / "link.jpg")
    for name in ("copy.jpg", "ONE.JPG"):
        (folder / name).write_bytes(data)
    put(folder / "other.jpg", 2)
    report = library.index(folder)
    assert (report.added, report.copied, report.encoded) == (2, 3, 2)
    assert found(library) == [b"ONE.JPG", b"copy.jpg", b"link.jpg", b"one.jpg", b"other.jpg"]
    hits = library.query(mmsearch.image(str(folder / "one.jpg")), k=5, all=True)
    assert len({hit.score for hit in hits if hit.path.name != "other.jpg"}) == 1


# -- rows 37 and 38: many and large ------------------------------------------------------


def test_few_file_descriptors_are_enough(folder, tmp_path):
    """Row 37: thousands of files in one folder are indexed with 64 descriptors."""
    resource = pytest.importorskip("resource")
    data = put(folder / "0.jpg")
    for number in range(1, 1500):
        if number % 500:
            os.link(folder / "0.jpg", folder / f"{number}.jpg")
        else:
            (folder / f"{number}.jpg").write_bytes(data)

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    done = subprocess.run(
        [sys.executable, "-m", "mmsearch", "index", folder, "--index", tmp_path / "i"],
        env=package_environment(), capture_output=True, check=False, preexec_fn=few,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    with mmsearch.open_library(tmp_path / "i") as library:
        assert len(found(library)) == 1500


def test_a_sparse_terabyte_is_not_read(library, folder):
    """Row 38: size decides before a byte of it is read into memory."""
    put(folder / "a.jpg")
    sparse(os.fsencode(folder / "huge.jpg"), encoded(photo(), "JPEG"))
    sparse(os.fsencode(folder / "disk.img"), b"")
    report = library.index(folder)
    assert (report.added, report.skipped) == (1, 1)
    assert failed(report) == {"huge.jpg": "too-large"}
    assert "MB is over the limit" in library.errors()[0].message


# -- seen elsewhere ----------------------------------------------------------------------


def test_a_bad_file_does_not_shift_the_others(real_library, folder):
    """After unreadable files in a batch every vector still belongs to its own file."""
    good = []
    for number in range(60):
        path = folder / f"{number:02}.jpg"
        put(path, number)
        if number % 7 == 3:
            path.write_bytes(path.read_bytes()[:900] if number % 2 else b"no picture")
        else:
            good.append(path)
    report = real_library.index(folder)
    assert (report.added, len(report.failed)) == (len(good), 60 - len(good))
    rows = mmsearch.embed([str(path) for path in good], modality="image")
    expected = rows @ rows.T
    for number, path in enumerate(good):
        hits = real_library.query(mmsearch.image(str(path)), k=100, all=True)
        scores = {hit.path: hit.score for hit in hits}
        assert set(scores) == set(good)
        assert scores[path] > 0.999
        got = np.array([scores[other] for other in good])
        assert np.abs(got - expected[number]).max() < 2e-3

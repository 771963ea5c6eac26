"""A short sample of each campaign in tests/campaigns; each says there how to start the whole."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from campaigns import (
    bugs,
    damaged_media,
    fault_points,
    library_damage,
    many_files,
    poison_folder,
    random_kills,
    stand_ins,
)
from campaigns.disk import Disk, Model, Op
from campaigns.power_cuts import Campaign, cut
from campaigns.report import Report, in_memory
from campaigns.scenarios import SCENARIOS, Place
from faults.harness import compiler

from mmsearch.decoding import Job, Piece
from mmsearch.errors import LibraryLocked
from mmsearch.locking import WriterLock
from mmsearch.records import Modality


@pytest.fixture
def scratch():
    """A folder in memory."""
    folder = in_memory()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def stood_in():
    """Stand-ins for the model and for decoder processes in this one."""
    with pytest.MonkeyPatch.context() as patch:
        stand_ins.install(patch.setattr)
        yield


@pytest.fixture(scope="module")
def power(stood_in):
    """Power cuts of traced runs."""
    if compiler() is None:
        pytest.skip("no C compiler (cc) to build the preloaded library")
    campaign = Campaign(Report("power cuts", 1), 1, in_memory())
    yield campaign
    campaign.close()


@pytest.mark.parametrize("name", ["small", "cache"])
def test_row_7_power_cuts(power, name):
    """Row 7: un-synced writes dropped, torn or reordered: what was acknowledged is there."""
    power.report = report = Report("power cuts", 1)
    recording, judge = power.prepared(SCENARIOS[name], ("count", 0))
    cut(recording, judge, report, 800, seed=1)
    assert report.findings == []
    assert report.counts["states"] > 500 and report.counts["distinct states"] > 50


@pytest.mark.parametrize("name", bugs.BUGS)
def test_row_7_the_campaign_catches_seeded_bugs(power, name):
    """Row 7: the same campaign finds each of eight durability bugs that are put in on purpose."""
    found = power.bug(name, 4000)
    assert found["caught"], found


def test_rows_1_to_6_fault_points(power, scratch):
    """Rows 1 to 6, for a forgotten file: each fault at some of the changes harms nothing."""
    place = Place(scratch / "place", power.zygote, random.Random(1))
    bench = fault_points.Bench(SCENARIOS["forget"], place, scratch)
    points = [point[1:] for point in fault_points.shuffled({"forget": bench}, 1)]
    assert {mode for mode, _ in points} == set(fault_points.MODES)
    for mode, at in points[:8]:
        assert bench.trial(mode, at) == [], (mode, at)


def test_row_1_killed_at_random_moments(power, scratch):
    """Rows 1, 8 and 13: killed at random moments while a reader asks, nothing said is lost."""
    report = Report("random kills", 1)
    random_kills.campaign(12, 1, report, scratch, readers=1)
    assert report.findings == []
    assert report.counts["kills"] == 12 and report.counts["answers"] > 10


def test_rows_16_to_20_damaged_libraries(tmp_path):
    """Rows 16 to 20: refused, rightly answered, or `check` says what is wrong; never a crash.

    As a program of its own: it forks, which a process with the threads of other tests may not.
    """
    told = tmp_path / "report.json"
    program = [sys.executable, "-m", "campaigns.library_damage", "--size", "60"]
    subprocess.run(
        [*program, "--report", str(told)], check=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    report = json.loads(told.read_text())
    assert (report["size"], report["findings"]) == (60, [])
    counts = report["counts"]
    assert sum(counts.values()) == 60
    assert counts["refused"] > 3 and counts["answered rightly"] > 10


@pytest.mark.parametrize("number", [381, 384, 1123, 2776, 4251, 6679, 8089])
def test_row_16_rows_that_make_no_sense(stood_in, scratch, number):
    """Row 16: a page that became zeros or another one is damage, not a TypeError."""
    libraries = library_damage.Libraries(scratch)
    files, _ = libraries.damaged(random.Random(f"1 {number}"))
    assert library_damage.judged(libraries, files, scratch / "case") == ("refused", "")


def test_row_47_damaged_media(scratch):
    """Row 47: mutated pictures, sounds and texts are decoded or named, and harm nothing else."""
    report = Report("damaged media", 1)
    damaged_media.campaign(400, 1, report, scratch)
    assert report.findings == []
    assert report.counts["decoded"] > 40 and report.counts["truncated"] > 40


@pytest.mark.parametrize("number", [9807, 15151])
def test_row_47_a_rest_that_stays_with_its_window(scratch, number):
    """Row 47: a damaged header may make windows of up to two seconds of one: that is no harm."""
    report = Report("damaged media", 1)
    report.done = number
    damaged_media.campaign(number + 1, 1, report, scratch)
    assert report.findings == []
    assert report.counts["decoded"] == 1


def test_what_is_no_part_and_what_takes_too_long(scratch, monkeypatch):
    """The judge of damaged media sees long windows, no samples, no numbers, and lost time."""
    for samples, good in (
        (np.zeros(1), True), (np.zeros(15_999), True), (np.zeros(16_000), False),
        (np.zeros(0), False), (np.full(9, np.nan), False), (np.zeros((9, 2)), False),
    ):  # fmt: skip
        piece = Piece(Job(b"x"), b"", Modality.AUDIO, 0, samples.astype(np.float32), 0.0, 1.0)
        assert (damaged_media._no_part(piece) is None) == good, samples.shape
    monkeypatch.setattr(damaged_media, "SECONDS", -1.0)
    report = Report("damaged media", 1)
    damaged_media.campaign(3, 1, report, scratch)
    assert [found["what"].endswith("s of CPU time") for found in report.findings] == [True] * 3


def test_what_the_killed_left_behind_is_swept_away(tmp_path):
    """A folder that no process holds, unless it was only just made."""
    held, left, new, other = folders = [
        tmp_path / name for name in ("mmsearch-quarters-1", "mmsearch-quarters-2",
                                     "mmsearch-quarters-3", "mmsearch-photos")
    ]  # fmt: skip
    for folder in folders:
        folder.mkdir()
        (folder / "queries.npy").touch()
    for folder in (held, left, other):
        os.utime(folder, (1e9, 1e9))
    holder = os.open(held, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_SH)
    stand_ins.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([held, new, other])
    os.close(holder)
    stand_ins.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, other])


def test_row_37_many_files(scratch):
    """Row 37: the scan of a folder of three thousand files, and of three folders of a thousand."""
    report = Report("many files", 1)
    many_files.campaign(3000, report, scratch)
    assert report.findings == []
    assert report.counts["scans"] == 6
    assert 2 <= report.as_dict()["descriptors"] < 20


def test_row_37_the_campaign_sees_what_grows(scratch, monkeypatch):
    """A scan that takes more than it may, or finds other files than there are, is a finding."""
    monkeypatch.setattr(many_files, "FIXED", -1e9)
    monkeypatch.setattr(many_files, "know", print)  # any function that does not
    report = Report("many files", 1)
    many_files.campaign(1000, report, scratch)
    said = [found["what"] for found in report.findings]
    assert sum("bytes" in what for what in said) == 6
    assert "found {'all new': 1000, 'all known': 0, 'all gone': 0}" in said


def test_rows_29_to_53_a_poison_folder(scratch):
    """Rows 29 to 53 but for four: one file each of over sixty hostile kinds among good ones."""
    report = Report("poison folder", 1)
    poison_folder.campaign(120, 1, report, scratch)
    assert report.findings == []
    assert len(report.as_dict()["kinds"]) > 60
    assert report.counts["became indexed"] > 30


# -- the model of a disk, against what can be worked out by hand ---------------------------


def written(path: str, data: bytes, offset: int = 0) -> Op:
    """A write of a trace."""
    return Op("write", False, 1, offset, path, data)


def named(call: str, path: str, data: bytes = b"") -> Op:
    """A change of names of a trace, or a sync."""
    return Op(call, False, 1, 0, path, data)


def left(ops: list[Op], model: Model) -> set[tuple[tuple[str, bytes], ...]]:
    """All that 2,000 power cuts after these changes leave."""
    disk = Disk(ops)
    disk.run(len(ops))
    lost, chance = disk.lost(model), random.Random(1)
    states = [lost.some(chance) for _ in range(2000)]
    return {
        tuple((path, disk.sectors.bytes_of(sectors, size)) for path, _, sectors, size in s.files)
        for s in states
    }


@pytest.mark.parametrize("model", Model)
def test_what_is_synced_is_never_lost(model):
    """A file whose bytes and whose folder were synced is there, whole, in every state."""
    ops = [named("create", "/a"), written("/a", b"x" * 700), named("sync", "/a")]
    assert left([*ops, named("sync", "")], model) == {(("/a", b"x" * 700),)}


def test_two_models_differ_about_a_name():
    """A synced file in a folder that was not may be absent, but not with an ordered journal."""
    ops = [named("create", "/a"), written("/a", b"x"), named("sync", "/a")]
    assert left(ops, Model.JOURNAL) == {(("/a", b"x"),)}
    assert left(ops, Model.POSIX) == {(("/a", b"x"),), ()}


def test_sectors_are_torn_and_reordered():
    """Of two sectors written over, either, both or neither are new."""
    a, b = b"a" * 512, b"b" * 512
    ops = [named("create", "/f"), written("/f", a + a), named("sync", "/f"), named("sync", "")]
    found = left([*ops, written("/f", b + b)], Model.JOURNAL)
    assert found == {(("/f", one + other),) for one in (a, b) for other in (a, b)}


def test_a_sync_that_failed_is_not_made_good():
    """What a failed sync left behind may still be lost after one that went well."""
    ops = [named("create", "/f"), written("/f", b"a" * 512), named("sync", "/f"), named("sync", "")]
    ops += [written("/f", b"b" * 512), Op("sync", True, 1, 0, "/f", b""), named("sync", "/f")]
    assert left(ops, Model.JOURNAL) == {(("/f", b"a" * 512),), (("/f", b"b" * 512),)}


def test_row_11_a_holder_that_has_yet_to_say_who_it_is(tmp_path):
    """Row 11: a lock that was got this moment names its holder as soon as that is written."""
    lock = tmp_path / "LOCK"
    with WriterLock(lock):
        line = lock.read_bytes()
        lock.write_bytes(b"")
        late = threading.Timer(0.02, lock.write_bytes, [line])
        late.start()
        with pytest.raises(LibraryLocked, match=f"locked by pid {os.getpid()} since"):
            WriterLock(lock).__enter__()
        late.join()

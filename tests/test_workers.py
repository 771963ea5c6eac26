"""What the parent makes of a worker's answers, how one ends, and what a run does about both."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from pathlib import Path

import numpy as np
import pytest
from campaigns.stand_ins import InPlace
from conftest import paint

import mmsearch
from mmsearch.decoding import DecoderPool, Job, Limits, Outcome, Piece, Wants, claims
from mmsearch.decoding.frames import receive, send
from mmsearch.decoding.processes import ForkServer, spawned
from mmsearch.decoding.reading import cap_memory
from mmsearch.decoding.worker import Worker
from mmsearch.files import Stat
from mmsearch.records import AudioInput, ImageInput, Reason
from mmsearch.settings import Settings

WANTS = Wants(ImageInput(4), AudioInput(rate=8000, window=2.0), text=True)
LIMITS = Limits(timeout=60, max_megapixels=64, max_file_mb=100)
JOB = Job(b"/a")
DIGEST = "0d" * 16


@pytest.fixture
def server():
    """Where decoders are forked."""
    opened = ForkServer()
    yield opened
    opened.end()


# -- the worker's side -------------------------------------------------------------------


@pytest.mark.parametrize("way", ["spawned", "forked"])
def test_a_worker_ends_with_its_questions(tmp_path, server, way):
    """It says that it is ready, answers, and exits with 0 when nobody can ask any more."""
    path = os.fsencode(paint(tmp_path / "red.png", "red"))
    worker = Worker(WANTS, LIMITS, server.start if way == "forked" else spawned)
    process = worker._start()
    send(process.stdin, worker._hello)
    assert receive(process.stdout)[0] == {"ready": True}
    for decode, window in ((True, None), (False, 1.0)):
        question = {"path": path.decode("latin-1"), "decode": decode, "window": window}
        send(process.stdin, question)
        head, data = receive(process.stdout)
        if decode:
            piece = claims.piece(JOB, head, data, 0, WANTS)
            assert np.array_equal(piece.data, np.full((4, 4, 3), (255, 0, 0)))
            head, data = receive(process.stdout)
        outcome = claims.outcome(Job(path, decode), head, int(decode))
        assert (outcome.reason, outcome.format) == (None, "PNG")
    process.stdin.close()
    assert process.wait(30) == 0
    process.stdout.close()


def test_a_worker_for_texts_alone_needs_no_other_wants(tmp_path):
    """No picture and no sound is wanted: it says so of each."""
    (tmp_path / "a.txt").write_text("a text")
    pool = DecoderPool(1, Wants(text=True), LIMITS)
    try:
        pool.submit(Job(os.fsencode(tmp_path / "a.txt")))
        assert pool.next().data == "a text"
        assert pool.next().parts == 1
        pool.submit(Job(os.fsencode(paint(tmp_path / "red.png", "red"))))
        assert pool.next().reason is Reason.NO_MODEL
    finally:
        pool.close()


def test_the_cap_of_memory_is_worked_out_from_the_limits(monkeypatch):
    """What there is, the file twice, ten bytes a pixel and 256 MiB; no more than is allowed."""
    usual, put = resource.getrlimit, {}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: put.update({kind: pair}))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5, resource.RLIM_INFINITY))
    cap_memory(Limits(1, 200.0, 300.0))
    now = pages * os.sysconf("SC_PAGE_SIZE")
    cap, hard = put[resource.RLIMIT_AS]
    assert hard == resource.RLIM_INFINITY
    assert cap - now == pytest.approx(6e8 + 20e8 + 2**28, abs=64e6)
    assert put[resource.RLIMIT_CORE] == (0, 0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5, 1000))
    cap_memory(LIMITS)
    assert put[resource.RLIMIT_AS] == (1000, 1000)
    put.clear()
    monkeypatch.setattr("sys.platform", "darwin")
    cap_memory(LIMITS)
    assert put == {}
    assert usual(resource.RLIMIT_AS)


def test_memory_that_runs_out_is_a_reason(tmp_path, monkeypatch):
    """The file is known by its state, and named."""
    path = paint(tmp_path / "red.png", "red")

    def load_image(*_, **__):
        raise MemoryError

    monkeypatch.setattr("mmsearch.loaders.load_image", load_image)
    pool = InPlace(1, WANTS, LIMITS)
    pool.submit(Job(os.fsencode(path)))
    outcome = pool.next()
    assert (outcome.reason, outcome.message) == (
        Reason.OUT_OF_MEMORY, "more memory needed than allowed",
    )  # fmt: skip
    assert outcome.state == Stat.of(path.stat()).figures


def test_a_folder_that_became_a_link_is_not_read(tmp_path):
    """Whatever the link leads to."""
    paint(tmp_path / "real" / "red.png", "red")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    pool = InPlace(1, WANTS, LIMITS)
    pool.submit(Job(os.fsencode(tmp_path / "link" / "red.png")))
    outcome = pool.next()
    assert (outcome.reason, outcome.message) == (Reason.CHANGED, "a folder above it became a link")
    assert outcome.state is None
    (tmp_path / "link.png").symlink_to(tmp_path / "real" / "red.png")
    pool.submit(Job(os.fsencode(tmp_path / "link.png")))
    assert pool.next().message == "it became a link"


# -- the parent's side -------------------------------------------------------------------


def head(modality, **more):
    return {"digest": DIGEST, "modality": modality, **more}


@pytest.mark.parametrize(
    "modality, data, wants, said",
    [
        ("audio", bytes(4 * 24_001), WANTS, "no window is this long"),
        ("audio", b"", WANTS, "no window is this long"),
        ("audio", np.array([1, np.nan], "<f4").tobytes(), WANTS, "no sound has such samples"),
        ("audio", np.array([np.inf], "<f4").tobytes(), WANTS, "no sound has such samples"),
        ("audio", bytes(8), Wants(ImageInput(4)), "nobody asked for this"),
        ("text", b"x", Wants(ImageInput(4)), "nobody asked for this"),
        ("image", bytes(48), Wants(text=True), "nobody asked for this"),
        ("image", bytes(47), WANTS, "reshape"),
        ("text", b"\xff", WANTS, "invalid start byte"),
        ("smell", b"", WANTS, "smell"),
    ],
)
def test_parts_that_are_none(modality, data, wants, said):
    """A worker that was taken over can send what it likes: it must be what was asked for."""
    with pytest.raises(ValueError, match=said):
        claims.piece(JOB, head(modality), data, 0, wants)


def test_parts_that_are_some():
    """Pixels, samples of the window that was asked for, words."""
    picture = claims.piece(JOB, head("image"), bytes(range(48)), 2, WANTS)
    assert picture.data.tolist() == np.arange(48).reshape(4, 4, 3).tolist()
    assert (picture.number, picture.digest, picture.start) == (2, bytes.fromhex(DIGEST), None)
    most = WANTS.audio.most
    sound = claims.piece(JOB, head("audio", start=1.0, end=3.0), bytes(4 * most), 0, WANTS)
    assert (len(sound.data), sound.start, sound.end) == (most, 1.0, 3.0)
    with pytest.raises(ValueError, match="no window is this long"):
        claims.piece(Job(b"/a", window=0.5), head("audio"), bytes(4 * most), 0, WANTS)
    assert claims.piece(JOB, head("text"), "ä".encode(), 0, WANTS).data == "ä"


def test_an_outcome_without_parts_or_reason_is_none():
    """Unless no part was asked for."""
    told = head("image", state=[1, 2, 3], format="PNG", metadata={"captions": []})
    with pytest.raises(ValueError, match="without parts"):
        claims.outcome(JOB, told, 0)
    found = claims.outcome(Job(b"/a", decode=False), dict(told, metadata={"captions": []}), 0)
    assert (found.state, found.parts, found.reason) == ((1, 2, 3), 0, None)


class Spoken:
    """Stands for a process: its answers are these frames, again and again."""

    def __init__(self, frames):
        import io

        self.stdin, self.stdout = io.BytesIO(), io.BytesIO()
        for told, data in frames:
            send(self.stdout, told, data)
        self.stdout.seek(0)
        self.killed = 0

    def kill(self):
        self.killed += 1

    def wait(self, timeout=None):
        return -9 if self.killed else 0


def asked(frames, deliver=lambda piece: True, job=JOB):
    worker = Worker(WANTS, LIMITS, spawned)
    worker._process = process = Spoken(frames)
    return worker.ask(job, deliver), worker, process


def test_a_file_with_parts_without_end(monkeypatch):
    """The worker is ended, and the file named."""
    monkeypatch.setattr("mmsearch.decoding.worker._MOST_FRAMES", 5)
    got = []
    outcome, worker, process = asked([(head("text"), b"x")] * 9, lambda p: got.append(p) or True)
    assert (outcome.reason, outcome.message) == (Reason.CRASHED, "the decoder died (signal 9)")
    assert [piece.number for piece in got] == [0, 1, 2, 3, 4]
    assert worker._process is None and process.killed


def test_parts_that_nobody_wants_any_more():
    """After the first that is handed back the worker is ended, and the file begun again later."""
    answers = iter([False, True, False])
    outcome, worker, process = asked([(head("text"), b"x")] * 9, lambda piece: next(answers))
    assert outcome == Outcome(JOB, given_up=True)
    assert next(answers, None) is None  # the first part alone is no reason yet
    assert worker._process is None and process.killed == 1


def test_the_last_part_of_a_file_of_one_is_kept():
    """Given up or not: its outcome is there already."""
    told = head("text", state=[1, 2, 3], format="TEXT", metadata={"captions": []})
    outcome, worker, process = asked([(head("text"), b"x"), (told, b"")], lambda piece: False)
    assert (outcome.given_up, outcome.parts, outcome.reason) == (False, 1, None)
    assert worker._process is process and not process.killed


@pytest.mark.parametrize("code, how", [(-11, " (signal 11)"), (3, " (status 3)"), (None, "")])
def test_how_a_worker_ended(tmp_path, code, how):
    """By which signal, or with which status, if anybody knows; the file's state is noted."""
    path = paint(tmp_path / "red.png", "red")
    worker = Worker(WANTS, LIMITS, spawned)
    worker._process = process = Spoken([])
    process.wait = lambda timeout=None: code
    outcome = worker.ask(Job(os.fsencode(path)), lambda piece: True)
    assert outcome.message == f"the decoder died{how}"
    assert outcome.state == Stat.of(path.stat()).figures


def test_a_worker_that_was_slow_once_is_not_so_for_ever(tmp_path):
    """The next file that its process dies over has crashed."""
    worker = Worker(WANTS, LIMITS, spawned)
    worker._overdue, found = True, []
    for _ in range(2):
        worker._process = Spoken([])
        found.append(worker.ask(JOB, lambda piece: True).reason)
    assert found == [Reason.TIMED_OUT, Reason.CRASHED]


def test_a_worker_that_cannot_even_be_killed(monkeypatch):
    """One that hangs in a dead disk's system call is not waited for any longer than 5 seconds."""
    worker = Worker(WANTS, LIMITS, spawned)
    worker._process = process = Spoken([])
    waited = []

    def wait(timeout=None):
        waited.append(timeout)
        raise subprocess.TimeoutExpired("worker", timeout)

    process.wait = wait

    def kill():
        raise ProcessLookupError(errno.ESRCH, "gone")

    process.kill = kill
    worker.end()
    assert waited == [5]


def test_giving_up_nothing():
    """A pool that waits for nothing has nothing to give up: the next job is done."""
    pool = DecoderPool(1, WANTS, LIMITS)
    pool.give_up()
    assert not pool._given_up.is_set()
    pool.submit(JOB)
    pool.give_up()
    assert pool.next().given_up or pool.waiting == 0
    assert (pool.waiting, pool._given_up.is_set()) == (0, False)
    pool.close()


# -- what a run does about them ----------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch, tmp_path, encoder):
    """A function: a library whose decoders first say this of a file, then what is so."""

    def make(said, **settings):
        class Scripted(InPlace):
            def next(self) -> Piece | Outcome:
                answer = super().next()
                name = os.path.basename(answer.job.path)
                if isinstance(answer, Outcome) and said.get(name):
                    return said[name].pop(0)(answer)
                return answer

        monkeypatch.setattr("mmsearch.ingest.DecoderPool", Scripted)
        return mmsearch.open_library(tmp_path / "index", workers=1, **settings)

    return make


def changed(answer):
    state = Stat.of(os.lstat(answer.job.path)).figures
    return Outcome(answer.job, state, reason=Reason.CHANGED, message="changed while it was read")


def test_a_file_that_changed_while_it_was_read_is_read_once_more(scripted, photos):
    """And is named when it does so again; its neighbours are not concerned."""
    for number, name in enumerate(("once.png", "twice.png", "never.png")):
        photos.paint(name, ("red", "green", "blue")[number])
    with scripted({b"once.png": [changed], b"twice.png": [changed, changed]}) as library:
        report = library.index(photos)
        assert report.added == 2
        assert [(f.path.name, f.reason) for f in report.failures] == [("twice.png", Reason.CHANGED)]
        assert library.index(photos).added == 1
        assert {hit.path.name for hit in library.query("red", all=True)} == {
            "once.png", "twice.png", "never.png",
        }  # fmt: skip
        assert library.check() == []


@pytest.mark.parametrize(
    "reason, raised",
    [
        (Reason.TIMED_OUT, {"timeout": 31.0}), (Reason.OVER_BUDGET, {"max_megapixels": 65.0}),
        (Reason.OVER_BUDGET, {"max_hours": 25.0}), (Reason.TOO_LARGE, {"max_file_mb": 257.0}),
        (Reason.TOO_LARGE, {"max_hours": 25.0}), (Reason.TOO_LARGE, {"max_text_mb": 17.0}),
    ],
    ids=str,
)  # fmt: skip
def test_what_was_over_a_limit_is_read_when_that_is_raised(scripted, photos, reason, raised):
    """And not before: by the usual limits it is refused for good."""
    (name, limit), usual = *raised.items(), Settings()
    assert limit > getattr(usual, name)
    photos.paint("red.png", "red")

    def refused(answer):
        return Outcome(answer.job, answer.state, reason=reason, message="too much")

    with scripted({b"red.png": [refused]}) as library:
        assert len(library.index(photos).failures) == 1
        assert (library.index(photos).added, library.status()["failed"]) == (0, 1)
    with scripted({}, **raised) as library:
        assert library.index(photos).added == 1


def test_a_file_that_was_given_up_is_read_by_the_same_run(scripted, photos):
    """Unless it is stopped: then it waits for the next."""
    photos.paint("red.png", "red")
    given_up = [lambda answer: Outcome(answer.job, given_up=True)]
    with scripted({b"red.png": given_up}) as library:
        report = library.index(photos)
        assert (report.added, report.interrupted, report.failed) == (1, False, [])
        assert library.check() == []


def test_formats_that_an_extra_reads_are_counted_in_a_note(scripted, photos):
    """Once for all files, with what to install."""
    photos.paint("a.png", "red")
    photos.paint("b.png", "green")

    def needs(answer):
        state = Stat.of(os.lstat(answer.job.path)).figures
        return Outcome(answer.job, state, reason=Reason.NEEDS_EXTRA, message="pip install X")

    with scripted({b"a.png": [needs], b"b.png": [needs]}) as library:
        report = library.index(photos)
        assert report.skipped == 2
        assert report.notes == ["2 files skipped: pip install X"]


def test_a_long_file_that_fails_late_leaves_nothing(scripted, photos):
    """Passages that were encoded already go, and those of its neighbours stay where they belong."""
    (photos.folder / "long.txt").write_text("\n\n".join(["red " * 400] * 8))
    (photos.folder / "good.txt").write_text("blue")

    def fails(answer):
        state = Stat.of(os.lstat(answer.job.path)).figures
        return Outcome(answer.job, state, reason=Reason.CORRUPT, message="broken at its end")

    with scripted({b"long.txt": [fails]}, batch=2) as library:
        report = library.index(photos)
        assert [(f.path.name, f.message) for f in report.failures] == [
            ("long.txt", "broken at its end")
        ]
        assert report.added == 1
        (hit,) = library.query("blue", all=True)
        assert (hit.path.name, hit.score) == ("good.txt", pytest.approx(1, abs=1e-3))
        assert library.check() == []


def test_a_scan_of_many_files_tells_how_far_it_is(scripted, photos):
    """Each thousand, before it is known how many are to be read; stopped there, nothing is."""
    for number in range(2500):
        (photos.folder / f"{number}.csv").touch()
    photos.paint("red.png", "red")
    told = []
    with scripted({}) as library:
        report = library.index(photos, progress=told.append, stop=lambda: bool(told))
        assert (told[0].done, told[0].total, told[0].committed) == (1000, 0, 0)
        assert report.interrupted and report.added == 0
        assert [step.done for step in told if not step.total] == [1000]  # no more is looked for
        report = library.index(photos)
        assert (report.added, report.skipped, report.interrupted) == (1, 2500, False)

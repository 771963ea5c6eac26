"""Decoders that crash, hang or swell cost their own file, and nothing else."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hostile import (
    EVIL,
    HAS_AVIF,
    encoded,
    exif_bytes,
    files_of_each_format,
    gif_of_frames,
    grey_tiff,
    package_environment,
    photo,
    see_through,
    sparse_wav,
    wide,
    zero_bomb,
)
from PIL import Image

import mmsearch
from mmsearch.decoding import DecoderPool, Job, Limits, Outcome, Piece, Wants
from mmsearch.decoding.reading import Reading
from mmsearch.errors import MmsearchError
from mmsearch.loaders import load_image
from mmsearch.records import AudioInput, ImageInput, Reason

WANT = ImageInput(64)
WANTS = Wants(WANT, AudioInput(), text=True)
LIMITS = Limits(timeout=60, max_megapixels=64, max_file_mb=100)


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """Workers get the evil codec; gives a function that counts how often it was met."""
    log = tmp_path / "evil-log"
    log.touch()
    monkeypatch.setenv("PYTHONPATH", str(EVIL))
    monkeypatch.setenv("EVIL_LOG", str(log))
    return lambda: log.stat().st_size


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def put(path, data: bytes = b"", evil: str = "", seed: int = 0) -> bytes:
    """Write a picture, which may end in the name of an evil; its path."""
    data = data or encoded(photo(96, 72, seed), "JPEG")
    path.write_bytes(data + (b"evil:" + evil.encode() if evil else b""))
    return os.fsencode(path)


class Read:
    """An outcome with the pieces that came before it."""

    def __init__(self, outcome: Outcome, pieces: list[Piece]) -> None:
        self.outcome, self.pieces = outcome, pieces
        self.reason, self.message, self.digest = outcome.reason, outcome.message, outcome.digest

    @property
    def pixels(self) -> np.ndarray:
        [piece] = self.pieces
        return piece.data


def decode(paths, limits: Limits = LIMITS, workers: int = 1) -> dict[bytes, Read]:
    """Have a pool read the files; what came, by path."""
    pool = DecoderPool(workers, WANTS, limits)
    pieces: dict[bytes, list[Piece]] = {}
    outcomes: dict[bytes, Read] = {}
    try:
        for path in paths:
            pool.submit(Job(path))
        while pool.waiting:
            answer = pool.next()
            path = answer.job.path
            if isinstance(answer, Piece):
                if answer.number == 0:  # a file whose worker died is begun again
                    pieces[path] = []
                pieces.setdefault(path, []).append(answer)
                continue
            assert path not in outcomes
            outcomes[path] = Read(answer, pieces.get(path, []))
    finally:
        pool.close()
    assert outcomes.keys() == set(paths)
    return outcomes


def reasons(outcomes) -> dict[str, Reason | None]:
    return {os.path.basename(os.fsdecode(path)): o.reason for path, o in outcomes.items()}


# -- the pool is transparent -------------------------------------------------------------


def test_a_worker_gives_what_the_loader_gives(folder):
    """Pixels, format and size come out of the worker as they would in this process."""
    files = files_of_each_format(photo())
    outcomes = decode([put(folder / name, data) for name, data in files.items()])
    for name, data in files.items():
        outcome = outcomes[os.fsencode(folder / name)]
        image = load_image(data, WANT, max_megapixels=64)
        assert outcome.reason is None, (name, outcome.message)
        assert np.array_equal(outcome.pixels, image.pixels)
        found = outcome.outcome
        assert (found.format, found.width, found.height) == (
            image.format, image.width, image.height,
        )  # fmt: skip


def test_every_truncation_is_named(folder):
    """Row 39: of each format, cut at every tenth, nothing comes back but `truncated`."""
    paths = []
    for name, data in files_of_each_format(photo()).items():
        for tenth in range(1, 10):
            cut = data[: max(len(data) * tenth // 10, 64)]
            paths.append(put(folder / f"{tenth}-{name}", cut))
    outcomes = decode(paths)
    assert {o.reason for o in outcomes.values()} == {Reason.TRUNCATED}
    assert not any(outcome.pieces for outcome in outcomes.values())


_MEASURED = """
import json, resource, sys
from mmsearch.decoding import DecoderPool, Job, Limits, Wants
from mmsearch.records import ImageInput
if __name__ == "__main__":
    pool = DecoderPool(1, Wants(ImageInput(64)), Limits(60, 64, 100))
    for path in sys.argv[1:]:
        pool.submit(Job(path.encode()))
    outcomes = [pool.next() for _ in sys.argv[1:]]
    pool.close()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps([sorted(str(outcome.reason) for outcome in outcomes), peak]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_bombs_take_no_memory(folder):
    """Row 40: pictures of 169 megapixels and more are refused before they are decoded."""
    jpeg = encoded(photo(), "JPEG", progressive=True)
    at = jpeg.find(b"\xff\xc2")
    bombs = {
        "zeros.png": zero_bomb(13_000, 13_000),
        "scans.jpg": jpeg[: at + 5] + b"\x75\x30\x75\x30" + jpeg[at + 9 :],
    }
    paths = [os.fsdecode(put(folder / name, data)) for name, data in bombs.items()]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *paths],
        env=package_environment(), capture_output=True, check=True,
    )  # fmt: skip
    found, peak_kilobytes = json.loads(done.stdout)
    assert found == ["over-budget", "over-budget"]
    assert peak_kilobytes < 150_000


def test_ten_thousand_frames_cost_one(folder):
    """Row 41: of an animation the worker decodes the first frame, and is done."""
    path = put(folder / "a.gif", gif_of_frames(photo(48, 36), 10_000))
    alone = load_image(encoded(photo(48, 36), "GIF"), WANT, max_megapixels=64)
    assert np.array_equal(decode([path])[path].pixels, alone.pixels)


# -- rows 42 and 43 in vectors -----------------------------------------------------------


def test_modes_of_one_photo_have_one_vector(folder):
    """Row 42: whatever the colours are stored as, the search result is that of RGB."""
    scene = photo(320, 240, 5)
    grey = scene.convert("L")
    levels = np.asarray(grey)
    white = Image.alpha_composite(Image.new("RGBA", scene.size, "white"), see_through(scene))
    versions = {
        "rgb.png": (scene, encoded(scene, "PNG")),
        "cmyk.jpg": (scene, encoded(scene.convert("CMYK"), "JPEG", quality=95)),
        "cmyk.tif": (scene, encoded(scene.convert("CMYK"), "TIFF")),
        "palette.png": (scene.quantize(200), encoded(scene.quantize(200), "PNG")),
        "palette.gif": (scene.quantize(200), encoded(scene.quantize(200), "GIF")),
        "palette-alpha.png": (
            scene.quantize(200), encoded(scene.quantize(200), "PNG", transparency=255)
        ),
        "opaque.png": (scene, encoded(scene.convert("RGBA"), "PNG")),
        "alpha.png": (white, encoded(see_through(scene), "PNG")),
        "grey.png": (grey, encoded(grey, "PNG")),
        "la.png": (grey, encoded(scene.convert("LA"), "PNG")),
        "sixteen.png": (grey, encoded(wide(grey), "PNG")),
        "sixteen.tif": (grey, encoded(wide(grey), "TIFF")),
        "float.tif": (grey, grey_tiff(levels.astype(np.float32) / 255)),
        "float-16.tif": (grey, grey_tiff(levels.astype(np.float32) * 257)),
        "integers.tif": (grey, grey_tiff(levels.astype(np.int32))),
        "one-bit.png": (scene.convert("1"), encoded(scene.convert("1"), "PNG")),
    }  # fmt: skip
    paths = [os.fsdecode(put(folder / name, data)) for name, (_, data) in versions.items()]
    rows = mmsearch.embed(paths, modality="image")
    expected = mmsearch.embed([p.convert("RGB") for p, _ in versions.values()], modality="image")
    cosines = dict(zip(versions, np.sum(rows * expected, axis=1).tolist(), strict=True))
    assert {name: cosine for name, cosine in cosines.items() if cosine < 0.98} == {}


def test_eight_orientations_have_one_vector(folder):
    """Row 43: a photo is the same however the camera was held."""
    turns = [
        Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90,
        Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270,
    ]  # fmt: skip
    scene = photo(320, 240, 6)
    stored = [scene, *(scene.transpose(turn) for turn in turns)]
    names = ["PNG", "WEBP"] + ["AVIF"] * HAS_AVIF
    for name in names:
        paths = [
            os.fsdecode(put(folder / f"{n}.{name}", encoded(p, name, exif=exif_bytes(n))))
            for n, p in enumerate(stored, start=1)
        ]
        rows = mmsearch.embed(paths, modality="image")
        assert (rows @ rows.T).min() > (0.999 if name == "PNG" else 0.98), name


# -- rows 29 and 30: what took a file's place since the walk ------------------------------


def test_nothing_is_read_through_a_link_or_from_a_device(folder, tmp_path):
    """Rows 29 and 30: a link, a pipe or a folder's link in the place of a file gives nothing
    of what it leads to, and holds nobody up."""
    (tmp_path / "outside").mkdir()
    put(tmp_path / "outside" / "secret.jpg", seed=1)
    (folder / "swapped").symlink_to(tmp_path / "outside")
    (folder / "link.jpg").symlink_to(tmp_path / "outside" / "secret.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jpg")
    names = ["swapped/secret.jpg", "link.jpg", "zero.jpg", "pipe.jpg", "folder.jpg", "none.jpg"]
    (folder / "folder.jpg").mkdir()
    outcomes = decode([os.fsencode(folder / name) for name in names])
    assert reasons(outcomes) == {
        "secret.jpg": Reason.CHANGED, "link.jpg": Reason.CHANGED, "zero.jpg": Reason.CHANGED,
        "pipe.jpg": Reason.NOT_REGULAR, "folder.jpg": Reason.UNREADABLE,
        "none.jpg": Reason.UNREADABLE,
    }  # fmt: skip
    assert all(outcome.digest is None for outcome in outcomes.values())


def test_row_48_hours_are_refused_before_they_are_hashed(tmp_path, monkeypatch):
    """Row 48: of a large sound that promises too much the header is read, and no more."""
    path = tmp_path / "hundred-hours.wav"
    sparse_wav(path, 360_000, 8000, [0])

    def digest_of(*_):
        raise AssertionError("23 GB are hashed in vain")

    monkeypatch.setattr("mmsearch.files.digest_of", digest_of)
    reading = Reading(os.fsencode(path), WANTS, LIMITS, io.BytesIO())
    answer = reading.answer(decode=True)
    assert answer["reason"] == Reason.OVER_BUDGET
    assert answer["message"].startswith("100.0 hours, over the limit of 24")


def test_row_48_more_bytes_than_its_hours_can_have(tmp_path):
    """Row 48: 192,000 samples a second of two channels with four bytes each, at most; what it
    lasts is looked at after that.
    """
    path = tmp_path / "a.wav"
    sparse_wav(path, 1, 8000, [0])
    hours = path.stat().st_size / (192_000 * 2 * 4) / 3600
    for share, reason in ((0.99, Reason.TOO_LARGE), (1.01, Reason.OVER_BUDGET)):
        limits = replace(LIMITS, max_hours=share * hours)
        answer = Reading(os.fsencode(path), WANTS, limits, io.BytesIO()).answer(decode=True)
        assert answer["reason"] == reason


# -- row 46: decoders gone wild ----------------------------------------------------------


def test_a_decoder_that_dies_costs_its_file_alone(folder, evil):
    """Row 46: whatever way it dies, the file is `crashed` after two tries, the rest is read."""
    deaths = ["segfault", "abort", "exit-0", "sys-exit", "close-all"]
    paths = [put(folder / name, evil=name) for name in deaths]
    paths[1:1] = [put(folder / f"good-{n}", seed=n) for n in range(9)]
    outcomes = decode(paths)
    expected = dict.fromkeys(deaths, Reason.CRASHED)
    assert reasons(outcomes) == expected | {f"good-{n}": None for n in range(9)}
    assert evil() == 2 * len(deaths)
    assert "signal 11" in outcomes[os.fsencode(folder / "segfault")].message
    for n in range(9):
        image = load_image((folder / f"good-{n}").read_bytes(), WANT, max_megapixels=64)
        assert np.array_equal(outcomes[os.fsencode(folder / f"good-{n}")].pixels, image.pixels)


def test_a_decoder_that_never_ends_is_ended(folder, evil):
    """Row 46: a loop, a sleep, a codec deaf to signals: `timed-out`, the rest is read."""
    endless = ["spin", "sleep", "deaf"]
    paths = [put(folder / name, evil=name) for name in endless]
    paths.append(put(folder / "good"))
    limits = Limits(timeout=1, max_megapixels=64, max_file_mb=100)
    outcomes = decode(paths, limits, workers=3)
    expected = dict.fromkeys(endless, Reason.TIMED_OUT)
    assert reasons(outcomes) == expected | {"good": None}
    assert evil() == 2 * len(endless)
    assert outcomes[os.fsencode(folder / "spin")].message == "not decoded within 1 seconds"


def test_a_decoder_that_hangs_holds_nobody_up(folder, evil, monkeypatch):
    """Row 46: others are read while one hangs; when its time is over it is named, and the one
    that waited for it has gone.
    """
    monkeypatch.setattr("mmsearch.decoding.pool._SLOW", 0.0)
    monkeypatch.setattr("mmsearch.decoding.pool._TRIES", 1)
    pool = DecoderPool(1, WANTS, LIMITS)
    first = pool._workers[0]
    try:
        for path in [put(folder / "sleep", evil="sleep"), put(folder / "good")]:
            pool.submit(Job(path))
        answers = [pool.next(), pool.next()]
        assert {os.path.basename(answer.job.path) for answer in answers} == {b"good"}
        assert (len(pool._workers), pool.waiting, first.retires) == (2, 1, True)
        first._overdue = True  # as the watchdog does
        first.kill()
        answer = pool.next()
        assert (answer.reason, answer.job.path) == (Reason.TIMED_OUT, os.fsencode(folder / "sleep"))
        pool.submit(Job(put(folder / "more", seed=1)))
        assert [pool.next().job.path for _ in range(2)] == [os.fsencode(folder / "more")] * 2
    finally:
        pool.close()
    assert first not in pool._workers


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_decoder_that_swells_is_stopped(folder, evil):
    """Row 46: memory without end is `out-of-memory`, and the worker goes on with the rest."""
    paths = [put(folder / "swell", evil="swell"), put(folder / "good")]
    outcomes = decode(paths)
    assert reasons(outcomes) == {"swell": Reason.OUT_OF_MEMORY, "good": None}


def test_a_decoder_that_recurses_without_end_is_survived(folder, evil):
    """Row 46: endless recursion in Python is the file's fault and nothing more."""
    paths = [put(folder / "recurse", evil="recurse"), put(folder / "good")]
    found = reasons(decode(paths))
    assert found["good"] is None
    assert found["recurse"] in (Reason.CRASHED, Reason.CORRUPT)


def test_a_decoder_that_ends_the_server_costs_its_file_alone(folder, evil):
    """Row 46: whoever kills the process that forks decoders, those that there are go on."""
    paths = [put(folder / "orphan", evil="orphan")]
    paths += [put(folder / f"good-{n}", seed=n) for n in range(20)]
    outcomes = decode(paths, workers=2)
    assert reasons(outcomes) == {"orphan": Reason.CRASHED} | {f"good-{n}": None for n in range(20)}
    assert evil() == 2
    assert outcomes[paths[0]].message.startswith("the decoder died")


def test_what_a_decoder_prints_is_no_answer(folder, evil):
    """Row 46: a codec that writes to stdout does not garble the answers."""
    paths = [put(folder / "babble", evil="babble", seed=1), put(folder / "good", seed=2)]
    outcomes = decode(paths)
    assert reasons(outcomes) == {"babble": None, "good": None}
    image = load_image((folder / "babble").read_bytes(), WANT, max_megapixels=64)
    assert np.array_equal(outcomes[paths[0]].pixels, image.pixels)


def test_a_worker_that_lies_is_replaced(folder, evil):
    """Row 46: an answer of impossible size is not waited for; the file is `crashed`."""
    paths = [put(folder / "lie", evil="lie"), put(folder / "good")]
    assert reasons(decode(paths)) == {"lie": Reason.CRASHED, "good": None}


def test_one_crash_in_a_hundred_loses_nothing_else(folder, tmp_path, evil):
    """Row 46: of three hundred files three kill their decoder; 297 are indexed, each with its
    own vector, three are named, and none is tried again in the next run."""
    bad = {57: "segfault", 158: "abort", 259: "swell" if sys.platform == "linux" else "abort"}
    good = []
    for number in range(300):
        path = folder / f"{number:03}.jpg"
        put(path, evil=bad.get(number, ""), seed=number)
        if number not in bad:
            good.append(path)
    with mmsearch.open_library(tmp_path / "index", workers=2) as library:
        report = library.index(folder)
        assert report.added == report.encoded == 297
        named = {int(path.stem): reason for path, reason in report.failed}
        last = "out-of-memory" if sys.platform == "linux" else "crashed"
        assert named == {57: "crashed", 158: "crashed", 259: last}
        assert {(int(f.path.stem), str(f.reason)) for f in library.errors()} == set(named.items())
        sample = good[::27]
        rows = mmsearch.embed([str(path) for path in sample], modality="image")
        for path, row in zip(sample, rows, strict=True):
            hits = library.query(mmsearch.image(str(path)), k=297, all=True)
            scores = {hit.path: hit.score for hit in hits}
            assert set(scores) == set(good)
            got = np.array([scores[other] for other in sample])
            assert np.abs(got - rows @ row).max() < 2e-3
            assert scores[path] > 0.999
        tries = evil()
        again = library.index(folder)
        assert (again.unchanged, again.failed, evil()) == (300, [], tries)


def test_a_file_that_hangs_is_named_and_left_alone(folder, tmp_path, monkeypatch, evil):
    """Row 46: `timed-out` is remembered; only a longer time limit has the file tried again."""
    put(folder / "spin.jpg", evil="spin")
    for timeout, tries, failed in ((1, 2, True), (1, 2, False), (31, 2, False)):
        with mmsearch.open_library(tmp_path / "index", workers=1, timeout=timeout) as library:
            if timeout > 30:  # what the evil codec does no longer
                monkeypatch.setenv("PYTHONPATH", "")
            report = library.index(folder)
        assert [reason for _, reason in report.failed] == ["timed-out"] * failed
        assert evil() == tries
    assert (report.added, report.unchanged) == (1, 0)


def test_no_worker_at_all_is_an_error_of_ours(folder, tmp_path, monkeypatch):
    """A worker that cannot even start is no file's fault: the run says so and stops."""
    home = tmp_path / "broken"
    home.mkdir()
    (home / "sitecustomize.py").write_text("import os; os._exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(home))
    path = put(folder / "a.jpg")
    with pytest.raises(MmsearchError, match="no decoder process can be started"):
        decode([path])
    with mmsearch.open_library(tmp_path / "index") as library:
        with pytest.raises(MmsearchError, match="no decoder process can be started"):
            library.index(folder)
        assert library.errors() == []


def test_a_worker_killed_between_files_is_nobodys_fault(folder):
    """Rows 10 and 46: whoever kills an idle worker, the next file is read by another."""
    pool = DecoderPool(1, WANTS, LIMITS)
    try:
        pool.submit(Job(put(folder / "a.jpg", seed=1)))
        assert isinstance(pool.next(), Piece)
        assert pool.next().reason is None
        process = pool._workers[0]._process
        process.kill()
        process.wait()
        pool.submit(Job(put(folder / "b.jpg", seed=2)))
        assert isinstance(pool.next(), Piece)
        assert pool.next().reason is None
    finally:
        pool.close()


def test_closing_ends_workers_in_the_middle_of_their_work(folder, evil):
    """A pool can be closed whatever its workers are doing, and leaves no process behind."""

    def children() -> set[bytes]:
        listed = ["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="]
        found = subprocess.run(listed, capture_output=True, check=True).stdout.splitlines()
        return {line for line in found if b"mmsearch.decoding" in line}

    before = children()  # what another test has left waiting for work
    path = put(folder / "spin", evil="spin")
    pool = DecoderPool(2, WANTS, LIMITS)
    pool.submit(Job(path))
    pool.submit(Job(put(folder / "good")))
    assert isinstance(pool.next(), Piece)  # the good one; the other spins
    assert pool.next().reason is None
    decoders = [worker._process.pid for worker in pool._workers]
    pool.close()
    assert children() <= before
    with pytest.raises(ProcessLookupError):
        os.kill(decoders[0], 0)
    with pytest.raises(ProcessLookupError):
        os.kill(decoders[1], 0)

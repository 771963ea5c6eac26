"""Damaged pictures, sounds and texts: each is decoded or named, and nothing else is harmed.

    PYTHONPATH=tests python -m campaigns.damaged_media --size 200000

Row 47 of the table of failures. Small real files of every format that can be written here are
damaged: bits flipped, bytes overwritten, zeroed, cut, doubled, swapped, put in, numbers of the
header set to their extremes, two files spliced. They go through the real decoder processes. A
finding is

- the parent failing in any way, or an answer that does not come;
- a file that takes more than ten seconds of its worker's CPU time without being named for it;
- a worker whose memory was above its cap, or a parent that grows;
- a failure without a reason and one line of words; a decoder that died is a failure so named;
- a part that is no picture, sound or text: the wrong shape, a sample that is no number.

File n of a seed is always the same: `--only N --keep FOLDER` makes one again.
"""

from __future__ import annotations

import os
import random
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from campaigns.report import Report, arguments, reported
from hostile import encoded_sound, files_of_each_format, photo, tones

from mmsearch.decoding import DecoderPool, Job, Limits, Outcome, Piece, Wants
from mmsearch.decoding.worker import Worker
from mmsearch.records import AudioInput, ImageInput, Modality, Reason

SOUND = AudioInput(rate=8000, window=1.0)
WANTS = Wants(ImageInput(size=32), SOUND, True)
# A minute by the clock, which a busy machine stretches; what counts is a worker's own time.
LIMITS = Limits(timeout=60.0, max_megapixels=4.0, max_file_mb=4.0, max_hours=0.1, max_text_mb=1.0)
SECONDS = 10.0  # of CPU time that a file may take
GROWTH = 64 << 20  # bytes that the parent may grow by over a whole campaign
_SOUNDS = {
    "pcm16.wav": ("WAV", "PCM_16"), "pcm24.wav": ("WAV", "PCM_24"), "float.wav": ("WAV", "FLOAT"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"), "ulaw.wav": ("WAV", "ULAW"), "large.wav": ("RF64", "PCM_16"),
    "sixteen.flac": ("FLAC", "PCM_16"), "twenty-four.flac": ("FLAC", "PCM_24"),
    "vorbis.ogg": ("OGG", "VORBIS"), "opus.ogg": ("OGG", "OPUS"),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip
_TEXTS = {
    "utf8.txt": "A dog on grass. 一只狗。 größer\n\n".encode() * 30,
    "utf16.txt": "A dog on grass. 一只狗。\n".encode("utf-16") * 20,
    "marked.md": b"# A title\n\n- *one* [link](x)\n\n```\ncode\n```\n\n| a | b |\n|---|---|\n" * 20,
}


def sources() -> dict[str, bytes]:
    """The files that are damaged, by a name with their suffix."""
    found = files_of_each_format(photo(48, 36, seed=3))
    for name, (kind, subtype) in _SOUNDS.items():
        channels = 2 if name.startswith(("pcm16", "vorbis")) else 0
        found[name] = encoded_sound(tones(0.5, 16000, channels, seed=4), 16000, kind, subtype)
    return found | _TEXTS


class Damage:
    """Damaged files: the same for the same seed and number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._sources = sources()
        self._names = sorted(self._sources)

    def file(self, number: int) -> tuple[str, str, bytes]:
        """Name, what was done to it, and the bytes."""
        chance = random.Random(f"{self._seed} {number}")
        name = self._names[number % len(self._names)]
        data = bytearray(self._sources[name])
        done = []
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            how = chance.choice(_WAYS)
            data = how(data, chance, self) or bytearray(b"\0")
            done.append(how.__name__.strip("_"))
        return name, "+".join(done), bytes(data)

    def other(self, chance: random.Random) -> bytes:
        """Another file."""
        return self._sources[chance.choice(self._names)]


Way = Callable[[bytearray, random.Random, Damage], bytearray]


def _flip(data: bytearray, chance: random.Random, _: Damage) -> bytearray:
    for _n in range(chance.choice((1, 1, 2, 8, 64))):
        data[_at(data, chance)] ^= 1 << chance.randrange(8)
    return data


def _overwrite(data: bytearray, chance: random.Random, _: Damage) -> bytearray:
    at = _at(data, chance)
    data[at : at + chance.choice((1, 2, 4, 16, 200))] = chance.randbytes(
        chance.choice((1, 4, 16, 200))
    )
    return data


def _extreme(data: bytearray, chance: random.Random, _: Damage) -> bytearray:
    numbers = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40)
    size = chance.choice((1, 2, 4, 8))
    value = chance.choice(numbers) & ((1 << 8 * size) - 1)
    at = _at(data, chance)
    data[at : at + size] = value.to_bytes(size, chance.choice(("big", "little")))
    return data


def _zero(data: bytearray, chance: random.Random, _: Damage) -> bytearray:
    at, size = _at(data, chance), chance.choice((4, 64, 512, 4096))
    data[at : at + size] = bytes(len(data[at : at + size]))
    return data


def _cut(data: bytearray, chance: random.Random, _: Damage) -> bytearray:
    return data[: chance.randrange(len(data) + 1)]


def _leave_out(data: bytearray, chance: random.Random, _: Damage) -> bytearray:
    at = _at(data, chance)
    del data[at : at + chance.choice((1, 2, 16, 512))]
    return data


def _double(data: bytearray, chance: random.Random, _: Damage) -> bytearray:
    at = _at(data, chance)
    piece = data[at : at + chance.choice((1, 4, 64, 1024))]
    return data[:at] + piece * chance.choice((2, 3, 100)) + data[at:]


def _swap(data: bytearray, chance: random.Random, _: Damage) -> bytearray:
    a, b = sorted((_at(data, chance), _at(data, chance)))
    size = min(chance.choice((1, 4, 64, 512)), b - a, len(data) - b)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def _splice(data: bytearray, chance: random.Random, damage: Damage) -> bytearray:
    other = damage.other(chance)
    return data[: _at(data, chance)] + other[chance.randrange(len(other)) :]


_WAYS: tuple[Way, ...] = (
    _flip, _flip, _flip, _overwrite, _overwrite, _extreme, _extreme, _extreme, _zero, _cut,
    _leave_out, _double, _swap, _splice,
)  # fmt: skip


def _at(data: bytearray, chance: random.Random) -> int:
    """A place in a file, as often as not in its first bytes."""
    return min(
        chance.randrange(min(len(data), chance.choice((64, 512, 1 << 30))) or 1), len(data) - 1
    )


class Watch:
    """The memory of worker processes against their caps, of this one against its beginning, and
    the CPU time of each file.
    """

    def __init__(self, pool: DecoderPool) -> None:
        self._pool = pool
        self.most = 0  # bytes of address space that any worker ever had
        self.seconds: dict[bytes, float] = {}  # by file, of its last worker that lived
        for worker in pool._workers:
            self._watched(worker)
        honest = pool._new_worker  # for one that takes the place of a slow one
        pool._new_worker = lambda: self._watched(honest())
        self._began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def look(self) -> str | None:
        """What is wrong, if anything."""
        for worker in self._pool._workers:
            if (process := worker._process) is None:
                continue
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                limits = Path(f"/proc/{process.pid}/limits").read_text()
            except OSError:
                continue
            peak = int(status.split("VmPeak:")[1].split()[0]) * 1024 if "VmPeak:" in status else 0
            (line,) = [one for one in limits.splitlines() if one.startswith("Max address space")]
            cap = line.split()[3]
            self.most = max(self.most, peak)
            if cap == "unlimited" or peak > int(cap):
                return f"a worker took {peak:,} bytes, its cap is {cap}"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - self._began
        return f"the parent grew by {grown:,} bytes" if grown > GROWTH else None

    def _watched(self, worker: Worker) -> Worker:
        worker.ask = partial(self._ask, worker, worker.ask)  # type: ignore[method-assign]
        return worker

    def _ask(
        self, worker: Worker, ask: Callable[..., Outcome], job: Job, deliver: Callable[..., bool]
    ) -> Outcome:
        """As `ask`, which it is in the place of, with a look at the clock of the process."""
        process = worker._ready()
        before = _cpu_seconds(process.pid)
        outcome = ask(job, deliver)
        if worker._process is process:
            self.seconds[job.path] = _cpu_seconds(process.pid) - before
        return outcome


def _cpu_seconds(pid: int) -> float:
    """What a process that lives has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def campaign(size: int, seed: int, report: Report, folder: Path, workers: int = 1) -> None:
    """Damage files and have them read, a window at a time."""
    damage = Damage(seed)
    pool = DecoderPool(workers, WANTS, LIMITS)
    watch = Watch(pool)
    try:
        for start in range(report.done, size, pool.window):
            numbers = range(start, min(start + pool.window, size))
            waiting: dict[bytes, str] = {}
            for number in numbers:
                name, done, data = damage.file(number)
                path = folder / f"{number % pool.window}-{name}"
                path.write_bytes(data)
                waiting[str(path).encode()] = f"file {number}, {name}, {done}"
            for path in waiting:
                pool.submit(Job(path))
            _gather(pool, watch, waiting, report)
            if what := watch.look():
                report.found(f"files {numbers.start} to {numbers.stop - 1}", what)
            report.fact(most_worker_bytes=watch.most)
            report.step(numbers.stop)
    finally:
        pool.close()


def _gather(pool: DecoderPool, watch: Watch, waiting: dict[bytes, str], report: Report) -> None:
    """Take all answers of a window."""
    while waiting:
        answer = pool.next()
        case = waiting.get(answer.job.path)
        if case is None:
            report.found("answer", f"nobody asked for {answer.job.path!r}")
        elif isinstance(answer, Piece):
            if what := _no_part(answer):
                report.found(case, what)
        else:
            del waiting[answer.job.path]
            report.count(answer.reason or "decoded", f"{Path(case.split(', ')[1]).suffix} files")
            took = watch.seconds.pop(answer.job.path, 0.0)
            if took > SECONDS and answer.reason is not Reason.TIMED_OUT:
                report.found(case, f"took {took:.1f} s of CPU time")
            if what := _not_named(answer):
                report.found(case, what)


def _no_part(piece: Piece) -> str | None:
    data = piece.data
    if piece.modality is Modality.TEXT:
        return None if isinstance(data, str) and data.strip() else "a passage without words"
    assert isinstance(data, np.ndarray)
    if piece.modality is Modality.IMAGE:
        good = data.shape == (32, 32, 3) and data.dtype == np.uint8
    else:
        # a rest of less than a second stays with the window before it
        most = round((SOUND.window + 1) * SOUND.rate)
        good = data.ndim == 1 and 0 < len(data) < most and bool(np.isfinite(data).all())
    return None if good else f"a part of shape {data.shape} and type {data.dtype}"


def _not_named(outcome: Outcome) -> str | None:
    if outcome.reason is None:
        return None if outcome.digest and outcome.parts else "neither read nor refused"
    if not outcome.message or "\n" in outcome.message:
        return f"{outcome.reason}: {outcome.message!r} is no line"
    return None


def main() -> int:
    """Run it from a command line."""
    parser = arguments(__doc__, "damaged_media.json", 200_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="N", help="make this file, and no more")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to make it")
    given = parser.parse_args()
    if given.only is not None:
        name, done, data = Damage(given.seed).file(given.only)
        path = (given.keep or Path()) / f"{given.only}-{name}"
        path.write_bytes(data)
        print(f"{path}: {done}")
        return 0
    with reported("damaged media", given) as (report, folder):
        campaign(given.size, given.seed, report, folder, given.workers)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())

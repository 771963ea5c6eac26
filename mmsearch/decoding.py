"""Files read and decoded in worker processes that may crash, hang or blow up.

A bad file is charged to itself alone: its worker is replaced, the file is tried once more
in a fresh one, and then it is named. `concurrent.futures` loses every queued job when one
worker dies, so the pool is our own: a thread a worker, and a watchdog over all of them.

Jobs and answers are JSON with raw bytes behind, never pickles: a worker that a hostile
file has taken over can send wrong pixels, but nothing that runs here. A file's parts, one
picture or many windows of sound or passages of text, come one by one and before the file's
outcome: neither side ever holds a long sound.
"""

from __future__ import annotations

import io
import json
import os
import queue
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from mmsearch.errors import LoadError, MmsearchError
from mmsearch.files import Stat
from mmsearch.records import AudioInput, Caption, ImageInput, Metadata, Modality, Reason
from mmsearch.sidecars import MOST, clean

if TYPE_CHECKING:
    from mmsearch.records import Pixels, Samples
    from mmsearch.settings import Settings

_FRAME = struct.Struct("<II")  # bytes of JSON, bytes of data
_LARGEST = 1 << 26  # bytes of JSON or of data; a worker that claims more talks nonsense
_MOST_FRAMES = 1 << 20  # and so does one that finds as many parts in a file
_TRIES = 2  # a file that kills its worker this often is quarantined
_WATCH = 0.25  # seconds between looks at the workers' deadlines

# A text named .jpg is a broken picture, a text named .csv is none of our business.
SUFFIXES = {
    Modality.IMAGE: frozenset(
        b".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm"
        b" .avif .heic .heif .hif".split()
    ),
    Modality.AUDIO: frozenset(b".wav .wave .flac .ogg .oga .opus .mp3".split()),
    Modality.TEXT: frozenset(b".txt .md .markdown".split()),
}
# Bytes a second of the largest sounds people keep: 192,000 samples of two channels, 4 bytes
# each. Hours times this is how large a sound may be before it is even opened.
_SOUND_BYTES = 192_000 * 2 * 4
_LARGE_SOUND = 1 << 26  # bytes: hashing as many takes longer than opening the file once more


@dataclass(frozen=True, slots=True)
class Wants:
    """How an encoder wants each kind of file. None, or False: it has no tower for them."""

    image: ImageInput | None = None
    audio: AudioInput | None = None
    text: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost: seconds without an answer, decoded megapixels, bytes in
    millions, hours of sound, bytes of text in millions.
    """

    timeout: float
    max_megapixels: float
    max_file_mb: float
    max_hours: float = 24.0
    max_text_mb: float = 16.0

    @staticmethod
    def of(now: Settings) -> Limits:
        """What these settings allow."""
        return Limits(
            now.timeout, now.max_megapixels, now.max_file_mb, now.max_hours, now.max_text_mb
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A file to read. `decode` False: only its digest is wanted, and what it says of itself.

    `window`: a sound is cut into windows of as many seconds, whatever the encoder wants.
    """

    path: bytes
    decode: bool = True
    window: float | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a file, numbered from 0, as the encoder wants it.

    `data` is (size, size, 3) pixels, (n,) samples or a string; `start` and `end` are seconds
    into a sound. All parts of files with one digest are the same, but only the outcome says
    whether they are good.
    """

    job: Job
    digest: bytes
    modality: Modality
    number: int
    data: Pixels | Samples | str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: a digest, what the file says of itself and how many parts came, or
    a reason and a message.

    `state` is (size, mtime_ns, inode) as it was while the file was read. `given_up`: nobody
    waited for the end of it.
    """

    job: Job
    state: tuple[int, int, int] | None = None
    digest: bytes | None = None
    modality: Modality = Modality.IMAGE
    format: str = ""
    width: int | None = None
    height: int | None = None
    metadata: Metadata = field(default_factory=Metadata)
    parts: int = 0
    reason: Reason | None = None
    message: str = ""
    given_up: bool = False


class DecoderPool:
    """Worker processes that read files: `submit` jobs, take the `next` answer, `close`.

    Answers come in any order, but of each file first its parts, in theirs, then its outcome.
    A file that kills its worker is begun again, and so may its parts be. Keep `waiting`, the
    jobs without an outcome, below `window` for bounded memory. Workers start with the first
    job and end with the pool.
    """

    def __init__(self, workers: int, wants: Wants, limits: Limits) -> None:
        self.window = 32 * workers  # 10 MB of parts each: decoders go on while we encode
        self.waiting = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._answers: queue.Queue[Piece | Outcome | MmsearchError] = queue.Queue(self.window)
        self._workers = [_Worker(wants, limits) for _ in range(workers)]
        self._threads: list[threading.Thread] = []
        self._given_up = threading.Event()
        self._closed = threading.Event()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        if not self._threads:
            targets: list[Callable[[], None]] = [self._watch]
            targets += [lambda worker=worker: self._serve(worker) for worker in self._workers]  # type: ignore[misc]
            self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
            for thread in self._threads:
                thread.start()
        self.waiting += 1
        self._jobs.put(job)

    def next(self) -> Piece | Outcome:
        """Wait for the next answer. Raises MmsearchError when no worker can be started."""
        answer = self._answers.get()
        if not isinstance(answer, Piece):
            self.waiting -= 1
            if not self.waiting:
                self._given_up.clear()
        if isinstance(answer, MmsearchError):
            raise answer
        return answer

    def give_up(self) -> None:
        """Hand back as `given_up` what is queued, and what would send more parts yet."""
        if self.waiting:
            self._given_up.set()

    def close(self) -> None:
        """End every worker, whatever it is doing."""
        self._closed.set()
        for _ in self._workers:
            self._jobs.put(None)
        for thread in self._threads:
            while thread.is_alive():
                for worker in self._workers:
                    worker.kill()  # again and again: one may just have been started
                thread.join(0.05)
        for worker in self._workers:
            worker.end()

    def _serve(self, worker: _Worker) -> None:
        while (job := self._jobs.get()) is not None and not self._closed.is_set():
            try:
                self._deliver(self._ask(worker, job))
            except MmsearchError as error:
                self._deliver(error)

    def _ask(self, worker: _Worker, job: Job) -> Outcome:
        outcome = Outcome(job, given_up=True)
        for _ in range(_TRIES):
            if self._given_up.is_set() or self._closed.is_set():
                return Outcome(job, given_up=True)
            outcome = worker.ask(job, self._deliver)
            if outcome.reason not in (Reason.CRASHED, Reason.TIMED_OUT):
                break
        return outcome

    def _deliver(self, answer: Piece | Outcome | MmsearchError) -> bool:
        """Put an answer where `next` finds it, in time; False: no more parts are wanted."""
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._answers.put(answer, timeout=_WATCH)
                return not self._given_up.is_set()
        return False

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH):
            for worker in self._workers:
                worker.kill_if_overdue()


class _Worker:
    """One process at a time, replaced when it dies."""

    def __init__(self, wants: Wants, limits: Limits) -> None:
        self._hello = {"wants": asdict(wants), "limits": asdict(limits)}
        self._wants = wants
        self._timeout = limits.timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: float | None = None
        self._overdue = False

    def ask(self, job: Job, deliver: Callable[[Piece], bool]) -> Outcome:
        """Have one file read; a worker that dies over it makes the outcome CRASHED.

        `deliver` gets its parts, and says False when no more are wanted.
        """
        process = self._ready()
        try:
            assert process.stdin and process.stdout
            self._deadline = time.monotonic() + self._timeout
            question = {"decode": job.decode, "window": job.window}
            _send(process.stdin, question | {"path": job.path.decode("latin-1")})
            number = 0
            for _ in range(_MOST_FRAMES):
                self._deadline = time.monotonic() + self._timeout
                answer, data = _receive(process.stdout)
                self._deadline = None  # it may wait for us as long as it takes
                if "state" in answer or "reason" in answer:
                    return _outcome(job, answer, number)
                if "digest" in answer:
                    piece = _piece(job, answer, data, number, self._wants)
                    if not deliver(piece) and number:
                        self._replace()
                        return Outcome(job, given_up=True)
                    number += 1
            raise ValueError("no file has as many parts")
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return self._bury(job)
        finally:
            self._deadline = None

    def _ready(self) -> subprocess.Popen[bytes]:
        """The process, started when there is none. No file is to blame when that fails."""
        if self._process is None:
            try:
                self._process = self._start()
                assert self._process.stdin and self._process.stdout
                _send(self._process.stdin, self._hello)
                _receive(self._process.stdout)  # its "ready"
            except (OSError, EOFError, ValueError) as error:
                self.end()
                self._process = None
                raise MmsearchError(
                    f"no decoder process can be started ({error or 'it ended at once'}): "
                    f"{sys.executable} must be able to import mmsearch"
                ) from error
        return self._process

    def _bury(self, job: Job) -> Outcome:
        """The worker is gone or talks nonsense: say how it ended, and have it replaced."""
        code = self._replace()
        state = None
        with suppress(OSError):  # the file is remembered as it is, or it would be tried for ever
            state = Stat.of(os.lstat(job.path)).figures
        if self._overdue:
            self._overdue = False
            message = f"not decoded within {self._timeout:g} seconds"
            return Outcome(job, state, reason=Reason.TIMED_OUT, message=message)
        how = f"signal {-code}" if code and code < 0 else f"status {code}"
        return Outcome(job, state, reason=Reason.CRASHED, message=f"the decoder died ({how})")

    def _replace(self) -> int | None:
        """End the process, so that the next job has another; its exit code."""
        self.kill()
        code = self._process.wait() if self._process else None
        self._process = None
        return code

    def kill_if_overdue(self) -> None:
        """Called by the watchdog's thread."""
        deadline = self._deadline
        if deadline is not None and time.monotonic() > deadline:
            self._overdue = True
            self.kill()

    def kill(self) -> None:
        """End the process at once; the thread that waits for it notices."""
        if self._process is not None:
            with suppress(OSError):
                self._process.kill()

    def end(self) -> None:
        """End the process and wait for it: its CPU time counts as ours, and no zombie stays."""
        self.kill()
        if self._process is not None:
            # one that hangs in a dead network disk's system call cannot even be killed
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: never import from the current folder, which may be the folder of photos.
        # A group of its own: Ctrl-C in the terminal is for us to handle, not for it.
        package = str(Path(__file__).resolve().parent.parent)
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.Popen(
            [sys.executable, "-P", "-c", "from mmsearch.decoding import work; work()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
            process_group=0 if os.name == "posix" else None,
        )


def _piece(job: Job, answer: dict[str, Any], data: bytes, number: int, wants: Wants) -> Piece:
    """A part as the worker sent it. Raises ValueError or TypeError when it is none."""
    import numpy as np

    modality = Modality(answer["modality"])
    content: Pixels | Samples | str
    if modality is Modality.IMAGE and wants.image:
        size = wants.image.size
        content = np.frombuffer(data, np.uint8).reshape(size, size, 3)
    elif modality is Modality.AUDIO and wants.audio:
        content = np.frombuffer(data, "<f4")
        if not 1 <= len(content) <= _cut(wants.audio, job.window).most:
            raise ValueError("no window is this long")
        if not np.isfinite(content).all():
            raise ValueError("no sound has such samples")
    elif modality is Modality.TEXT and wants.text:
        content = data.decode("utf-8")
    else:
        raise ValueError("nobody asked for this")
    digest = bytes.fromhex(answer["digest"])
    return Piece(
        job, digest, modality, number, content, answer.get("start"), answer.get("end")
    )  # fmt: skip


def _outcome(job: Job, answer: dict[str, Any], parts: int) -> Outcome:
    state = tuple(answer["state"]) if "state" in answer else None
    if "reason" in answer:
        reason = Reason(answer["reason"])
        return Outcome(job, state=state, reason=reason, message=answer["message"])
    if job.decode and not parts:
        raise ValueError("a file without parts has a reason")
    return Outcome(
        job, state, bytes.fromhex(answer["digest"]), Modality(answer["modality"]),
        answer["format"], answer.get("width"), answer.get("height"),
        _metadata(answer["metadata"]), parts,
    )  # fmt: skip


def _metadata(told: dict[str, Any]) -> Metadata:
    """What a file says of itself. Raises ValueError, KeyError or TypeError when it is none."""
    captions = [
        Caption(str(source)[:20], clean(text)) for source, text in told.pop("captions")[:MOST]
    ]
    for name, value in told.items():
        numeric = name in ("taken", "iso", "duration", "latitude", "longitude")
        if value is None:
            continue
        # whole or not, a number that SQLite can hold: NaN is neither above nor below
        if numeric and not (type(value) in (int, float) and -(2**63) <= value < 2**63):
            raise ValueError("no file has such a number")
        if not numeric and not (type(value) is str and len(value.encode()) <= 1000):
            raise ValueError("no file has such a name")
    return Metadata(**told, captions=tuple(caption for caption in captions if caption.text))


def _cut(want: AudioInput, window: float | None) -> AudioInput:
    """The same with windows of other seconds, if any are given."""
    return want if window is None else replace(want, window=window)


def _send(pipe: IO[bytes], head: dict[str, Any], data: bytes | memoryview = b"") -> None:
    text = json.dumps(head).encode("ascii")
    pipe.write(_FRAME.pack(len(text), len(data)) + text)
    if data:
        pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """One frame. Raises EOFError when the other side is gone, ValueError when it lies."""
    sizes = _exactly(pipe, _FRAME.size)
    text_size, data_size = _FRAME.unpack(sizes)
    if max(text_size, data_size) > _LARGEST:
        raise ValueError("no frame is this large")
    return json.loads(_exactly(pipe, text_size)), _exactly(pipe, data_size)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


# -- the worker's side -------------------------------------------------------------------


def work() -> None:
    """The life of a worker process: answer jobs from stdin on stdout until stdin ends."""
    questions = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a codec prints must not be an answer
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        hello, _ = _receive(questions)
        image, sound = hello["wants"]["image"], hello["wants"]["audio"]
        wants = Wants(
            ImageInput(**image) if image else None,
            AudioInput(**sound) if sound else None,
            hello["wants"]["text"],
        )
        limits = Limits(**hello["limits"])
        from mmsearch import loaders  # noqa: F401 - now, so that "ready" is true

        _cap_memory(limits)
        _send(answers, {"ready": True})
        while True:
            question, _ = _receive(questions)
            audio = wants.audio and _cut(wants.audio, question["window"])
            now = replace(wants, audio=audio)
            reading = _Reading(question["path"].encode("latin-1"), now, limits, answers)
            _send(answers, reading.answer(question["decode"]))


class _Reading:
    """One file in the worker's hands: its parts are sent as they come, the rest is returned."""

    def __init__(self, path: bytes, wants: Wants, limits: Limits, answers: IO[bytes]) -> None:
        self._path = path
        self._wants = wants
        self._limits = limits
        self._answers = answers
        self._found: dict[str, Any] = {}

    def answer(self, decode: bool) -> dict[str, Any]:
        """What an Outcome is made of."""
        from mmsearch import files

        state: dict[str, Any] = {}
        try:
            if os.path.realpath(self._path) != self._path:  # a walk follows no link
                raise LoadError(Reason.CHANGED, "a folder above it became a link")
            with suppress(OSError):  # so that a refused file, too, is known by its state
                state["state"] = files.Stat.of(os.lstat(self._path)).figures
            with files.opened(self._path) as (file, status):
                modality, name = self._judge(file.read(4096))
                self._found = {"modality": modality, "format": name}
                self._read(file, status, modality, decode)
                state["state"] = files.Stat.of(status).figures
            return self._found | state
        except LoadError as error:
            return state | {"reason": error.reason, "message": str(error)}
        except MemoryError:
            message = "more memory needed than allowed"
            return state | {"reason": Reason.OUT_OF_MEMORY, "message": message}

    def _judge(self, head: bytes) -> tuple[Modality, str]:
        """What the file is by its first bytes; a text alone is known by its suffix.

        Raises LoadError for what is nothing that the encoder has a tower for.
        """
        from mmsearch import loaders

        suffix = os.path.splitext(self._path)[1].lower()
        named = next((m for m, suffixes in SUFFIXES.items() if suffix in suffixes), None)
        modality, name = named, loaders.sniff(head[:64])
        if name:
            modality = Modality.IMAGE
        elif self._wants.audio and (name := _sniff_sound(head)):
            modality = Modality.AUDIO
        elif named is Modality.TEXT:
            name = "TEXT" if suffix == b".txt" else "MARKDOWN"
        wanted = {
            Modality.IMAGE: self._wants.image is not None,
            Modality.AUDIO: self._wants.audio is not None,
            Modality.TEXT: self._wants.text,
        }
        if modality is None:
            raise LoadError(Reason.UNSUPPORTED, "not a picture, a sound or a text")
        if not wanted[modality]:
            raise LoadError(Reason.NO_MODEL, f"the model has no tower for {modality}")
        if not head:
            raise LoadError(Reason.EMPTY, "the file has no bytes")
        if not name:
            kind = "a picture" if modality is Modality.IMAGE else "a sound"
            raise LoadError(Reason.TYPE_MISMATCH, f"named like {kind}, but holds none")
        return modality, name

    def _read(
        self, file: BinaryIO, status: os.stat_result, modality: Modality, decode: bool
    ) -> None:
        """Hash the file and, if it is to be decoded, send its parts."""
        from mmsearch import files, loaders

        limits = self._limits
        if modality is Modality.IMAGE:
            files.check_size(status, limits.max_file_mb * 1e6)
            data = files.read_all(file, status)
            self._found["digest"] = files.digest(data).hex()
            self._describe(io.BytesIO(data), modality)
            if decode and self._wants.image:
                budget = limits.max_megapixels
                image = loaders.load_image(data, self._wants.image, max_megapixels=budget)
                self._found |= {"width": image.width, "height": image.height}
                self._send_piece(image.pixels.data.cast("B"))
            return
        most = limits.max_text_mb * 1e6
        if modality is Modality.AUDIO:
            most = limits.max_hours * 3600 * _SOUND_BYTES
        files.check_size(status, most)
        if modality is Modality.AUDIO and status.st_size > _LARGE_SOUND:
            from mmsearch.loaders import sounds

            sounds.check_header(file, max_hours=limits.max_hours)
        self._found["digest"] = files.digest_of(file, lambda: _send(self._answers, {})).hex()
        self._describe(file, modality)
        file.seek(0)
        if decode and modality is Modality.TEXT:
            from mmsearch.loaders import texts

            markdown = self._found["format"] == "MARKDOWN"
            for passage in texts.passages(
                file, markdown=markdown, max_megabytes=limits.max_text_mb
            ):
                self._send_piece(passage.encode())
        elif decode and self._wants.audio:
            from mmsearch.loaders import sounds

            for window in sounds.windows(file, self._wants.audio, max_hours=limits.max_hours):
                samples = window.samples.astype("<f4", order="C")
                self._send_piece(samples.data.cast("B"), start=window.start, end=window.end)
                # a header may say nothing, or too little; what was silent at the end is no window
                known = self._found["metadata"]["duration"] or 0
                self._found["metadata"]["duration"] = max(known, window.end)

    def _describe(self, file: BinaryIO, modality: Modality) -> None:
        """Ask the file what it says of itself; what cannot be read is not known."""
        from mmsearch.loaders import metadata

        said = Metadata()
        with suppress(Exception):
            said = metadata.read_metadata(file, modality, self._found["format"])
        self._found["metadata"] = asdict(said) | {
            "captions": [(caption.source, caption.text) for caption in said.captions[:MOST]]
        }

    def _send_piece(self, data: bytes | memoryview, **span: float) -> None:
        head = {"digest": self._found["digest"], "modality": self._found["modality"], **span}
        _send(self._answers, head, data)


def _sniff_sound(head: bytes) -> str | None:
    from mmsearch.loaders import sounds  # a folder of pictures has no need of libsndfile

    return sounds.sniff(head)


def _cap_memory(limits: Limits) -> None:
    """Bound this process: what it has, the file, and two copies of a picture of the budget.

    A sound or a text is read in pieces and needs less.
    """
    if sys.platform != "linux":
        return  # RLIMIT_AS means nothing on macOS, and Windows has no limits of this kind
    import resource

    with open("/proc/self/statm", "rb") as file:
        pages = int(file.read().split()[0])
    now = pages * os.sysconf("SC_PAGE_SIZE")
    cap = now + int(2 * limits.max_file_mb * 1e6) + int(10 * limits.max_megapixels * 1e6) + 2**28
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        cap = min(cap, hard)
    resource.setrlimit(resource.RLIMIT_AS, (cap, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

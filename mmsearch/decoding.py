"""Files read and decoded in worker processes that may crash, hang or blow up.

A bad file is charged to itself alone: its worker is replaced, the file is tried once more
in a fresh one, and then it is named. `concurrent.futures` loses every queued job when one
worker dies, so the pool is our own: a thread a worker, and a watchdog over all of them.

Jobs and answers are JSON with raw pixels behind, never pickles: a worker that a hostile
file has taken over can send wrong pixels, but nothing that runs here.
"""

from __future__ import annotations

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mmsearch.errors import LoadError, MmsearchError
from mmsearch.files import Stat
from mmsearch.records import ImageInput, Reason

if TYPE_CHECKING:
    from mmsearch.records import Pixels

_FRAME = struct.Struct("<II")  # bytes of JSON, bytes of pixels
_LARGEST = 1 << 26  # bytes of JSON or of pixels; a worker that claims more talks nonsense
_TRIES = 2  # a file that kills its worker this often is quarantined
_WATCH = 0.25  # seconds between looks at the workers' deadlines

# A text named .jpg is a broken picture, a text named .txt is none of our business.
PICTURE_SUFFIXES = frozenset(
    b".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm"
    b" .avif .heic .heif .hif".split()
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost: seconds, decoded megapixels, and bytes in millions."""

    timeout: float
    max_megapixels: float
    max_file_mb: float


@dataclass(frozen=True, slots=True)
class Job:
    """A file to read. `decode` False: only its digest is wanted."""

    path: bytes
    decode: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: a digest and perhaps pixels, or a reason and a message.

    `state` is (size, mtime_ns, inode) as it was while the file was read.
    """

    job: Job
    state: tuple[int, int, int] | None = None
    digest: bytes | None = None
    format: str = ""
    width: int = 0
    height: int = 0
    pixels: Pixels | None = None
    reason: Reason | None = None
    message: str = ""


class DecoderPool:
    """Worker processes that read files: `submit` jobs, take the `next` outcome, `close`.

    Outcomes come in any order. Keep `waiting` below `window` for bounded memory. Workers
    start with the first job and end with the pool.
    """

    def __init__(self, workers: int, want: ImageInput, limits: Limits) -> None:
        self.window = 32 * workers  # 5 MB of pixels each: decoders go on while we encode
        self.waiting = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome | MmsearchError] = queue.SimpleQueue()
        self._workers = [_Worker(want, limits) for _ in range(workers)]
        self._threads: list[threading.Thread] = []
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

    def next(self) -> Outcome:
        """Wait for the next outcome. Raises MmsearchError when no worker can be started."""
        outcome = self._outcomes.get()
        self.waiting -= 1
        if isinstance(outcome, MmsearchError):
            raise outcome
        return outcome

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
                self._outcomes.put(self._ask(worker, job))
            except MmsearchError as error:
                self._outcomes.put(error)

    def _ask(self, worker: _Worker, job: Job) -> Outcome:
        for _ in range(_TRIES):
            outcome = worker.ask(job)
            if outcome.reason not in (Reason.CRASHED, Reason.TIMED_OUT) or self._closed.is_set():
                break
        return outcome

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH):
            for worker in self._workers:
                worker.kill_if_overdue()


class _Worker:
    """One process at a time, replaced when it dies."""

    def __init__(self, want: ImageInput, limits: Limits) -> None:
        self._hello = {"want": asdict(want), "limits": asdict(limits)}
        self._timeout = limits.timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: float | None = None
        self._overdue = False

    def ask(self, job: Job) -> Outcome:
        """Have one file read; a worker that dies over it makes the outcome CRASHED."""
        process = self._ready()
        try:
            assert process.stdin and process.stdout
            self._deadline = time.monotonic() + self._timeout
            question = {"path": job.path.decode("latin-1"), "decode": job.decode}
            _send(process.stdin, question)
            answer, pixels = _receive(process.stdout)
            return _outcome(job, answer, pixels)
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
        self.kill()
        code = self._process.wait() if self._process else None
        self._process = None
        state = None
        with suppress(OSError):  # the file is remembered as it is, or it would be tried for ever
            state = Stat.of(os.lstat(job.path)).figures
        if self._overdue:
            self._overdue = False
            message = f"not decoded within {self._timeout:g} seconds"
            return Outcome(job, state, reason=Reason.TIMED_OUT, message=message)
        how = f"signal {-code}" if code and code < 0 else f"status {code}"
        return Outcome(job, state, reason=Reason.CRASHED, message=f"the decoder died ({how})")

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


def _outcome(job: Job, answer: dict[str, Any], pixels: bytes) -> Outcome:
    import numpy as np

    state = tuple(answer["state"]) if "state" in answer else None
    if "reason" in answer:
        reason = Reason(answer["reason"])
        return Outcome(job, state=state, reason=reason, message=answer["message"])
    digest = bytes.fromhex(answer["digest"])
    if not pixels:
        return Outcome(job, state=state, digest=digest)
    array = np.frombuffer(pixels, np.uint8).reshape(answer["shape"])
    return Outcome(
        job, state, digest, answer["format"], answer["width"], answer["height"], array
    )  # fmt: skip


def _send(pipe: IO[bytes], head: dict[str, Any], pixels: bytes | memoryview = b"") -> None:
    text = json.dumps(head).encode("ascii")
    pipe.write(_FRAME.pack(len(text), len(pixels)) + text)
    if pixels:
        pipe.write(pixels)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """One frame. Raises EOFError when the other side is gone, ValueError when it lies."""
    sizes = _exactly(pipe, _FRAME.size)
    text_size, pixel_size = _FRAME.unpack(sizes)
    if max(text_size, pixel_size) > _LARGEST:
        raise ValueError("no frame is this large")
    return json.loads(_exactly(pipe, text_size)), _exactly(pipe, pixel_size)


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
        want, limits = ImageInput(**hello["want"]), Limits(**hello["limits"])
        from mmsearch import loaders  # noqa: F401 - now, so that "ready" is true

        _cap_memory(limits)
        _send(answers, {"ready": True})
        while True:
            question, _ = _receive(questions)
            answer, pixels = _answer(question, want, limits)
            _send(answers, answer, b"" if pixels is None else pixels.data.cast("B"))


def _answer(
    question: dict[str, Any], want: ImageInput, limits: Limits
) -> tuple[dict[str, Any], Pixels | None]:
    from mmsearch import files, loaders

    path: bytes = question["path"].encode("latin-1")

    def judge(head: bytes) -> None:
        if loaders.sniff(head) is None:
            picture = os.path.splitext(path)[1].lower() in PICTURE_SUFFIXES
            if not picture:
                raise LoadError(Reason.UNSUPPORTED, "not a picture")
            if not head:
                raise LoadError(Reason.EMPTY, "the file has no bytes")
            raise LoadError(Reason.TYPE_MISMATCH, "named like a picture, but holds none")

    answer: dict[str, Any] = {}
    try:
        if os.path.realpath(path) != path:  # a walk follows no link, so there was none then
            raise LoadError(Reason.CHANGED, "a folder above it became a link")
        with suppress(OSError):  # so that a refused file, too, is known by its state
            answer["state"] = files.Stat.of(os.lstat(path)).figures
        data, stat = files.read_regular(path, limits.max_file_mb * 1e6, judge)
        answer["state"] = stat.figures
        answer["digest"] = files.digest(data).hex()
        if not question["decode"]:
            return answer, None
        image = loaders.load_image(data, want, max_megapixels=limits.max_megapixels)
        answer |= {"format": image.format, "width": image.width, "height": image.height}
        answer["shape"] = image.pixels.shape
        return answer, image.pixels
    except LoadError as error:
        return answer | {"reason": error.reason, "message": str(error)}, None
    except MemoryError:
        refusal = {"reason": Reason.OUT_OF_MEMORY, "message": "more memory needed than allowed"}
        return answer | refusal, None


def _cap_memory(limits: Limits) -> None:
    """Bound this process: what it has, the file, and two copies of a picture of the budget."""
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

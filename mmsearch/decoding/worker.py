"""A worker as its pool sees it: a process that is asked, watched, ended and replaced."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from mmsearch.decoding.claims import outcome, piece
from mmsearch.decoding.frames import receive, send
from mmsearch.decoding.jobs import Job, Limits, Outcome, Piece, Wants
from mmsearch.decoding.processes import Forked
from mmsearch.errors import MmsearchError
from mmsearch.files import Stat
from mmsearch.records import Reason

_MOST_FRAMES = 1 << 20  # parts of a file; a worker that finds as many talks nonsense


Process = subprocess.Popen[bytes] | Forked


class Worker:
    """One process at a time, replaced when it dies by another that `start` gives."""

    def __init__(self, wants: Wants, limits: Limits, start: Callable[[], Process]) -> None:
        self._hello = {"wants": asdict(wants), "limits": asdict(limits)}
        self._wants = wants
        self._timeout = limits.timeout
        self._start = start
        self._process: Process | None = None
        self._deadline: float | None = None
        self._overdue = False
        self.retires = False  # after the file that it reads

    def ask(self, job: Job, deliver: Callable[[Piece], bool]) -> Outcome:
        """Have one file read; a worker that dies over it makes the outcome CRASHED.

        `deliver` gets its parts, and says False when no more are wanted.
        """
        process = self._ready()
        try:
            assert process.stdin and process.stdout
            self._deadline = time.monotonic() + self._timeout
            question = {"decode": job.decode, "window": job.window}
            send(process.stdin, question | {"path": job.path.decode("latin-1")})
            number = 0
            for _ in range(_MOST_FRAMES):
                self._deadline = time.monotonic() + self._timeout
                answer, data = receive(process.stdout)
                self._deadline = None  # it may wait for us as long as it takes
                if "state" in answer or "reason" in answer:
                    return outcome(job, answer, number)
                if "digest" in answer:
                    part = piece(job, answer, data, number, self._wants)
                    if not deliver(part) and number:
                        self._replace()
                        return Outcome(job, given_up=True)
                    number += 1
            raise ValueError("no file has as many parts")
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return self._bury(job)
        finally:
            self._deadline = None

    def _ready(self) -> Process:
        """The process, started when there is none. No file is to blame when that fails."""
        if self._process is None:
            try:
                self._process = self._start()
                assert self._process.stdin and self._process.stdout
                send(self._process.stdin, self._hello)
                receive(self._process.stdout)  # its "ready"
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
        how = ""  # unless somebody knows
        if code is not None:
            how = f" (signal {-code})" if code < 0 else f" (status {code})"
        return Outcome(job, state, reason=Reason.CRASHED, message=f"the decoder died{how}")

    def _replace(self) -> int | None:
        """End the process, so that the next job has another; its exit code."""
        self.kill()
        code = self._process.wait() if self._process else None
        self._process = None
        return code

    def is_silent_for(self, seconds: float) -> bool:
        """Whether an answer has been waited for as long."""
        deadline = self._deadline
        return deadline is not None and time.monotonic() > deadline - self._timeout + seconds

    def kill_if_overdue(self) -> None:
        """Called by the watchdog's thread."""
        deadline = self._deadline
        if deadline is not None and time.monotonic() > deadline:
            self._overdue = True
            self.kill()

    def kill(self) -> None:
        """End the process at once; the thread that waits for it notices."""
        process = self._process  # whose thread may replace it meanwhile
        if process is not None:
            with suppress(OSError):
                process.kill()

    def end(self) -> None:
        """End the process and wait for it: its CPU time counts as ours, and no zombie stays."""
        self.kill()
        if self._process is not None:
            # one that hangs in a dead network disk's system call cannot even be killed
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)

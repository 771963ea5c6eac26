"""Where worker processes come from: a server that forks them, or a start of their own."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

from mmsearch.decoding.frames import NUMBER

_PATIENCE = 60.0  # seconds for what takes milliseconds: a server that was stopped is killed
_ENDING = 10.0  # and for its end: a decoder may hang that cannot even be killed


class Forked:
    """A decoder that the server has forked; to its worker it is like a Popen."""

    def __init__(
        self, pid: int, pidfd: int, stdin: IO[bytes], stdout: IO[bytes], told: socket.socket
    ) -> None:
        self.pid = pid
        self.stdin: IO[bytes] | None = stdin
        self.stdout: IO[bytes] | None = stdout
        self.returncode: int | None = None
        # a file, closed with this object: while one may kill by its number, it is nobody else's
        self._pidfd = os.fdopen(pidfd, "rb", buffering=0)
        self._told = told

    def kill(self) -> None:
        """End it. Raises ProcessLookupError when it has ended."""
        signal.pidfd_send_signal(self._pidfd.fileno(), signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code as Popen has it; None when the server is gone, who alone knows.

        Raises subprocess.TimeoutExpired.
        """
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        if not ended.poll(timeout and timeout * 1000):
            raise subprocess.TimeoutExpired("decoder", timeout or 0)
        if self.returncode is None:
            with suppress(OSError):
                if status := self._told.recv(NUMBER.size):
                    self.returncode = os.waitstatus_to_exitcode(*NUMBER.unpack(status))
        return self.returncode


class ForkServer:
    """The server of one pool, started with the first decoder and again when it was killed.

    Its decoders outlive one that was killed: nothing of theirs is lost but their exit codes.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._clean = _can_fork()
        self._lock = threading.Lock()

    def start(self) -> subprocess.Popen[bytes] | Forked:
        """A new decoder, which has not been told anything yet. Raises OSError or EOFError.

        It is spawned where there is no safe fork: on other systems than Linux, and where
        something that Python imports by itself has started a thread in the server.
        """
        with self._lock:
            try:
                return self._start()
            except (OSError, EOFError):  # one server may have been killed; two are no accident
                return self._start()

    def _start(self) -> subprocess.Popen[bytes] | Forked:
        try:
            if self._clean and self._requests is None:
                self._serve()
            return self._fork() if self._clean else spawned()
        except (OSError, EOFError):
            if self._process is not None:
                self._process.kill()
            self.end()
            raise

    def end(self) -> None:
        """End the server and all decoders, and wait for it: their CPU time counts as ours."""
        if self._requests is not None:
            self._requests.close()
        if self._process is not None:
            try:
                self._process.wait(timeout=_ENDING)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._requests = None

    def _serve(self) -> None:
        self._requests, other = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with other:
            self._process = _python(
                "from mmsearch.decoding.server import serve; serve()",
                stdin=other.fileno(), stdout=subprocess.DEVNULL,
            )  # fmt: skip
        threads = self._requests.recv(8)
        if not threads:
            raise EOFError
        if threads != b"1":
            self._clean = False
            self.end()

    def _fork(self) -> Forked:
        assert self._requests
        their_stdin, our_stdin = os.pipe()
        our_stdout, their_stdout = os.pipe()
        told, teller = socket.socketpair()
        stdin, stdout = os.fdopen(our_stdin, "wb"), os.fdopen(our_stdout, "rb")
        told.settimeout(_PATIENCE)
        try:
            socket.send_fds(self._requests, [b"+"], [their_stdin, their_stdout, teller.fileno()])
        finally:
            os.close(their_stdin)
            os.close(their_stdout)
            teller.close()
        number, pidfds, _, _ = socket.recv_fds(told, NUMBER.size, 1, socket.MSG_CMSG_CLOEXEC)
        if not pidfds:
            raise EOFError
        (pid,) = NUMBER.unpack(number)
        return Forked(pid, pidfds[0], stdin, stdout, told)


def _can_fork() -> bool:
    """Whether this system has what the server needs."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # a kernel before 5.3, or a sandbox that allows none
        return False
    return True


def spawned() -> subprocess.Popen[bytes]:
    """A decoder started anew."""
    return _python(
        "from mmsearch.decoding.reading import work; work()",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def _python(program: str, *, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
    # -P: never import from the current folder, which may be the folder of photos.
    # A group of its own: Ctrl-C in the terminal is for us to handle, not for it.
    # One thread: a decoder needs no more, and a server that forks may have no other.
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
        process_group=0 if os.name == "posix" else None,
    )

"""A process that has imported what decoders need, and forks one whenever it is asked to.

It is started anew, never forked from a process that has threads, locks, an open database or a
model: a lock that another thread held would stay locked in the copy for ever. Here there is
one thread (which is looked at, not assumed), nothing but the package is open, and no file of
the user's is ever read: each decoder is a copy of a clean process, for a fiftieth of the time
that importing takes.

A decoder leaves all behind that the server has open but its own two pipes. It is killed by
its pidfd, which the pool holds, so that no other process can be hit, and waited for here. The
server ends when the other side of its socket is closed, and the decoders with it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
from contextlib import suppress
from typing import NoReturn

from mmsearch.decoding.frames import NUMBER
from mmsearch.decoding.reading import prepare, work


def serve() -> None:
    """The life of the server: stdin is a socket that brings three descriptors a message, the
    decoder's stdin and stdout and a socket for its pid and pidfd and, at last, its status.
    """
    requests = socket.socket(fileno=os.dup(0))
    prepare()
    gc.freeze()  # what is there is not looked at again: a decoder's copy stays shared
    with suppress(OSError):
        requests.send(b"%d" % len(os.listdir("/proc/self/task")))
    decoders: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: pid, and who wants to know
    waiting = select.poll()
    waiting.register(requests, select.POLLIN)
    while True:
        for descriptor, _ in waiting.poll():
            if descriptor in decoders:
                waiting.unregister(descriptor)
                _tell_status(descriptor, *decoders.pop(descriptor))
                continue
            _, pipes, _, _ = socket.recv_fds(requests, 1, 3)
            if not pipes:
                return _end(decoders)
            told = socket.socket(fileno=pipes.pop())
            pid = os.fork()
            if pid == 0:  # pragma: no cover - what is measured of a fork begins with its next call
                sockets = [one for _, one in decoders.values()]
                _decode(pipes, [requests, told, *sockets], list(decoders))
            for pipe in pipes:
                os.close(pipe)
            pidfd = os.pidfd_open(pid)
            decoders[pidfd] = pid, told
            waiting.register(pidfd, select.POLLIN)
            with suppress(OSError):
                socket.send_fds(told, [NUMBER.pack(pid)], [pidfd])


def _decode(pipes: list[int], sockets: list[socket.socket], pidfds: list[int]) -> NoReturn:
    """What the fork goes on with."""
    status = 1
    try:
        os.setpgid(0, 0)
        for one in sockets:
            one.close()
        for pidfd in pidfds:
            os.close(pidfd)
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
            os.close(pipe)
        work()
        status = 0
    finally:
        os._exit(status)  # and not back into the server


def _tell_status(pidfd: int, pid: int, told: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    with told, suppress(OSError):
        told.send(NUMBER.pack(status))


def _end(decoders: dict[int, tuple[int, socket.socket]]) -> None:
    """Nobody is there any more: end all, and wait for them, so that their CPU time counts."""
    for pidfd in decoders:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for pidfd, (pid, told) in decoders.items():
        _tell_status(pidfd, pid, told)

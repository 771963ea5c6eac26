"""The command line, run again and again from one process that has paid for the imports.

Started with the preloaded library, it reads a JSON line a run, forks, and in the child
calls the entry point with that run's arguments, environment and faults, as
`python -m mmsearch` would; the answer is a line with the exit status. Nothing that reads
or writes a library, loads a model or starts a thread has happened before the fork.

Its own arguments name functions, "module:function", to be called before the first run; a
run may name some to be called in its child, and after how many seconds to kill that.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import threading


def serve() -> None:
    """Answer every line on stdin until it ends.

    onnxruntime is left to the child: it starts a thread, which a fork would lose.
    """
    import PIL.Image  # noqa: F401 - what a run would import, paid for once
    import portalocker  # noqa: F401
    import sqlalchemy.dialects.sqlite  # noqa: F401

    import mmsearch.cli
    import mmsearch.encoders.builtin
    import mmsearch.library
    import mmsearch.printing
    import mmsearch.vectors.exact  # noqa: F401
    from mmsearch.__main__ import main

    for name in sys.argv[1:]:
        _call(name)
    gc.collect()
    gc.freeze()  # what a child's collector does not touch need not be copied for it
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    answers.write("ready\n")
    answers.flush()
    # not `for line in sys.stdin`: that reads ahead, and the child would share what is read
    while question := _line():
        run = json.loads(question)
        pid = os.fork()
        if pid == 0:
            answers.close()
            os.environ.update(run["environment"])
            ctypes.CDLL(None).fault_configure()
            for number, name in ((0, os.devnull), (1, run["out"]), (2, run["err"])):
                descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(descriptor, number)
                os.close(descriptor)
            for name in run.get("calls", ()):
                _call(name)
            sys.argv = ["mmsearch", *run["arguments"]]
            try:
                main()
            except SystemExit as end:
                _leave(end)
        if "kill_after" in run:
            _kill(pid, run["kill_after"])
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def _kill(pid: int, seconds: float) -> None:
    """SIGKILL for a child that has not ended by then."""
    watched = os.pidfd_open(pid)
    select.select([watched], [], [], seconds)
    os.close(watched)
    os.kill(pid, signal.SIGKILL)  # one that has ended is there until it is waited for


def _leave(end: SystemExit) -> None:
    """What the interpreter does when it ends, but for freeing all that it has.

    Nothing of that reaches a disk, and it is three quarters of the CPU time of a short run: each
    page of the parent's objects is copied for it first.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    assert end.code is None or isinstance(end.code, int)
    os._exit(end.code or 0)


def _call(name: str) -> None:
    module, _, function = name.partition(":")
    getattr(importlib.import_module(module), function)()


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 4096)
        if not byte:
            return b""
        line += byte
    return line


if __name__ == "__main__":
    serve()

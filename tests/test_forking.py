"""Decoders are forked by a process that has nothing of ours, and spawned where that is not safe."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from conftest import paint

import mmsearch
from mmsearch.decoding import DecoderPool, Job, Limits, Wants, processes
from mmsearch.decoding.frames import receive, send
from mmsearch.decoding.processes import Forked, ForkServer
from mmsearch.records import ImageInput

pytestmark = pytest.mark.skipif(not processes._can_fork(), reason="no safe fork on this system")
WANTS = Wants(ImageInput(4))
LIMITS = Limits(timeout=60, max_megapixels=64, max_file_mb=100)


@pytest.fixture
def server():
    opened = ForkServer()
    yield opened
    opened.end()


def greet(process) -> None:
    """Have it be ready."""
    hello = {"wants": {"image": {"size": 4}, "audio": None, "text": False}}
    limits = {"timeout": 60, "max_megapixels": 64, "max_file_mb": 100}
    send(process.stdin, hello | {"limits": limits})
    assert receive(process.stdout)[0] == {"ready": True}


def read(process, path) -> dict:
    """What it says of a file, without its pixels."""
    question = {"path": os.fsencode(path).decode("latin-1"), "decode": False, "window": None}
    send(process.stdin, question)
    return receive(process.stdout)[0]


def descriptors(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    return [os.readlink(f"{folder}/{number}") for number in os.listdir(folder)]


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_a_decoder_has_nothing_open_but_its_own_pipes(server, tmp_path):
    """No lock, no database, no socket of the server's, and no pipe of another decoder."""
    photo = paint(tmp_path / "red.png", "red")
    with (
        mmsearch.open_library(tmp_path / "index", workers=1) as library,
        open(tmp_path / "LOCK", "w") as lock,
    ):
        library.index(photo)
        os.set_inheritable(lock.fileno(), True)
        both = [server.start(), server.start()]
        for process in both:
            greet(process)
        pipes = []
        for process in both:
            found = descriptors(process.pid)
            own = {name for name in found if name.startswith("pipe:")}
            assert len(own) == 2
            assert set(found) - own == {"/dev/null"}
            pipes.append(own)
        assert not pipes[0] & pipes[1]
        own = [n for n in descriptors(server._process.pid) if not n.startswith(("socket:", "anon"))]
        assert set(own) == {"/dev/null"}


def test_the_server_has_one_thread_and_groups_of_their_own(server):
    """Ctrl-C in a terminal goes to neither, and a decoder's signals to its group to no other."""
    process = server.start()
    greet(process)
    pid = server._process.pid
    assert len(os.listdir(f"/proc/{pid}/task")) == 1
    assert (os.getpgid(pid), os.getpgid(process.pid)) == (pid, process.pid)
    assert isinstance(process, Forked)


@pytest.mark.parametrize(
    "end, code", [(None, 0), (signal.SIGKILL, -9), (signal.SIGSEGV, -11), (signal.SIGTERM, -15)]
)
def test_how_a_decoder_ended_is_known(server, end, code):
    """By itself when it is asked no more, or by whatever signal; asked again, it is the same."""
    process = server.start()
    greet(process)
    if end is None:
        process.stdin.close()
    else:
        os.kill(process.pid, end)
    assert process.wait(60) == code
    assert process.wait() == code
    assert not is_there(process.pid)  # no zombie
    with pytest.raises(ProcessLookupError):
        process.kill()


def test_decoders_end_each_by_itself(server):
    """One whose questions have ended ends well, while another goes on."""
    first, second = server.start(), server.start()
    greet(second)
    second.stdin.close()
    assert second.wait(60) == 0
    greet(first)


def test_one_that_goes_on_is_waited_for_no_longer_than_that(server):
    """As with Popen."""
    process = server.start()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.kill()
    assert process.wait(60) == -9


def test_row_10_the_server_is_killed(server, tmp_path):
    """Row 10: its decoders go on, and can be ended; another server forks the next ones."""
    photo = paint(tmp_path / "red.png", "red")
    first = server.start()
    greet(first)
    before = server._process.pid
    os.kill(before, signal.SIGKILL)
    second = server.start()
    greet(second)
    assert server._process.pid != before
    assert not is_there(before)
    for process in (first, second):
        assert read(process, photo)["digest"]
    first.kill()
    assert first.wait(60) is None  # who knew it is gone
    assert first.stdout.read() == b""


def test_row_10_a_server_that_does_not_answer(server, monkeypatch):
    """Row 10: it is killed, and another does its work; after a second one that is an error."""
    greet(server.start())
    before = server._process.pid
    os.kill(before, signal.SIGSTOP)
    monkeypatch.setattr(processes, "_PATIENCE", 0.1)
    honest, asked = socket.recv_fds, []

    def recv_fds(told, *args):
        asked.append(told)
        if len(asked) > 1:  # the patience of a person, for the server that does answer
            told.settimeout(60)
        return honest(told, *args)

    monkeypatch.setattr(processes.socket, "recv_fds", recv_fds)
    greet(server.start())
    assert len(asked) == 2
    assert not is_there(before)

    def never(*_):
        raise TimeoutError("timed out")

    monkeypatch.setattr(processes.socket, "recv_fds", never)
    with pytest.raises(TimeoutError):
        server.start()
    assert server._process is None


def test_the_end_of_the_server_is_that_of_its_decoders(server):
    """Whatever they do; and it waits for them."""
    decoders = [server.start(), server.start()]
    pid = server._process.pid
    server.end()
    assert not any(map(is_there, [pid, *(process.pid for process in decoders)]))
    assert [process.wait(60) for process in decoders] == [-9, -9]


def test_row_10_a_server_that_does_not_end(server, monkeypatch):
    """Row 10: it is killed; nobody waits for ever."""
    decoder = server.start()
    pid = server._process.pid
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(processes, "_ENDING", 0.01)
    server.end()
    assert not is_there(pid)
    decoder.kill()
    assert decoder.wait(60) is None


def test_row_10_a_server_that_cannot_be_started(server, monkeypatch):
    """Row 10: that is said, and when it can be again it is."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(FileNotFoundError, match="nowhere"):
            server.start()
    greet(server.start())


def test_a_server_with_threads_forks_nothing(tmp_path, monkeypatch):
    """A lock that another thread holds would be held for ever in a fork: decoders are spawned."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading\n"
        "if any('decoding.server' in a for a in sys.orig_argv):\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    _reads_with_spawned(DecoderPool(1, WANTS, LIMITS), tmp_path)


@pytest.mark.parametrize("system", ["darwin", "win32", "old Linux"])
def test_where_no_fork_is_safe_decoders_are_spawned(tmp_path, monkeypatch, system):
    """On macOS system libraries have threads, Windows has no fork, and an old Linux no pidfds."""
    if system == "old Linux":

        def pidfd_open(pid):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    else:
        monkeypatch.setattr(sys, "platform", system)
    pool = DecoderPool(1, WANTS, LIMITS)
    monkeypatch.undo()
    _reads_with_spawned(pool, tmp_path)


def _reads_with_spawned(pool, tmp_path):
    try:
        pool.submit(Job(os.fsencode(paint(tmp_path / "red.png", "red"))))
        assert pool.next().data.tolist() == [[[255, 0, 0]] * 4] * 4
        assert pool.next().reason is None
        assert isinstance(pool._workers[0]._process, subprocess.Popen)
        assert pool._server._process is None
    finally:
        pool.close()

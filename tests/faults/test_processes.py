"""Rows 9 to 12: signals, killed processes, and two that write at once.

Nothing here waits for a time to pass: the preloaded library stops a run before a chosen
change, the test does what it came to do, and lets it go on.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

import mmsearch

from .campaign import ROOT, SETTINGS, Campaign, complaints, make_pictures, stored
from .harness import for_each, sample

resource = pytest.importorskip("resource", reason="no limits of this kind on this system")


def children(pid: int) -> list[int]:
    """The processes that this one has started and that still run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def server_and_decoders(pid: int) -> list[int]:
    """The process that forks decoders for a run, and they."""
    (server,) = children(pid)
    return [server, *children(server)]


def wait_for_end(pidfd: int) -> bool:
    """True when the process ended within half a minute."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(30_000))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_row_9_signals(campaign: Campaign, number: signal.Signals, code: int) -> None:
    """row 9: the batch is finished, the exit code says which signal, and the next run completes.

    Sent at every commit, before the first and after the last change of the catalog, and
    at seeded moments: every 60th change, or every one with MMSEARCH_FAULTS=all.
    """

    def trial(n: int) -> None:
        index = campaign.fresh(f"{number.name}-{n}")
        process = campaign.stopped(index, n)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        outcome = campaign.ended(index, process)
        have = campaign.judge(index, outcome)
        report = json.loads(outcome.out)
        if outcome.slow:  # other commits than expected: which moment this was is not known
            assert outcome.code in {code, 3}
        elif n <= campaign.commits_at[-1]:
            assert (outcome.code, report["interrupted"]) == (code, True)
            assert report["added"] + report["copied"] == len(have)
        else:  # all the work is done; whether the news came in time is chance
            assert outcome.code in {code, 3}
            assert set(have) == set(campaign.clean)
        if n >= campaign.commits_at[0] and not outcome.slow:
            assert len(have) >= campaign.commits[1], "the batch in progress is finished"
        assert complaints(outcome) == []
        campaign.judge_resumed(index)

    every = [change.n for change in campaign.changes]
    chosen = {1, every[-1], *campaign.commits_at, *sample(every, 60, number)}
    for_each(sorted(chosen), trial)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_row_9_nobody_listens(campaign: Campaign, stream: str) -> None:
    """row 9, SIGPIPE: a closed output loses the report, never the work, and shows no traceback."""
    index = campaign.fresh(f"closed-{stream}")
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: writer}
    # buffered, as for most users: what could not be written is tried again when Python ends
    environment = os.environ | SETTINGS | {"PYTHONUNBUFFERED": ""}
    process = subprocess.Popen(
        campaign.command(index), env=environment, text=True, cwd=ROOT, **streams
    )
    os.close(writer)
    out, err = process.communicate(timeout=120)
    # 141 is what a shell says of SIGPIPE; 1 is what the command-line library makes of it
    assert process.returncode in ({1, 141} if stream == "stdout" else {3})
    assert "Traceback" not in (err or "") and "Exception" not in (err or "")
    if stream == "stderr":
        assert json.loads(out)["added"] + json.loads(out)["copied"] == len(campaign.clean)
    assert set(stored(index)) == set(campaign.clean)
    campaign.judge_resumed(index)


def test_row_10_the_parent_is_killed(campaign: Campaign) -> None:
    """row 10: workers whose parent is killed end by themselves, as does the process that forked
    them, and the library is as in row 1.
    """
    index = campaign.fresh("orphans")
    process = campaign.stopped(index, campaign.commits_at[1])
    watched = [os.pidfd_open(pid) for pid in server_and_decoders(process.pid)]
    assert len(watched) == 2
    process.kill()
    outcome = campaign.ended(index, process)
    for one in watched:
        assert wait_for_end(one), "a worker outlives its parent"
        os.close(one)
    assert outcome.code == -9
    campaign.judge(index, outcome)
    campaign.judge_resumed(index)


@pytest.mark.parametrize("who", ["decoder", "server", "both"])
def test_row_10_a_worker_is_killed(campaign: Campaign, who: str) -> None:
    """row 10: a killed worker is replaced, and the file it read is read again: nothing is lost.
    So is the process that forks workers.
    """
    index = campaign.fresh(f"{who}-killed")
    process = campaign.stopped(index, campaign.commits_at[0])
    server, decoder = server_and_decoders(process.pid)
    for victim in {"decoder": [decoder], "server": [server], "both": [server, decoder]}[who]:
        watched = os.pidfd_open(victim)
        os.kill(victim, signal.SIGKILL)
        assert wait_for_end(watched)
        os.close(watched)
    process.send_signal(signal.SIGCONT)
    outcome = campaign.ended(index, process)
    assert outcome.code == 3 and complaints(outcome) == []
    failed = json.loads(outcome.out)["failed"]
    assert [entry["reason"] for entry in failed] == ["truncated"]
    assert set(campaign.judge(index, outcome)) == set(campaign.clean)
    campaign.judge_resumed(index)


def test_row_10_a_worker_without_memory(campaign: Campaign, tmp_path: Path) -> None:
    """row 10: a picture that needs more memory than a worker has is named; all others are in."""
    photos = make_pictures(tmp_path / "photos")
    for number in range(50):
        Image.new("RGB", (60, 60), (number * 5, 90, 90)).save(photos / f"f-{number:02}.png")
    Image.new("RGB", (7000, 7000)).save(photos / "y-vast.png", compress_level=1)
    index = campaign.fresh("memory")
    # 32 files are read ahead, so at the first commit the last are not read yet
    process = campaign.stopped(index, campaign.commits_at[0], photos)
    _, worker = server_and_decoders(process.pid)
    pages = int(Path(f"/proc/{worker}/statm").read_text().split()[0])
    room = pages * os.sysconf("SC_PAGE_SIZE") + 30_000_000
    resource.prlimit(worker, resource.RLIMIT_AS, (room, room))
    process.send_signal(signal.SIGCONT)
    outcome = campaign.ended(index, process)
    assert outcome.code == 3 and complaints(outcome) == []
    failed = {Path(f["path"]).name: f["reason"] for f in json.loads(outcome.out)["failed"]}
    assert failed == {"y-vast.png": "out-of-memory", "z-cut.png": "truncated"}
    assert len(stored(index)) == len(campaign.clean) + 50


def test_row_11_two_indexers(campaign: Campaign) -> None:
    """row 11: a second writer is refused within a second, with the first's pid and since when.

    The first is not disturbed, and searching goes on.
    """
    index = campaign.fresh("two")
    process = campaign.stopped(index, campaign.commits_at[1])
    with mmsearch.open_library(index) as library:
        began = time.monotonic()
        with pytest.raises(mmsearch.MmsearchError, match=f"locked by pid {process.pid} since"):
            library.index(campaign.pictures)
        assert time.monotonic() - began < 1
        with pytest.raises(mmsearch.MmsearchError, match=f"locked by pid {process.pid} since"):
            library.forget(campaign.pictures)
        assert len(library.query("red", all=True)) == campaign.commits[1]
    outcome = campaign.index(index)
    assert outcome.code == 1
    (line,) = complaints(outcome)
    since = r"since (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"
    assert re.search(rf"{re.escape(str(index))} is locked by pid {process.pid} {since}", line)
    process.send_signal(signal.SIGCONT)
    outcome = campaign.ended(index, process)
    assert outcome.code == 3
    assert set(campaign.judge(index, outcome)) == set(campaign.clean)
    campaign.judge_resumed(index)


def test_row_11_many_at_once(campaign: Campaign) -> None:
    """row 11: of several that start together each completes or is refused, and none does harm."""
    index = campaign.fresh("race")
    command = campaign.command(index)
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | SETTINGS,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    ends = [(p.communicate(timeout=120), p.returncode) for p in processes]
    assert {code for _, code in ends} <= {0, 1, 3} and {code for _, code in ends} & {0, 3}
    for (_, err), code in ends:
        if code == 1:
            assert "is locked by " in err and "Traceback" not in err
    assert set(stored(index)) == set(campaign.clean)
    campaign.judge_resumed(index)


def test_row_12_a_stale_lock(campaign: Campaign) -> None:
    """row 12: after kill -9 the LOCK file still names the dead, and stops nobody."""
    index = campaign.fresh("stale")
    process = campaign.stopped(index, campaign.commits_at[1])
    process.kill()
    assert campaign.ended(index, process).code == -9
    assert (index / "LOCK").read_text().startswith(f"pid {process.pid} since ")
    # the pid of the dead may be anybody's now: even that of one who lives
    (index / "LOCK").write_text(f"pid {os.getpid()} since 2001-01-01 00:00:00+00:00\n")
    outcome = campaign.index(index)
    assert outcome.code == 3 and complaints(outcome) == []
    assert f"pid {os.getpid()} " not in (index / "LOCK").read_text()
    campaign.judge_resumed(index)

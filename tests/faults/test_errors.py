"""Rows 3 to 6: a disk that reports errors, is full, or does not sync.

The default covers a seeded share of the changes, and every sync; MMSEARCH_FAULTS=all every
change in every mode.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .campaign import ROOT, SETTINGS, Campaign, stored
from .harness import NEED_ROOM, SYNCS, WRITES, for_each, sample


@pytest.mark.parametrize("mode", ["eio-once", "eio-forever"])
def test_row_3_input_output_errors(campaign: Campaign, mode: str) -> None:
    """row 3: one clear line with the path, exit 1, the old state intact; then it completes.

    Every eighth change by default, another eighth for each mode.
    """

    def trial(n: int) -> None:
        index = campaign.fresh(f"{mode}-{n}")
        outcome = campaign.index(index, mode, n)
        assert outcome.struck[0].n == n
        campaign.judge_refused(index, outcome, "the disk reported an error")
        if n % 2:
            campaign.judge_searchable(index, stored(index))
        campaign.judge_resumed(index)

    numbers = [change.n for change in campaign.changes]
    for_each(sample(numbers, 8, len(mode)), trial)


def test_row_4_no_space_left(campaign: Campaign) -> None:
    """row 4: "disk full, N files committed, rerun to continue", and search works meanwhile.

    Every sixth change that needs room by default.
    """

    def trial(n: int) -> None:
        index = campaign.fresh(f"full-{n}")
        outcome = campaign.index(index, "enospc-forever", n)
        have = stored(index)
        says = f"disk full, {len(have)} files committed, rerun to continue"
        campaign.judge_refused(index, outcome, says)
        if have:
            search = [
                "query",
                "red",
                "--all",
                "-k",
                "50",
                "--index",
                str(index),
                "--format",
                "json",
            ]
            outcome = campaign.run(search, index, "enospc-forever", 1)
            assert outcome.code == 0, outcome
            found = [Path(hit["path"]).name for hit in json.loads(outcome.out)]
            assert sorted(map(os.fsencode, found)) == sorted(have)
        campaign.judge_resumed(index)

    numbers = [change.n for change in campaign.changes if change.call in NEED_ROOM]
    for_each(sample(numbers, 6, 4), trial)


ON_A_SMALL_DISK = """
import json, pathlib, subprocess, sys
disk, photos, *mmsearch = sys.argv[1:]
index = f"{disk}/library"
def run(*command):
    ended = subprocess.run(command, capture_output=True, text=True)
    return [ended.returncode, ended.stdout, ended.stderr]
said = {"mounted": run("mount", "-t", "tmpfs", "-o", "size=400k", "none", disk)}
if said["mounted"][0] == 0:
    said["full"] = run(*mmsearch, "index", photos, "--index", index)
    pathlib.Path(disk, "filler").touch()
    try:  # whatever was freed again when the run ended
        with open(f"{disk}/filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
    except OSError:
        pass
    search = ["query", "red", "--all", "-k", "1000", "--index", index, "--format", "json"]
    said["search"] = run(*mmsearch, *search)
    said["grown"] = run("mount", "-o", "remount,size=40m", disk)
    said["again"] = run(*mmsearch, "index", photos, "--index", index, "--json")
    said["check"] = run(*mmsearch, "check", "--index", index)
    said["all"] = run(*mmsearch, *search)
print(json.dumps(said))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare (util-linux) is not here")
def test_row_4_a_real_small_disk(campaign: Campaign, tmp_path: Path) -> None:
    """row 4 on a tmpfs of 400 kB: what was committed is found while full, and the rest later."""
    from PIL import Image

    disk, photos = tmp_path / "disk", tmp_path / "photos"
    disk.mkdir()
    photos.mkdir()
    for number in range(240):
        colour = (number, 255 - number, number * 7 % 256)
        Image.new("RGB", (24, 24), colour).save(photos / f"{number:03}.png")
    mmsearch_command = [sys.executable, "-m", "mmsearch"]
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    python = [sys.executable, "-c", ON_A_SMALL_DISK, str(disk), str(photos), *mmsearch_command]
    ended = subprocess.run(
        [*namespace, *python],
        cwd=ROOT,
        env=os.environ | SETTINGS | {"MMSEARCH_BATCH": "20"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        pytest.skip(f"no mount namespace may be made here: {ended.stderr.strip()}")
    said = json.loads(ended.stdout)
    if said["mounted"][0] != 0:
        pytest.skip(f"no tmpfs may be mounted here: {said['mounted'][2].strip()}")
    code, _, err = said["full"]
    assert code == 1 and "Traceback" not in err
    last = err.splitlines()[-1]
    committed = int(last.split("disk full, ")[1].split(" files committed, rerun to continue")[0])
    assert 0 < committed < 240
    code, out, err = said["search"]
    assert code == 0, err
    assert len({hit["path"] for hit in json.loads(out)}) >= committed
    code, out, err = said["again"]
    assert (code, json.loads(out)["unchanged"] + json.loads(out)["added"]) == (0, 240), err
    assert said["check"][0] == 0, said["check"]
    assert len({hit["path"] for hit in json.loads(said["all"][1])}) == 240


@pytest.mark.parametrize("kilobytes", [20, 64, 100])
def test_row_5_a_limit_on_the_size_of_files(
    campaign: Campaign, tmp_path: Path, kilobytes: int
) -> None:
    """row 5: a quota (SIGXFSZ) is met like a full disk, without a core file."""
    index = campaign.fresh(f"quota-{kilobytes}")
    arguments = campaign.command(index)
    limits = f'ulimit -c unlimited 2>/dev/null; ulimit -f {kilobytes}; exec "$@"'
    ended = subprocess.run(
        ["bash", "-c", limits, "bash", *arguments],
        cwd=tmp_path,
        env=os.environ | SETTINGS | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    have = stored(index)
    assert f"disk full, {len(have)} files committed, rerun to continue" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == [], "a core file"
    campaign.judge_searchable(index, have)
    campaign.judge_resumed(index)


def test_row_6_a_failing_sync_is_not_retried(campaign: Campaign) -> None:
    """row 6, every sync: the connection is closed, and what was uncertain is accepted either way.

    After the failed sync of a file nothing more is written to it by this process, and it is
    synced again only by SQLite's own close, which copies what had been committed before. A
    new file whose sync failed is given up.
    """

    def trial(n: int) -> None:
        index = campaign.fresh(f"sync-{n}")
        outcome = campaign.index(index, "fsync-once", n)
        assert [change.n for change in outcome.struck] == [n]
        campaign.judge_refused(index, outcome, "the disk reported an error")
        if outcome.code == 1:
            failed = outcome.struck[0].path
            later = [c for c in outcome.changes if c.n > n and c.path == failed]
            if failed.endswith((".new", ".new-journal")):  # given up: it never gets its name
                assert "rename" not in {c.call for c in outcome.changes if c.n > n}
            else:
                assert not {c.call for c in later} & WRITES, f"written again: {later}"
                assert [c.call for c in later if c.call in SYNCS][1:] == [], f"retried: {later}"
        if n % 2:
            campaign.judge_searchable(index, stored(index))
        campaign.judge_resumed(index)

    for_each([change.n for change in campaign.changes if change.call in SYNCS], trial)

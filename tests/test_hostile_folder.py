"""One folder of everything that can be wrong: the program as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from hostile import FAILED, INDEXED, SKIPPED, UNSEEN, exact_path, make_hostile_folder


class Run:
    """A folder, what is expected of it, and what two runs of `mmsearch index` said."""

    def __init__(self, folder: bytes, index: str, run_cli) -> None:
        os.mkdir(folder)
        self.folder, self.index, self.run_cli = folder, index, run_cli
        self.expected = make_hostile_folder(folder, seed=20_240)
        self.before = _dates(folder)
        self.first = self.cli("index", folder, "--json")
        self.errors = self.cli("errors", "--json")
        self.second = self.cli("index", folder, "--json")

    def cli(self, *arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
        return self.run_cli(*arguments, "--index", self.index)

    def names(self, becomes: str) -> set[bytes]:
        return {name for name, fate in self.expected.items() if fate == becomes}

    def relative(self, row: dict[str, str]) -> bytes:
        """The path in a row of the program's JSON, as bytes below the folder."""
        return os.path.relpath(exact_path(row), self.folder)


def _dates(folder: bytes) -> dict[bytes, tuple[int, int, int]]:
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(base, name))
            figures = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            found[os.path.join(base, name)] = figures
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory, run_cli):
    base = tmp_path_factory.mktemp("hostile")
    yield Run(os.fsencode(base / "folder"), str(base / "index"), run_cli)
    subprocess.run(["chmod", "-R", "u+rwX", str(base)], check=False)  # so that it can be removed


def test_the_folder_holds_every_kind(run):
    """Rows 27 and 29 to 53: some three hundred files, all fates among them."""
    assert len(run.expected) > 300
    fates = set(run.expected.values())
    assert {INDEXED, SKIPPED, UNSEEN, FAILED, "truncated", "corrupt", "empty"} <= fates
    assert {"type-mismatch", "over-budget", "too-large"} <= fates


def test_bad_files_end_the_run_with_three_and_no_traceback(run):
    """Files failed: exit 3, a summary on stdout, nothing of Python's on stderr."""
    assert run.first.returncode == 3, run.first.stderr.decode(errors="replace")
    for answer in (run.first, run.errors, run.second):
        assert b"Traceback" not in answer.stderr + answer.stdout
        assert b"Warning" not in answer.stderr


def test_every_good_file_is_indexed(run):
    """Each good file counts once: added, or a copy of content that was added."""
    report = json.loads(run.first.stdout)
    assert report["added"] + report["copied"] == len(run.names(INDEXED))
    assert report["copied"] == 6  # of `twins/one.jpg`: two links and four copies
    assert report["encoded"] == report["added"]
    assert not report["interrupted"]
    zeros = {"changed", "moved", "gone", "offline", "unchanged"}
    assert {name: report[name] for name in zeros} == dict.fromkeys(zeros, 0)


def test_every_good_file_is_found_under_its_exact_name(run):
    """Row 32: a search with as many answers as files names each good one, to the byte."""
    answer = run.cli("query", "a photo", "-k", "1000", "--format", "json", "--all")
    hits = json.loads(answer.stdout)
    assert sorted(map(run.relative, hits)) == sorted(run.names(INDEXED))
    assert all(-1.001 <= hit["score"] <= 1.001 for hit in hits)
    inexact = [run.relative(hit) for hit in hits if "path_bytes" in hit]
    assert sorted(inexact) == sorted(n for n in run.names(INDEXED) if not _is_utf8(n))
    assert len(inexact) == 4


def _is_utf8(name: bytes) -> bool:
    return name.decode("utf-8", "ignore").encode() == name


def test_every_bad_file_is_named_with_its_reason(run):
    """Rows 35 to 53: each bad file is in the summary, with the code that fits and one line."""
    failed = json.loads(run.first.stdout)["failed"]
    reasons = {run.relative(failure): failure["reason"] for failure in failed}
    assert len(reasons) == len(failed)
    bad = {
        name: fate for name, fate in run.expected.items() if fate not in (INDEXED, SKIPPED, UNSEEN)
    }
    assert set(reasons) == set(bad)
    wrong = {n: (r, bad[n]) for n, r in reasons.items() if bad[n] not in (r, FAILED)}
    assert wrong == {}
    assert all(failure["message"] and "\n" not in failure["message"] for failure in failed)


def test_errors_names_them_again(run):
    """`mmsearch errors` remembers what the run that tried them said."""
    assert run.errors.returncode == 0
    failed = json.loads(run.first.stdout)["failed"]
    remembered = json.loads(run.errors.stdout)
    assert sorted(remembered, key=run.relative) == sorted(failed, key=run.relative)


def test_skipped_files_are_counted_and_hidden_ones_are_not(run):
    """Rows 29, 30 and 44: other types, links and odd files are counted; hidden are not seen."""
    report = json.loads(run.first.stdout)
    assert report["skipped"] == len(run.names(SKIPPED))
    named = {run.relative(failure) for failure in report["failed"]}
    assert not named & run.names(UNSEEN)
    assert not any(name.startswith(b"..") for name in named)  # nothing out of the folder


def test_a_second_run_tries_nothing_again(run):
    """Nothing changed: exit 0, every file as before, not one read."""
    report = json.loads(run.second.stdout)
    forbidden = run.names("unreadable")  # rights may have been given meanwhile: tried again
    assert run.second.returncode == (3 if forbidden else 0)
    assert report["unchanged"] == len(run.expected) - len(
        run.names(SKIPPED) | run.names(UNSEEN) | forbidden
    )
    assert report["skipped"] == len(run.names(SKIPPED))
    zeros = ("added", "copied", "changed", "moved", "gone", "encoded")
    assert [report[name] for name in zeros] == [0] * 6
    assert len(report["failed"]) == len(forbidden)


def test_the_files_are_left_alone(run):
    """Nothing is written, renamed or removed where the pictures are."""
    assert _dates(run.folder) == run.before


def test_strange_names_are_printed_harmlessly(run):
    """Row 32: what goes to a terminal has no control characters of a file's making."""
    query = ("query", "a photo", "-k", "1000", "--all")
    for arguments in (query, ("errors",), ("index", run.folder)):
        answer = run.cli(*arguments)
        text = (answer.stdout + answer.stderr).decode("utf-8", "surrogateescape")
        lines = text.split("\n")  # tabs stand between columns
        assert [line for line in lines if not line.replace("\t", "").isprintable()] == []


def test_bare_paths_are_exact(run):
    """Row 32: `-0` prints every path as it is on the disk, newlines and all, for xargs -0."""
    answer = run.cli("query", "a photo", "-k", "1000", "-0", "--all")
    paths = answer.stdout.split(b"\0")
    assert paths.pop() == b""
    found = sorted(os.path.relpath(path, run.folder) for path in paths)
    assert found == sorted(run.names(INDEXED))

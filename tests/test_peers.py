"""The benchmark of other programs: its turns, its faults and its words, with programs made up."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

import pytest

DATA = Path("nowhere")


@pytest.fixture
def bench(script, tmp_path, monkeypatch):
    """Makes benches of one program, whose index is a file of names, and twelve files for photos.

    Indexing takes a thousandth of a second a file, and half a second besides; `again` takes that.
    """
    speed, faults, of_bench = (script(f"peer_{name}") for name in ("speed", "faults", "bench"))
    programs = script("peer_programs")

    asked = []

    class Toy(programs.Program):
        name = "toy"

        def index(self, photos):
            return [programs.Command([str(self.place), str(photos)])]

        def query(self, photos, words, k):
            return programs.Command([str(self.place), "", str(k)])

        def warm(self, photos, queries):
            return programs.Command([str(self.place), "warm"])

    def done(commands):
        [place, photos] = commands[0].words[:2]
        index = Path(place, "names")
        if photos == "warm":
            told = json.dumps({"seconds": [9.0, 9.0, 0.001, 0.003], "memory_mb": 7.0})
            return script("measuring").Cost(2.0, 1.0, f"{told}\n", "")
        if not photos:
            return script("measuring").Cost(0.2, 0.1, "", "", rss=5.0)
        asked.append(Path(photos))
        names = sorted(str(path) for path in Path(photos).rglob("*") if path.is_file())
        fresh = not index.exists()
        index.write_text("\n".join(names))
        cpu = 0.5 + fresh * 0.001 * len(names)
        return script("measuring").Cost(2 * cpu, cpu, "", "", rss=100.0)

    for module in (speed, faults):
        monkeypatch.setattr(module, "done", done)
    monkeypatch.setattr(of_bench.Bench, "programs", lambda self: [Toy(self.work)])
    photos = [tmp_path / "photos" / f"{number}.jpg" for number in range(12)]
    photos[0].parent.mkdir()
    for path in photos:
        path.write_bytes(path.name.encode() * 50)
    usual = argparse.Namespace(
        out=tmp_path / "peers.json",
        resume=True,
        only=None,
        few=2,
        many=12,
        kill=8,
        turns=2,
        asked=4,
    )
    works = itertools.count()

    def start(**others):
        given = argparse.Namespace(**vars(usual) | others)
        work = tmp_path / f"work-{next(works)}"
        work.mkdir()
        return of_bench.Bench(photos, DATA, work, tmp_path / "cache", given)

    return start, asked


def test_turns_go_on_where_they_ended(script, bench):
    """What a photo costs is the many less the few; later turns join those of the same settings."""
    start, asked = bench
    indexing = script("peer_speed").indexing
    first = start()
    part = indexing(first)
    figures = part["programs"]["toy"]
    assert figures["cpu_a_photo_ms"]["all"] == pytest.approx([1.0, 1.0])
    assert figures["wall_a_photo_ms"]["median"] == pytest.approx(2.0)
    assert figures["again_cpu_s"]["all"] == [0.5, 0.5]
    assert json.loads(first.given.out.read_text())["indexing"] == part
    assert (first.problems, len(asked)) == ([], 1 + 2 * 3)  # the first makes what is made once
    third = indexing(start(turns=3))
    assert (len(third["turns"]), third["turns"][:2], len(asked)) == (3, part["turns"], 7 + 3)
    assert indexing(start(turns=1)) == third  # nothing is left to do
    assert len(indexing(start(turns=1, resume=False))["turns"]) == 1
    assert len(indexing(start(turns=2, few=3))["turns"]) == 2  # of other photos: begun again


def test_a_turn_that_fails_is_no_turn(script, bench, monkeypatch):
    """The error is a line of the report, and what was measured before stays."""
    start, _ = bench
    speed = script("peer_speed")
    part = speed.indexing(start(turns=1))
    monkeypatch.setattr(speed, "done", lambda _: 1 / 0)
    second = start(turns=2)
    assert speed.indexing(second) == part
    assert second.problems == ["indexing, turn 2 of 2: ZeroDivisionError: division by zero"]


def test_queries_are_asked_of_kept_libraries(script, bench, monkeypatch):
    """A library is made once; the first two warm queries, which open things, do not count."""
    start, asked = bench
    monkeypatch.setattr(script("peer_speed"), "questions", lambda _: ["a dog"] * 4)
    for turns in (1, 2):
        one = start(turns=turns)
        figures = script("peer_speed").queries(one)["programs"]["toy"]
    assert figures["warm_query_ms"]["median"] == pytest.approx(2.0)
    assert figures["cold_query_cpu_s"]["all"] == [0.1, 0.1]
    assert asked == [one.cache / "libraries" / "photos"]


def test_faults_are_kept_one_by_one(script, bench, monkeypatch):
    """What was answered is not asked again, and a fault that fails is a line of the report."""
    start, asked = bench
    faults = script("peer_faults")

    def find(program, photos, k):
        return {Path(line) for line in (program.place / "names").read_text().splitlines()[:k]}

    monkeypatch.setattr(faults, "found", find)
    monkeypatch.setattr(faults, "stopped", lambda *_: 1 / 0)
    first = start()
    mine = faults.faults(first)["programs"]["toy"]
    assert "killed" not in mine
    assert first.problems == ["toy: killed: ZeroDivisionError: division by zero"]
    away = {"found_while_away": False, "found_again": True, "of": 2, "found_moved": 2}
    assert mine["away"].items() >= {**away, "found_where_they_were": 0}.items()
    assert mine["broken"]["broken_is_found"] and not mine["broken"]["named"]
    assert mine["others"] == {"sound": True, "text": True, "photos": 2}
    before = len(asked)
    monkeypatch.setattr(faults, "stopped", lambda *_: None)
    assert faults.faults(start())["programs"]["toy"]["killed"] == {"killed": False}
    assert len(asked) == before


def test_a_program_is_killed_when_it_says_enough(script, tmp_path):
    """It is ended by SIGKILL with what it said so far; one that ends before is no kill."""
    faults, programs = script("peer_faults"), script("peer_programs")
    said = "import signal; print('indexed 3 of 9\\nindexed 6 of 9', flush=True); signal.pause()"
    program = programs.Mmsearch(tmp_path, "builtin", "mmsearch", tmp_path)
    assert faults.stopped(programs.Command([sys.executable, "-c", said]), program, 5) == 6
    quick = programs.Command([sys.executable, "-c", "print('indexed 3 of 9')"])
    assert faults.stopped(quick, program, 5) is None


def test_peers_are_compared_by_medians(script):
    """Figures stand beside their ratio to this project with the same model, and what cannot be."""
    tables = script("tables")

    def one(cpu: float, again: float, cannot: str | None = None) -> dict:
        return {
            "cannot": cannot, "cpu_a_photo_ms": {"median": cpu}, "again_cpu_s": {"median": again},
        }  # fmt: skip

    programs = {tables.SAME: one(10, 0.5), "other": one(25, 2, "it knows no files")}
    asked = {tables.SAME: {"warm_query_ms": {"median": 5.0}}, "other": {}}
    of = {"few": 4, "many": 20}
    found = {
        "indexing": {"settings": of, "programs": programs}, "queries": {"programs": asked},
    }  # fmt: skip
    lines = tables.peers_speed(found)
    assert lines[0] == "|  | mmsearch, same model | other |"
    assert lines[2:] == [
        "| indexing a photo, CPU ms | 10.0 | 25.0 (2.50 ×) |",
        "| 20 photos again, nothing changed, CPU s | 0.50 | 2.00 (4.00 ×); cannot pass over: it "
        "knows no files |",
        "| a query in a running process, ms | 5.0 | - |",
    ]
    assert tables.peers_speed({}) == []


def test_what_a_fault_cost_is_said(script):
    """Photos that were said to be done and are not found are counted as lost."""
    tables = script("tables")
    killed = {"killed": True, "said": 200, "found": 0, "again_cpu_s": 3.14, "found_again": 400}
    away = {"found_again": False, "found_while_away": False, "again_cpu_s": 0.2, "of": 16,
            "found_moved": 16, "found_where_they_were": 2, "first_cpu_s": 3, "moved_cpu_s": 2.9,
    }  # fmt: skip
    broken = {"ended": True, "others": 3, "of": 3, "named": False, "broken_is_found": True}
    others = {"sound": False, "text": True, "photos": 16}
    one = {"killed": killed, "away": away, "broken": broken, "others": others}
    lines = tables.peers_faults(
        {"settings": {"photos": 400, "few": 16}, "programs": {"other": one}}
    )
    assert [line.split(" | ")[1].removesuffix(" |") for line in lines[2:]] == [
        "200 said, 0 found: **200 lost**",
        "400 found, 3.1 s of CPU",
        "**never found again**, 0.20 s of CPU",
        "16 of 16 found there, 2.90 s of CPU (3.00 s the first time); "
        "**2 still found where they were**",
        "3 of 3 others found, **not named**, **indexed half grey**",
        "text found",
    ]


def test_recall_of_an_index(script):
    """Ten queries: seconds become milliseconds a query and queries a second."""
    one = {"recall@10": 0.95, "single_s": 0.1, "batch_s": 0.02, "build_s": 3.0}
    lines = script("tables").peers_recall(
        {"settings": {"queries": 10}, "programs": {"mmsearch": one}}
    )
    assert lines[2] == "| mmsearch | 0.9500 | 10.00 | 500 | 3.0 |"

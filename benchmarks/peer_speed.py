"""What indexing and queries cost each program, by turns; a turn is kept as soon as it is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kept import code, moment
from made import questions
from measuring import Cost, milliseconds, spread
from peer_bench import Bench, done
from peer_programs import Program

Figures = dict[str, Any]
Turn = dict[str, Figures]  # of one program: what it did, and what that took

_WARMING = 2  # the first queries of a process open things


def indexing(bench: Bench) -> Figures:
    """Every program over few photos, over many, and over the many again when nothing changed."""
    few, many = bench.given.few, bench.given.many
    part = bench.begun("indexing", {"few": few, "many": many})
    folders = {what: bench.folder(what, count) for what, count in (("few", few), ("many", many))}
    for one in bench.states(bench.work / "once") if "turns" not in part else ():
        one.begin()  # what is made once is made: an export
        bench.attempt(f"{one.name}: once", partial(done, one.index(folders["few"])))

    def take(place: Path) -> dict[str, Turn]:
        took: dict[str, Turn] = {one.name: {} for one in bench.programs()}
        for what, photos in folders.items():
            for one in bench.states(place / what):
                one.begin()
                took[one.name][what] = _figures(done(one.index(photos)))
        for one in bench.states(place / "many"):
            if one.cannot:  # the same command would do the same once more
                took[one.name]["again"] = took[one.name]["many"]
            else:
                took[one.name]["again"] = _figures(done(one.index(folders["many"])))
        return took

    def told(program: Program, turns: Sequence[Turn]) -> Figures:
        return {"cannot": program.cannot, **costs_of_indexing(turns, few, many)}

    return _turns(bench, "indexing", part, take, told)


def queries(bench: Bench) -> Figures:
    """Every program asked once in a process of its own, then many times in one process.

    Their libraries of many photos are made once, and kept in the cache for later turns.
    """
    many, asked = bench.given.many, bench.given.asked
    part = bench.begun("queries", {"many": many, "asked": asked})
    place = bench.cache / "libraries"
    photos, states = place / "photos", bench.states(place)
    _make(bench, photos, states)
    file = bench.work / "queries.json"
    file.write_text(json.dumps(questions(bench.flickr8k)[:asked]), encoding="utf-8")

    def take(_: Path) -> dict[str, Turn]:
        took: dict[str, Turn] = {}
        for one in states:
            took[one.name] = {"cold": _figures(done([one.query(photos, "a dog on grass", 10)]))}
        for one in states:
            took[one.name]["warm"] = json.loads(
                done([one.warm(photos, file)]).output.splitlines()[-1]
            )
        return took

    return _turns(bench, "queries", part, take, lambda _, turns: costs_of_queries(turns))


def _turns(
    bench: Bench,
    name: str,
    part: Figures,
    take: Callable[[Path], dict[str, Turn]],
    told: Callable[[Program, Sequence[Turn]], Figures],
) -> Figures:
    """Turns until there are as many as were asked for, each in an empty folder and then kept."""
    turns = part.setdefault("turns", [])
    wanted = bench.given.turns
    while len(turns) < wanted:
        place = bench.work / f"{name}-{len(turns)}"
        took = bench.attempt(f"{name}, turn {len(turns) + 1} of {wanted}", partial(take, place))
        if took is None:
            break
        shutil.rmtree(place, ignore_errors=True)
        turns.append({**moment(), "programs": took})
        part["programs"] = {
            one.name: told(one, [turn["programs"][one.name] for turn in turns])
            for one in bench.programs()
        }
        bench.keep(name, part)
    return part


def _figures(cost: Cost) -> Figures:
    return {"cpu_s": cost.cpu, "wall_s": cost.wall, "memory_mb": cost.rss or 0.0}


def _make(bench: Bench, photos: Path, states: Sequence[Program]) -> None:
    """Libraries of many photos, unless they stand there by this code and of so many photos."""
    made, now = photos.parent / "made.json", [bench.given.many, bench.peers, code()]
    there = json.loads(made.read_text(encoding="utf-8")) if made.exists() else None
    if there == now and all(one.place.exists() for one in states):
        return
    shutil.rmtree(photos.parent)
    photos.mkdir(parents=True)
    for path in bench.photos[: bench.given.many]:
        shutil.copy2(path, photos)
    for one in states:
        one.begin()
        bench.attempt(f"{one.name}: a library to ask", partial(done, one.index(photos)))
    made.write_text(json.dumps(now), encoding="utf-8")


def costs_of_indexing(turns: Sequence[Turn], few: int, many: int) -> Figures:
    """The figures of one program: what a photo costs is the many less the few of the same turn."""
    out: Figures = {}
    for kind in ("cpu", "wall"):
        each = [
            1e3 * (turn["many"][f"{kind}_s"] - turn["few"][f"{kind}_s"]) / (many - few)
            for turn in turns
        ]
        out[f"{kind}_a_photo_ms"] = spread(each)
        out[f"again_{kind}_s"] = spread([turn["again"][f"{kind}_s"] for turn in turns])
    out["few_wall_s"] = spread([turn["few"]["wall_s"] for turn in turns])
    out["indexing_memory_mb"] = max(turn["many"]["memory_mb"] for turn in turns)
    return out


def costs_of_queries(turns: Sequence[Turn]) -> Figures:
    """The figures of one program; warm queries of all turns together, less the first of each."""
    seconds = [took for turn in turns for took in turn["warm"]["seconds"][_WARMING:]]
    return {
        **{f"cold_query_{kind}_s": spread([turn["cold"][f"{kind}_s"] for turn in turns])
           for kind in ("cpu", "wall")},
        "cold_query_memory_mb": max(turn["cold"]["memory_mb"] for turn in turns),
        "warm_query_ms": milliseconds(seconds),
        "warm_memory_mb": max(turn["warm"]["memory_mb"] for turn in turns),
    }  # fmt: skip

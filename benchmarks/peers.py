"""Other programs that find photos by words, on the same photos: what each costs and withstands.

    python benchmarks/peers.py                      # all; installs them into a cache folder first
    python benchmarks/peers.py --install            # only that
    python benchmarks/peers.py --part speed         # or faults, or recall: the rest stays as it was
    python benchmarks/peers.py --only rclip --many 32 --few 8 --out /tmp/peers.json

rclip, clip-retrieval (with autofaiss) and sentence-transformers (with FAISS), each in its own
environment, with one random ViT-B/32 in each one's own format (`peer_weights.py`); mmsearch with
the same, and with its built-in model. What a program cannot do is said where its figure would
stand. Exits 1 when something could not be measured, and says what and why. README.md, in this
folder, says how each figure comes about.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tables
from latency import top
from made import FLICKR8K, near_photos, questions, rows_near
from measuring import (
    REPOSITORY,
    CommandFailed,
    Cost,
    begin,
    milliseconds,
    run,
    spread,
    timed,
)
from peer_programs import (
    PEERS,
    PROGRAMS,
    Command,
    Mmsearch,
    Program,
    environment,
    found,
    open_clip_name,
    versions,
    weights,
)

from mmsearch.datasets.captions import read_captions
from mmsearch.embedding import embed
from mmsearch.records import Modality
from mmsearch.vectors import open_store

BUILTIN, RANDOM = "mmsearch", tables.SAME


@dataclass
class Bench:
    """What the parts share."""

    photos: list[Path]  # in order
    flickr8k: Path
    work: Path
    cache: Path
    given: argparse.Namespace
    problems: list[str] = field(default_factory=list)

    def programs(self) -> list[Program]:
        """All that --only leaves."""
        name = open_clip_name(weights(self.cache)).removeprefix("open_clip:")
        every: list[Program] = [
            Mmsearch(self.work, "builtin", BUILTIN, self.cache),
            Mmsearch(self.work, name, RANDOM, self.cache),
            *(peer(self.work, self.cache) for peer in PEERS),
        ]
        only = self.given.only
        return [one for one in every if not only or one.name in only]

    def folder(self, name: str, count: int) -> Path:
        """A new folder with the first photos."""
        place = self.work / name
        place.mkdir(parents=True)
        for path in self.photos[:count]:
            shutil.copy2(path, place)
        return place

    def attempt(self, what: str, work: Callable[[], Any]) -> Any:
        """What the work gives; an error in it is a line of the report, and gives None."""
        print(f"{what} ...", file=sys.stderr, flush=True)
        try:
            return work()
        except Exception as error:
            self.problems.append(f"{what}: {type(error).__name__}: {str(error)[:500]}")
            return None


def done(commands: Sequence[Command]) -> Cost:
    """Several commands one after the other, as one: times add up, memory is the highest."""
    costs = [
        run(one.words, watch=True, allowed=(0, 3), cwd=one.cwd, **one.environment)
        for one in commands
    ]
    return Cost(
        sum(cost.wall for cost in costs), sum(cost.cpu for cost in costs), costs[-1].output,
        "\n".join(cost.errors for cost in costs), rss=max(cost.rss or 0.0 for cost in costs),
    )  # fmt: skip


# -- speed -----------------------------------------------------------------------------------


def speed(bench: Bench) -> dict[str, Any]:
    """Every program by turns: few photos, many, the many again, queries; then many queries."""
    few, many = bench.given.few, bench.given.many
    folders = {count: bench.folder(f"photos-{count}", count) for count in (few, many)}
    programs = bench.programs()
    for one in _states(programs, bench.work / "first"):  # what is made once is made: an export
        one.begin()
        bench.attempt(f"{one.name}: once", lambda one=one: done(one.index(folders[few])))
    costs: dict[str, dict[str, list[Cost]]] = {one.name: {} for one in programs}

    def take(program: Program, what: str, work: Callable[[], Cost]) -> None:
        cost = bench.attempt(f"{program.name}: {what}", work)
        if cost is not None:
            costs[program.name].setdefault(what, []).append(cost)

    for turn in range(bench.given.rounds):
        states = {count: _states(programs, bench.work / f"{turn}-{count}") for count in folders}
        for count, photos in folders.items():
            for one in states[count]:
                one.begin()
                take(one, str(count), lambda one=one, photos=photos: done(one.index(photos)))
        for one in states[many]:
            take(one, "again", lambda one=one: done(one.index(folders[many])))
    for _ in range(bench.given.cold):
        for one in states[many]:
            asked = one.query(folders[many], "a dog on grass", 10)
            take(one, "query", lambda asked=asked: done([asked]))
    queries = bench.work / "queries.json"
    queries.write_text(json.dumps(questions(bench.flickr8k)[: bench.given.asked]))
    out: dict[str, Any] = {}
    for one in states[many]:
        warm = one.warm(folders[many], queries)
        cost = bench.attempt(f"{one.name}: many queries", lambda warm=warm: done([warm]))
        told = json.loads(cost.output.splitlines()[-1]) if cost else None
        out[one.name] = {"cannot": one.cannot, **speeds(costs[one.name], few, many, told)}
    return {"few": few, "many": many, "programs": out}


def _states(programs: Sequence[Program], place: Path) -> list[Program]:
    place.mkdir()
    return [one.at(place / one.name.replace(" ", "-")) for one in programs]


def speeds(
    costs: dict[str, list[Cost]], few: int, many: int, told: dict[str, Any] | None
) -> dict[str, Any]:
    """The figures of one program, from its costs."""
    out: dict[str, Any] = {}
    less, more = costs.get(str(few), []), costs.get(str(many), [])
    if less and more and len(less) == len(more):
        for name in ("cpu", "wall"):
            pairs = zip(less, more, strict=True)
            each = [(getattr(b, name) - getattr(a, name)) / (many - few) for a, b in pairs]
            out[f"{name}_a_photo_ms"] = spread([1e3 * value for value in each])
        out["indexing_memory_mb"] = max(cost.rss or 0.0 for cost in more)
        out["few_wall_s"] = spread([cost.wall for cost in less])
    for name, key in (("again", "again"), ("query", "cold_query")):
        if name in costs:
            out[f"{key}_cpu_s"] = spread([cost.cpu for cost in costs[name]])
            out[f"{key}_wall_s"] = spread([cost.wall for cost in costs[name]])
            out[f"{key}_memory_mb"] = max(cost.rss or 0.0 for cost in costs[name])
    if told:
        out["warm_query_ms"] = milliseconds(told["seconds"][2:])  # the first two open things
        out["warm_memory_mb"] = told["memory_mb"]
    return out


# -- faults ----------------------------------------------------------------------------------


def faults(bench: Bench) -> dict[str, Any]:
    """A kill -9 midway, a photo that is away for one run, and a photo that is half there."""
    out: dict[str, Any] = {}
    works = {"killed": killed, "away": away, "broken": broken}
    for name, fault in works.items():
        for one in _states(bench.programs(), bench.work / name):
            mine = out.setdefault(one.name, {"cannot": one.cannot})
            mine[name] = bench.attempt(f"{one.name}: {name}", partial(fault, bench, one))
    return {"photos": bench.given.kill, "few": bench.given.few, "programs": out}


def killed(bench: Bench, program: Program) -> dict[str, Any]:
    """Killed when it says that half are done: what it finds then, and after another run."""
    count = bench.given.kill
    photos = bench.folder(f"killed-{program.name}", count)
    program.begin()
    said = 0
    for command in program.index(photos):
        said = stopped(command, program, count // 2)
        if said is not None:
            break
    else:
        return {"killed": False}
    after = len(found(program, photos, count))
    again = done(program.index(photos))
    return {
        "killed": True, "said": said, "found": after,
        "again_cpu_s": again.cpu, "found_again": len(found(program, photos, count)),
    }  # fmt: skip


def stopped(command: Command, program: Program, enough: int) -> int | None:
    """Run a command and kill it, with all its children, when it says that enough photos are done.

    How many it said; None when it ended before.
    """
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    inside = {**os.environ, "PYTHONPATH": paths, **command.environment}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command.words, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            cwd=command.cwd, env=inside, start_new_session=True,
        )  # fmt: skip
        while process.poll() is None:
            text = os.pread(output.fileno(), 1 << 20, 0).decode(errors="replace")
            said = max((int(one) for one in program.said.findall(text)), default=0)
            if said >= enough:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return said
            time.sleep(0.005)
        if process.returncode:
            raise CommandFailed(f"ended with {process.returncode} before it was killed")
    return None


def away(bench: Bench, program: Program) -> dict[str, Any]:
    """A photo that is not there in one run, and back, as it was, in the next."""
    count = bench.given.few
    photos = bench.folder(f"away-{program.name}", count)
    one = sorted(photos.iterdir())[count // 2]
    program.begin()
    done(program.index(photos))
    hidden = bench.work / f"hidden-{program.name}"
    one.rename(hidden)
    done(program.index(photos))
    while_away = one.name in found(program, photos, count)
    hidden.rename(one)
    cost = done(program.index(photos))
    return {
        "found_while_away": while_away, "found_again": one.name in found(program, photos, count),
        "again_cpu_s": cost.cpu,
    }  # fmt: skip


def broken(bench: Bench, program: Program) -> dict[str, Any]:
    """A photo of which half the bytes are there: is it named, and are the others found?"""
    count = bench.given.few
    photos = bench.folder(f"broken-{program.name}", count)
    one = sorted(photos.iterdir())[count // 2]
    data = one.read_bytes()
    one.write_bytes(data[: len(data) // 2])
    program.begin()
    try:
        cost = done(program.index(photos))
    except CommandFailed as error:
        return {"ended": False, "said": str(error)[-200:], "others": 0, "named": False}
    names = found(program, photos, count)
    return {
        "ended": True, "others": len(names - {one.name}), "of": count - 1,
        "broken_is_found": one.name in names, "named": one.name in cost.output + cost.errors,
    }  # fmt: skip


# -- recall ----------------------------------------------------------------------------------


def recall(bench: Bench) -> dict[str, Any]:
    """autofaiss's index of made-up pictures, which clip-retrieval takes as it comes, against the
    ten nearest in truth; and what this project searches such a number with, on the same rows.

    Queries are captions, encoded by the built-in model as the photos are.
    """
    python = environment("clip-retrieval", bench.cache)
    near = near_photos(bench.flickr8k, bench.given.near)
    rows = np.concatenate(list(rows_near(near, bench.given.rows)))
    asked = embed(questions(bench.flickr8k)[: bench.given.recall_queries], Modality.TEXT)
    exact = [set(top(rows, row, 10).tolist()) for row in asked]
    files = [bench.work / name for name in ("rows.npy", "asked.npy")]
    for file, values in zip(files, (rows, asked), strict=True):
        np.save(file, values)
    script = str(PROGRAMS / "autofaiss_index.py")
    command = [str(python), script, *map(str, files), str(bench.work)]
    told = json.loads(run(command, PYTHONPATH="").output.splitlines()[-1])
    store = open_store("faiss", rows.shape[1])
    built = timed(lambda: store.add(np.arange(len(rows)), rows))
    answers: list[list[int]] = [[]] * len(asked)

    def one_by_one() -> None:
        for number, row in enumerate(asked):
            answers[number] = store.search(row[None], 10)[1][0].tolist()

    single = timed(one_by_one)
    ours = {"build_s": built, "single_s": single, "batch_s": timed(lambda: store.search(asked, 10))}

    def share(found: Sequence[Sequence[int]]) -> float:
        pairs = zip(found, exact, strict=True)
        return statistics.mean(len(set(one) & true) / 10 for one, true in pairs)

    return {
        "rows": len(rows), "queries": len(asked),
        "programs": {
            "clip-retrieval": {**told, "found": None, "recall@10": share(told["found"])},
            BUILTIN: {**ours, "recall@10": share(answers)},
        },
    }  # fmt: skip


# -- all of it -------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "speed": speed,
    "faults": faults,
    "recall": recall,
}


def main() -> int:
    """Measure the parts, write the figures, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--flickr8k", type=Path, default=FLICKR8K, help="photos and captions")
    add("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "peers.json")
    add("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    add("--only", nargs="+", help="only these programs")
    add("--install", action="store_true", help="make the environments, measure nothing")
    add("--few", type=int, default=16, help="photos, so few that starting is most of it")
    add("--many", type=int, default=200, help="photos: what one costs is these less the few")
    add("--kill", type=int, default=400, help="photos of the run that is killed")
    add("--rounds", type=int, default=3, help="turns of indexing")
    add("--cold", type=int, default=3, help="turns of the cold query")
    add("--asked", type=int, default=32, help="warm queries")
    add("--rows", type=int, default=100_000, help="made-up pictures, for recall")
    add("--recall-queries", type=int, default=500, help="captions, for recall")
    add("--near", type=int, help="only so many real photos to be near, for recall")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    add("--cache", type=Path, default=cache / "mmsearch-benchmarks", help="where peers are kept")
    given = parser.parse_args()
    if not given.flickr8k.is_dir():
        print(f"not measured: no Flickr8k at {given.flickr8k}; --flickr8k DIR", file=sys.stderr)
        return 1
    given.cache = given.cache.resolve()
    parts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mmsearch-peers-") as work:
        photos = [photo.path for photo in read_captions(given.flickr8k, "train")]
        bench = Bench(photos, given.flickr8k, Path(work).resolve(), given.cache, given)
        installed = bench.attempt("environments", lambda: {
            peer.name: versions(peer.name, environment(peer.name, given.cache)) for peer in PEERS
        })  # fmt: skip
        bench.attempt("weights", lambda: weights(given.cache))
        for name in given.part if installed and not given.install else ():
            about = begin(["numpy", "onnxruntime", "faiss-cpu"])
            measured = bench.attempt(name, lambda name=name: PARTS[name](bench))
            if measured:
                parts[name] = {**about, "peers": installed, **measured}
    if not given.install:
        kept = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
        kept |= parts
        given.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        told = {"speed": tables.peers_speed, "faults": tables.peers_faults,
                "recall": tables.peers_recall}  # fmt: skip
        for name, part in parts.items():
            print("\n".join([*told[name](part), ""]))
    for problem in bench.problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if bench.problems else 0


if __name__ == "__main__":
    sys.exit(main())

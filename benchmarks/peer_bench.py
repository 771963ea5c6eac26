"""What the parts of `peers.py` share: photos, programs, and figures kept from run to run."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kept
import tables
from measuring import Cost, run
from peer_programs import PEERS, Command, Mmsearch, Program, open_clip_name, weights

BUILTIN, RANDOM = "mmsearch", tables.SAME


@dataclass
class Bench:
    """Photos and programs; what was measured so far stands in `given.out`, a part a key."""

    photos: list[Path]  # in order
    flickr8k: Path
    work: Path  # empty, removed at the end
    cache: Path  # kept: environments, weights, libraries that are only asked
    given: argparse.Namespace
    peers: dict[str, dict[str, str]] = field(default_factory=dict)  # installed: versions
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

    def states(self, place: Path) -> list[Program]:
        """The programs, each with a state of its own in a folder below this."""
        place.mkdir(parents=True, exist_ok=True)
        return [one.at(place / one.name.replace(" ", "-")) for one in self.programs()]

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

    def begun(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        """A part from its beginning, or with --resume as far as it was measured."""
        there = kept.read(self.given.out).get(name, {}) if self.given.resume else {}
        settings = {**settings, "only": self.given.only, "peers": self.peers}
        return kept.begun(there, settings, ["numpy", "onnxruntime", "openvino", "faiss-cpu"])

    def keep(self, name: str, part: dict[str, Any]) -> None:
        """Write a part; the others stay as they are."""
        kept.write(self.given.out, kept.read(self.given.out) | {name: part})


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

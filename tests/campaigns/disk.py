"""What a disk may hold after a power cut: a traced run's changes, some of them lost.

A trace (FAULT_TRACE of tests/faults/preload.c) is made again in memory, change by change. What a
file or a folder has had synced is on the disk; of the rest every 512-byte sector, every size and
every name may be as it was at any moment since: lost, torn, reordered. Two models of what is
certain about names and sizes:

    JOURNAL  as ext4 in its usual mode: names change in the order in which they were changed, and
             any sync makes all earlier ones durable; a file that has grown has its data
    POSIX    what the standard promises and no more: a name is durable when its folder was
             synced, and until then each change of a name may be lost by itself; a file may have
             its size and yet hold zeros or an old file's bytes

A sync that failed leaves what it should have written uncertain for good, whatever later ones
say: the kernel does not try it again.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

SECTOR = 512
NEVER = np.iinfo(np.int64).max


class Model(Enum):
    """What is certain about names and sizes."""

    JOURNAL = "journal"
    POSIX = "posix"


@dataclass(frozen=True, slots=True)
class Op:
    """One record of a trace; a run's own words are in there too, as "out" and "err"."""

    call: str
    failed: bool
    inode: int
    offset: int
    path: str
    data: bytes


def read_trace(path: Path) -> list[Op]:
    """The records of a trace, in order."""
    raw, at, found = path.read_bytes(), 0, []
    while at < len(raw):
        end = raw.index(b"\n", at)
        call, inode, offset, size, name = raw[at:end].decode().split(" ", 4)
        at = end + 1 + int(size)
        data = raw[end + 1 : at]
        found.append(
            Op(call.lstrip("!"), call.startswith("!"), int(inode), int(offset), name, data)
        )
    return found


class Sectors:
    """Every sector's bytes once, known by number; 0 is zeros, 1 what an old file left."""

    def __init__(self) -> None:
        self._bytes: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        assert (self.number(bytes(SECTOR)), self.number(b"\xa5" * SECTOR)) == (0, 1)

    def number(self, data: bytes) -> int:
        """The number of these 512 bytes."""
        found = self._numbers.setdefault(data, len(self._bytes))
        if found == len(self._bytes):
            self._bytes.append(data)
        return found

    def bytes_of(self, numbers: np.ndarray, size: int) -> bytes:
        """A file's bytes."""
        return b"".join([self._bytes[n] for n in numbers.tolist()])[:size]

    def one(self, number: int) -> bytes:
        """A sector's bytes."""
        return self._bytes[number]


@dataclass(slots=True)
class Node:
    """A file: its sectors as a program sees them, and as they may be on the disk."""

    inode: int
    number: int
    now: list[int] = field(default_factory=list)
    size: int = 0
    # since the last sync: of each sector, and of the size, (time, value) with the durable first
    versions: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    cuts: list[tuple[int, int]] = field(default_factory=list)  # when it was cut, and where
    unsure: dict[int, int] = field(default_factory=dict)  # sectors of a failed sync, and when

    def put(self, time: int, sector: int, number: int) -> None:
        """A sector is another now."""
        while len(self.now) <= sector:
            self.now.append(0)
        known = self.versions.setdefault(sector, [(-1, self.now[sector])])
        known.append((time, number))
        self.now[sector] = number

    def resize(self, time: int, size: int) -> None:
        """The file ends elsewhere now."""
        if size != self.size:
            self.sizes = self.sizes or [(-1, self.size)]
            self.sizes.append((time, size))
            self.size = size

    def sync(self) -> None:
        """What is seen is on the disk, but for what an earlier sync failed to write."""
        self.versions = {
            sector: versions
            for sector, versions in self.versions.items()
            if self.unsure.get(sector, -1) >= versions[-1][0]
        }
        self.unsure = {s: t for s, t in self.unsure.items() if s in self.versions}
        self.sizes, self.cuts = [], []

    def sync_failed(self, time: int) -> None:
        """What is waiting now will not be written by a later sync."""
        self.unsure |= dict.fromkeys(self.versions, time)


@dataclass(slots=True)
class Renaming:
    """One change of names: what each of these names stands for from now on."""

    time: int
    names: dict[str, Node | None]  # None: nothing
    folders: set[str]  # that must be synced before it is certain


class Folder(Node):
    """What stands for every folder: the same object, in copies of a disk as well."""

    def __deepcopy__(self, _: object) -> Folder:
        return self


FOLDER = Folder(0, 0)


@dataclass(frozen=True, slots=True)
class State:
    """What is found after a power cut: of each path a node, its sectors and its size."""

    files: tuple[tuple[str, Node, np.ndarray, int], ...]
    folders: tuple[str, ...]
    damaged: str = ""  # the name of a file that a repair of the file system has damaged

    def key(self) -> bytes:
        """Equal for states that a program cannot tell apart."""
        hashed = hashlib.blake2b(repr((self.folders, self.damaged)).encode(), digest_size=16)
        for path, node, sectors, size in self.files:
            hashed.update(f"{path}\0{node.number}\0{size}\0".encode())
            hashed.update(sectors.tobytes())
        return hashed.digest()


class Disk:
    """A traced run, made again as far as `run` was told to, and what could be left of it."""

    def __init__(self, ops: list[Op], there: Path | None = None) -> None:
        self.ops = ops
        self.at = 0
        self.sectors = Sectors()
        self._names: dict[str, Node] = {"": FOLDER}
        self._nodes = 0
        self._log: list[Renaming] = []
        self._certain: dict[str, Node] = {"": FOLDER}  # names that are on the disk
        if there is not None:
            self._take_in(there)

    def _take_in(self, there: Path) -> None:
        """What was on the disk, all of it durable, before the run."""
        for path in sorted(there.rglob("*")):
            name = "/" + str(path.relative_to(there))
            if path.is_dir():
                self._names[name] = FOLDER
            elif not name.endswith("-shm"):
                node = self._names[name] = self._new(path.stat().st_ino)
                self._write(node, 0, path.read_bytes())
                node.versions.clear()
                node.resize(0, path.stat().st_size)
                node.sync()
        self._certain = dict(self._names)

    def _new(self, inode: int) -> Node:
        self._nodes += 1
        return Node(inode, self._nodes)

    # -- making the run again ------------------------------------------------------------

    def run(self, until: int) -> None:
        """Make the changes before number `until`."""
        while self.at < until:
            self._do(self.ops[self.at])
            self.at += 1

    def _do(self, op: Op) -> None:
        # SQLite's shared memory is not looked at after a restart
        if op.call in ("out", "err") or op.path.endswith(("-shm", " (deleted)")):
            return
        node = self._names.get(op.path)
        if op.failed:
            if op.call == "sync" and node is not None and node is not FOLDER:
                node.sync_failed(self.at)
            return
        if op.call == "sync":
            self._sync(op.path, node)
        elif op.call == "write":
            assert node is not None, op
            self._write(node, op.offset, op.data)
            node.resize(self.at, max(node.size, op.offset + len(op.data)))
        elif op.call == "size":
            assert node is not None, op
            self._cut(node, op.offset)
        else:
            self._rename(op, node)

    def _write(self, node: Node, offset: int, data: bytes) -> None:
        for sector in range(offset // SECTOR, -(-(offset + len(data)) // SECTOR)):
            start = sector * SECTOR - offset
            piece = data[max(start, 0) : start + SECTOR]
            if len(piece) < SECTOR:
                old = node.now[sector] if sector < len(node.now) else 0
                before = bytearray(self.sectors.one(old))
                at = max(-start, 0)
                before[at : at + len(piece)] = piece
                piece = bytes(before)
            node.put(self.at, sector, self.sectors.number(bytes(piece)))

    def _cut(self, node: Node, size: int) -> None:
        if size < node.size:  # what lay behind the end is zero when the file grows again
            node.cuts.append((self.at, size))
            first = -(-size // SECTOR)
            for sector in range(first, len(node.now)):
                node.put(self.at, sector, 0)
            if rest := size % SECTOR:
                self._write(node, size, bytes(SECTOR - rest))
        node.resize(self.at, size)

    def _rename(self, op: Op, node: Node | None) -> None:
        change: dict[str, Node | None]
        if op.call == "mkdir":
            change = {op.path: FOLDER}
        elif op.call == "create":
            change = {op.path: self._new(op.inode)}
        elif op.call in ("unlink", "rmdir"):
            change = {op.path: None}
        elif op.call in ("rename", "link"):
            assert node is not None, op
            moved = {n: one for n, one in self._names.items() if f"{n}/".startswith(f"{op.path}/")}
            to = op.data.decode()
            change = {to + name[len(op.path) :]: one for name, one in moved.items()}
            change |= dict.fromkeys(moved) if op.call == "rename" else {}
        else:
            raise ValueError(f"a change of no known kind: {op.call} {op.path}")
        for name, new in change.items():
            if new is None:
                self._names.pop(name, None)
            else:
                self._names[name] = new
        names = [op.path, op.data.decode()] if op.data else [op.path]
        self._log.append(Renaming(self.at, change, {name.rpartition("/")[0] for name in names}))

    def _sync(self, path: str, node: Node | None) -> None:
        if node is not None and node is not FOLDER:
            node.sync()
        for change in self._log:
            change.folders.discard(path if node is FOLDER else "no folder")

    # -- what may be left ----------------------------------------------------------------

    def lost(self, model: Model) -> Lost:
        """What a power cut at this moment may lose."""
        if model is Model.JOURNAL:
            synced = [op for op in range(self.at) if self._syncs(op)]
            last = synced[-1] if synced else -1
            certain = [change for change in self._log if change.time < last]
            pending = [change for change in self._log if change.time >= last]
        else:
            certain = [change for change in self._log if not change.folders]
            pending = [change for change in self._log if change.folders]
        names = dict(self._certain)
        for change in certain:
            _apply(names, change)
        return Lost(self, model, names, pending)

    def _syncs(self, number: int) -> bool:
        op = self.ops[number]
        return op.call == "sync" and not op.failed and not op.path.endswith("-shm")


def _apply(names: dict[str, Node], change: Renaming) -> None:
    for name, node in change.names.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Lost:
    """A disk at the moment of a power cut: `states` are what may be found afterwards."""

    def __init__(
        self, disk: Disk, model: Model, names: dict[str, Node], pending: list[Renaming]
    ) -> None:
        self._model = model
        self._names = names
        self._pending = pending
        nodes = {id(n): n for n in names.values() if n is not FOLDER}
        for change in pending:
            nodes |= {id(n): n for n in change.names.values() if n and n is not FOLDER}
        self._open = {key: _Open(node, model) for key, node in nodes.items()}
        times = {t for one in self._open.values() for t in one.moments}
        self._moments = sorted(times | {change.time for change in pending})

    @property
    def certain(self) -> bool:
        """Nothing can be lost."""
        return not self._moments

    def everything(self) -> State:
        """Nothing is lost: what the running program would see."""
        return self._state(list(self._pending), lambda one: one.at(NEVER))

    def some(self, random: random.Random) -> State:
        """Some of it is lost, in one of the ways in which that happens."""
        way = random.choice(_WAYS) if self._moments else "everything"
        for one in self._open.values():
            one.leftover = random.random() < 0.3
        if way == "everything":
            return self.everything()
        if way == "nothing":
            return self._state([], lambda one: one.at(-1))
        moment = random.choice(self._moments)
        if way in ("until", "torn"):  # in order up to a moment, and perhaps half of what came then
            kept = [change for change in self._pending if change.time <= moment - (way == "torn")]
            tear = random.random() if way == "torn" else None
            return self._state(kept, lambda one: one.until(moment, tear, random))
        if way == "but one":
            kept = [change for change in self._pending if change.time != moment]
            return self._state(self._ordered(kept), lambda one: one.without(moment))
        if way == "only one":
            kept = [change for change in self._pending if change.time == moment]
            return self._state(self._ordered(kept), lambda one: one.only(moment))
        kept = [change for change in self._pending if random.random() < 0.5]
        if way == "a file at a time":
            return self._state(
                self._ordered(kept), lambda one: one.at(NEVER if random.random() < 0.5 else -1)
            )
        share = random.choice((0.02, 0.1, 0.5, 0.9, 0.98))
        return self._state(self._ordered(kept), lambda one: one.any(random, share))

    def _ordered(self, kept: list[Renaming]) -> list[Renaming]:
        """A journal keeps names up to one moment."""
        if self._model is Model.POSIX:
            return kept
        return [one for one in self._pending if kept and one.time <= kept[-1].time]

    def _state(self, kept: list[Renaming], choose: Any) -> State:
        names = dict(self._names)
        for change in kept:
            _apply(names, change)
        files, folders = [], []
        chosen: dict[int, tuple[np.ndarray, int]] = {}
        for path in sorted(names):
            node = names[path]
            parents = _above(path)
            if any(names.get(parent) is not FOLDER for parent in parents):
                continue  # its folder is not there
            if node is FOLDER:
                folders.append(path)
                continue
            if id(node) not in chosen:
                chosen[id(node)] = choose(self._open[id(node)])
            files.append((path, node, *chosen[id(node)]))
        return State(tuple(files), tuple(folders))


_WAYS = (
    "everything", "nothing", "until", "until", "torn", "torn", "torn", "but one", "only one",
    "a file at a time", "any", "any", "any",
)  # fmt: skip


def _above(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


class _Open:
    """One file's uncertain sectors and sizes, as arrays."""

    def __init__(self, node: Node, model: Model) -> None:
        self._model = model
        self._now = np.array(node.now, np.int32)
        self._sizes = node.sizes or [(-1, node.size)]
        self._cuts = node.cuts
        self._places = np.array(sorted(node.versions), np.int64)
        histories = [node.versions[place] for place in self._places.tolist()]
        self._counts = np.array([len(history) for history in histories], np.int64)
        shape = len(histories), max(map(len, histories), default=0)
        self._times = np.full(shape, NEVER, np.int64)
        self._values = np.zeros(shape, np.int32)
        for row, history in enumerate(histories):
            self._times[row, : len(history)] = [time for time, _ in history]
            self._values[row, : len(history)] = [value for _, value in history]
        times = self._times[(self._times >= 0) & (self._times < NEVER)]
        self.moments = {int(t) for t in np.unique(times)} | {t for t, _ in self._sizes if t >= 0}
        self.leftover = False  # whether a block that was not written holds what an old file left

    def at(self, moment: int) -> tuple[np.ndarray, int]:
        """As it was at that moment; -1: what is certain alone."""
        return self._made(self._last(np.full(len(self._places), moment)), self._sized(moment))

    def until(
        self, moment: int, tear: float | None, random: random.Random
    ) -> tuple[np.ndarray, int]:
        """As it was at that moment, or, torn, with a first or a last part of what was done then."""
        if tear is None:
            return self.at(moment)
        limits = np.full(len(self._places), moment - 1)
        written = np.flatnonzero(self._touched(moment))
        middle = int(len(written) * tear)
        part = written[:middle] if random.random() < 0.7 else written[middle:]
        limits[part] = moment
        if not len(part):
            return self._made(self._last(limits), self._sized(moment - 1))
        grown = (int(self._places[part[-1]]) + 1) * SECTOR
        sectors, size = self._made(self._last(limits), self._sized(moment))
        least = self._sizes[self._sized(moment - 1)][1]
        size = max(min(least, size), min(size, grown))
        return sectors[: -(-size // SECTOR)], size

    def without(self, moment: int) -> tuple[np.ndarray, int]:
        """All but what was done at that moment."""
        limits = np.where(self._touched(moment), moment - 1, NEVER - 1)
        return self._made(self._last(limits), len(self._sizes) - 1)

    def only(self, moment: int) -> tuple[np.ndarray, int]:
        """Nothing but what was done at that moment."""
        limits = np.where(self._touched(moment), moment, -1)
        return self._made(self._last(limits), self._sized(moment))

    def any(self, random: random.Random, share: float) -> tuple[np.ndarray, int]:
        """Each sector as it was at any moment, about `share` of them as they were last."""
        draw = np.random.default_rng(random.getrandbits(63))
        count = len(self._places)
        newest = draw.random(count) < share
        picked = np.where(newest, self._counts - 1, draw.integers(0, np.maximum(self._counts, 1)))
        return self._made(picked, random.randrange(len(self._sizes)))

    def _touched(self, moment: int) -> np.ndarray:
        return (self._times == moment).any(axis=1)

    def _last(self, limits: np.ndarray) -> np.ndarray:
        """Of each sector the number of its last version that is no later."""
        return (self._times <= np.minimum(limits, NEVER - 1)[:, None]).sum(axis=1) - 1

    def _sized(self, moment: int) -> int:
        """The number of the last size that is no later."""
        return sum(time <= moment for time, _ in self._sizes) - 1

    def _made(self, picked: np.ndarray, sized: int) -> tuple[np.ndarray, int]:
        """(sectors,) numbers and the size, of these versions of the uncertain sectors."""
        when, size = self._sizes[sized]
        for time, end in self._cuts:  # a cut is whole: what came after it is in other blocks
            behind = self._places * SECTOR >= end
            before = (self._times < time).sum(axis=1)  # versions
            fits = np.maximum(picked, before) if time <= when else np.minimum(picked, before - 1)
            picked = np.where(behind, np.minimum(fits, self._counts - 1), picked)
        sectors = self._now.copy()
        if len(picked):
            sectors[self._places] = self._values[np.arange(len(picked)), picked]
        durable = self._sizes[0][1]
        if size > durable and len(picked):
            lost = self._places[(self._places * SECTOR >= durable) & (picked == 0)]
            if self._model is Model.POSIX:
                sectors[lost] = int(self.leftover)
            elif len(lost):  # a file that has grown has its data: it ends where that does
                size = min(size, max(durable, int(lost[0]) * SECTOR))
        count = -(-size // SECTOR)
        if count > len(sectors):
            sectors = np.concatenate([sectors, np.zeros(count - len(sectors), np.int32)])
        return sectors[:count], size

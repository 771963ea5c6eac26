"""What is on the disk against what is known: the files to read, and those that are missing."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from mmsearch.catalog import Catalog, Known
from mmsearch.errors import UsageError
from mmsearch.files import Folder, Stat, WalkRules, display, one_file, vanished, walk
from mmsearch.records import Modality, Reason
from mmsearch.sidecars import LISTS, Found, Sidecars, Surroundings

# What became of a sidecar that was looked at and is the same as then.
_SETTLED = frozenset({Reason.SIDECAR, Reason.TYPE_MISMATCH, Reason.CORRUPT, Reason.TOO_LARGE})


@dataclass(frozen=True, slots=True)
class Scope:
    """A path to go over. `device` when it is a root of its own, which is then remembered."""

    path: bytes
    device: int | None


@dataclass(frozen=True, slots=True)
class Pending:
    """A file to read: new, changed, or worth another try.

    `content_id` and `gone` say what the catalog has under this path.
    `familiar`: some indexed file has as many bytes, so that the content may be known.
    `beside` are the sidecars that caption it, `mark` the number of their state. `file_id` is
    set when these alone have changed, and the file itself need not be read. `sidecar`: it is
    captions of others itself.
    """

    path: bytes
    content_id: int | None
    gone: bool
    familiar: bool
    beside: tuple[bytes, ...] = ()
    mark: int = 0
    file_id: int | None = None
    sidecar: bool = False


def resolve(catalog: Catalog, paths: Sequence[bytes]) -> tuple[list[Scope], list[bytes]]:
    """The scopes of a run and the roots that are offline. No paths: every known root.

    A root is offline when it is missing, empty where it had files, or a stranger: on another
    device than before with none of its files there. Raises UsageError for a path that is
    not there and of which nothing is known.
    """
    roots = {path: device for _, path, device in catalog.roots()}
    asked = [os.path.realpath(path) for path in paths] or sorted(roots)
    scopes: dict[bytes, Scope] = {}
    offline: set[bytes] = set()
    for path in sorted(set(asked)):
        if _above(path, scopes) is not None:
            continue  # a wider path of this run covers it
        root = _above(path, roots)
        if root is not None and _is_offline(catalog, root, roots[root]):
            offline.add(root)
        elif os.path.exists(path):
            new_or_moved = root is None or root == path
            scopes[path] = Scope(path, os.stat(path).st_dev if new_or_moved else None)
        elif root is not None and catalog.files_below(path):
            scopes[path] = Scope(path, None)  # all that was there is gone
        else:
            raise UsageError(f"no such file or folder: {display(path)}")
    # a disk that was a root of its own may be missing below a wider path of this run
    for root, device in roots.items():
        if _above(root, scopes) not in (None, root) and _is_offline(catalog, root, device):
            offline.add(root)
    return list(scopes.values()), sorted(offline)


def _above(path: bytes, folders: Container[bytes]) -> bytes | None:
    """The path itself or the nearest folder above it that is among these."""
    while path not in folders:
        parent = os.path.dirname(path)
        if parent == path:
            return None
        path = parent
    return path


def contains(folder: bytes, path: bytes) -> bool:
    """True for the folder itself and for everything below it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def _is_offline(catalog: Catalog, root: bytes, device: int) -> bool:
    try:
        status = os.stat(root)
        if not stat.S_ISDIR(status.st_mode):
            return False
        with os.scandir(root) as entries:
            empty = next(entries, None) is None
    except OSError as error:
        return vanished(error)  # one that may not be listed is there: the walk will say so
    known = catalog.some_files_below(root)
    if not known:
        return False
    # devices are numbered anew at a boot: the files themselves settle whether it is the same
    return empty or (status.st_dev != device and not any(_is_there(*file) for file in known))


def _is_there(path: bytes, size: int) -> bool:
    try:
        return os.lstat(path).st_size == size
    except OSError:
        return False


class Scan:
    """One pass over a scope, a folder at a time. Memory is bounded by the largest folder.

    After it: `unchanged`, `skipped` and `sidecars` count, `missing` has the ids of known files
    that the walk did not meet, `unreadable` the folders that could not be listed, with why.
    """

    def __init__(
        self,
        catalog: Catalog,
        rules: WalkRules,
        retry: frozenset[Reason],
        offline: Sequence[bytes],
        suffixes: Mapping[Modality, frozenset[bytes]],
        *,
        rehash: bool = False,
    ) -> None:
        self._catalog = catalog
        self._roots = frozenset(path for _, path, _ in catalog.roots())
        self._rules = rules
        # suffixes of files that some encoder reads, and of those that sidecars are looked for
        self._readable = frozenset().union(*suffixes.values())
        self._captioned = self._readable - suffixes.get(Modality.TEXT, frozenset())
        self._lists: dict[bytes, tuple[Found, ...]] = {}  # of captions, by folder
        self._offline = offline  # roots of which nothing is missing, whatever is not there
        self._retry = retry  # files refused for these reasons are read again
        self._rehash = rehash
        self.unchanged = 0
        self.skipped = 0
        self.sidecars = 0
        self.missing = array("q")
        self.unreadable: dict[bytes, str] = {}

    def run(self, scope: Scope) -> Iterator[Pending | None]:
        """The files to read, and None for every file that needs nothing."""
        if not os.path.exists(scope.path):
            self.missing.extend(self._catalog.files_below(scope.path))
            return
        visited: set[bytes] = set()
        file = os.path.isfile(scope.path)
        top = self._top(scope.path)
        for folder in [one_file(scope.path)] if file else walk(scope.path, self._rules):
            name = os.path.basename(scope.path) if file else None
            known = self._catalog.known_files(folder.path, name)
            visited.add(folder.path)
            if folder.error is not None:
                self.unreadable[folder.path] = folder.error
            self.skipped += len(folder.odd)
            around = self._around(folder, top, alone=scope.path if file else None)
            new: list[tuple[bytes, Stat, Known | None]] = []
            for name, found in folder.files:
                before = known.pop(name, None)
                if around.is_sidecar(name):
                    yield self._sidecar(os.path.join(folder.path, name), found, before)
                elif before is None or self._is_pending(name, found, before):
                    new.append((name, found, before))
                elif before.content_id is not None and before.mark != around.of(name).mark:
                    path = os.path.join(folder.path, name)
                    yield _pending(path, before, True, around.of(name), before.id)
                else:
                    self._count(before)
                    yield None
            sizes = self._catalog.known_sizes([found.size for _, found, _ in new])
            for name, found, before in new:
                path = os.path.join(folder.path, name)
                yield _pending(path, before, found.size in sizes, around.of(name))
            if not file:
                self._miss(folder.path, known)
        for path in self._catalog.folders_below(scope.path):
            if path not in visited:
                self._miss(path, self._catalog.known_files(path))

    def _top(self, path: bytes) -> bytes:
        """The highest folder that was given and has this path in it, else the path itself."""
        top = path
        while (parent := os.path.dirname(path)) != path:
            path = parent
            top = path if path in self._roots else top
        return top

    def _around(self, folder: Folder, top: bytes, alone: bytes | None) -> Surroundings:
        """What captions the files of a folder, or the one `alone`, and lies below `top`."""
        if not contains(top, folder.path):  # a file that was given without its folder
            return Surroundings(folder.path, (), (), self._captioned)
        above = _above(folder.path, self._lists)
        lists = self._lists[above] if above else tuple(_lists_above(folder.path, top))
        files = _like(alone) if alone else folder.files
        around = Surroundings(folder.path, files, lists, self._captioned)
        if above is None or around.lists != lists:
            self._lists[folder.path] = around.lists
        return around

    def _is_pending(self, name: bytes, found: Stat, known: Known) -> bool:
        """True when a known file, which is no sidecar, has to be read."""
        same = known.state == found.figures and not self._rehash
        again = known.reason in self._retry or known.reason is Reason.SIDECAR
        if known.reason is Reason.NO_MODEL:
            again = os.path.splitext(name)[1].lower() in self._readable
        return not same or known.gone or again or not known.described

    def _sidecar(self, path: bytes, found: Stat, known: Known | None) -> Pending | None:
        """A sidecar, when it has to be read; otherwise it is counted."""
        if known is not None and known.state == found.figures and known.reason in _SETTLED:
            self._count(known)
            return None
        return replace(_pending(path, known, False), sidecar=True)

    def _count(self, known: Known) -> None:
        if known.reason is Reason.SIDECAR:
            self.sidecars += 1
        elif known.reason is not None and known.reason.skipped:
            self.skipped += 1
        else:
            self.unchanged += 1

    def _miss(self, folder: bytes, known: dict[bytes, Known]) -> None:
        if any(contains(root, folder) for root in self._offline):
            return
        self.missing.extend(file.id for file in known.values() if not file.gone)


def _pending(
    path: bytes,
    known: Known | None,
    familiar: bool,
    sidecars: Sidecars = Sidecars(),  # noqa: B008 - it is frozen
    file_id: int | None = None,
) -> Pending:
    beside, mark = sidecars.paths, sidecars.mark
    if known is None:
        return Pending(path, None, False, familiar, beside, mark)
    return Pending(path, known.content_id, known.gone, familiar, beside, mark, file_id)


def _lists_above(folder: bytes, top: bytes) -> Iterator[Found]:
    """The lists of captions in the folders above one, up to and with `top`, the nearest first."""
    while folder != top:
        folder = os.path.dirname(folder)
        for name in LISTS:
            path = os.path.join(folder, name)
            if state := _regular(path):
                yield path, state


def _like(path: bytes) -> Iterator[Found]:
    """The files beside one whose names begin as its name does: perhaps its sidecars."""
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    with suppress(OSError):
        for other in os.listdir(folder):
            near = other in LISTS or other.startswith(stem)
            if near and (state := _regular(os.path.join(folder, other))):
                yield other, state


def _regular(path: bytes) -> Stat | None:
    """The state of a regular file; None for what is none, or not there."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return Stat.of(status) if stat.S_ISREG(status.st_mode) else None

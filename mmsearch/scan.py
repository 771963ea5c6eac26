"""What is on the disk against what is known: the files to read, and those that are missing."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from mmsearch.catalog import Catalog, Known
from mmsearch.errors import UsageError
from mmsearch.files import Stat, WalkRules, display, one_file, vanished, walk
from mmsearch.records import Reason


@dataclass(frozen=True, slots=True)
class Scope:
    """A path to go over. `device` when it is a root of its own, which is then remembered."""

    path: bytes
    device: int | None


@dataclass(frozen=True, slots=True)
class Pending:
    """A file to read: new, changed, or worth another try.

    `content_id` and `gone` say what the catalog has under this path, `seen` that it has it.
    `familiar`: some indexed file has as many bytes, so that the content may be known.
    """

    path: bytes
    seen: bool
    content_id: int | None
    gone: bool
    familiar: bool


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

    After it: `unchanged` and `skipped` count, `missing` has the ids of known files that the
    walk did not meet, `unreadable` the folders that could not be listed, with the reason.
    """

    def __init__(
        self,
        catalog: Catalog,
        rules: WalkRules,
        retry: frozenset[Reason],
        offline: Sequence[bytes],
        *,
        rehash: bool = False,
    ) -> None:
        self._catalog = catalog
        self._rules = rules
        self._offline = offline  # roots of which nothing is missing, whatever is not there
        self._retry = retry  # files refused for these reasons are read again
        self._rehash = rehash
        self.unchanged = 0
        self.skipped = 0
        self.missing = array("q")
        self.unreadable: dict[bytes, str] = {}

    def run(self, scope: Scope) -> Iterator[Pending | None]:
        """The files to read, and None for every file that needs nothing."""
        if not os.path.exists(scope.path):
            self.missing.extend(self._catalog.files_below(scope.path))
            return
        visited: set[bytes] = set()
        file = os.path.isfile(scope.path)
        for folder in [one_file(scope.path)] if file else walk(scope.path, self._rules):
            name = os.path.basename(scope.path) if file else None
            known = self._catalog.known_files(folder.path, name)
            visited.add(folder.path)
            if folder.error is not None:
                self.unreadable[folder.path] = folder.error
            self.skipped += len(folder.odd)
            pending: list[tuple[bytes, Stat, Known | None]] = []
            for name, found in folder.files:
                before = known.pop(name, None)
                if before is None or self._is_pending(found, before):
                    pending.append((os.path.join(folder.path, name), found, before))
                else:
                    yield None
            sizes = self._catalog.known_sizes([found.size for _, found, _ in pending])
            for path, found, before in pending:
                yield _pending(path, before, found.size in sizes)
            if not file:
                self._miss(folder.path, known)
        for path in self._catalog.folders_below(scope.path):
            if path not in visited:
                self._miss(path, self._catalog.known_files(path))

    def _is_pending(self, found: Stat, known: Known) -> bool:
        """True when a known file has to be read; otherwise it is counted."""
        same = known.state == found.figures and not self._rehash
        if not same or known.gone or known.reason in self._retry:
            return True
        if known.reason is not None and known.reason.skipped:
            self.skipped += 1
        else:
            self.unchanged += 1
        return False

    def _miss(self, folder: bytes, known: dict[bytes, Known]) -> None:
        if any(contains(root, folder) for root in self._offline):
            return
        self.missing.extend(file.id for file in known.values() if not file.gone)


def _pending(path: bytes, known: Known | None, familiar: bool) -> Pending:
    if known is None:
        return Pending(path, False, None, False, familiar)
    return Pending(path, True, known.content_id, known.gone, familiar)

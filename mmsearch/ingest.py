"""Items → loaded → encoded → committed, yielding progress. The one writer's work.

A file counts as indexed only after COMMIT. An interrupted run loses at most one batch.
"""

from __future__ import annotations

import marshal
import os
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from mmsearch.catalog import Catalog, Content
from mmsearch.decoding import SUFFIXES, DecoderPool, Job, Limits, Outcome, Piece, Wants
from mmsearch.encoding import DEPTH, Commits
from mmsearch.errors import LoadError
from mmsearch.fates import Fates, Known, Ready, items, state_of
from mmsearch.files import WalkRules, display, vanished
from mmsearch.parcels import Parcels
from mmsearch.records import Failure, Modality, Reason, Report
from mmsearch.scan import Pending, Scan, Scope, resolve
from mmsearch.settings import Settings
from mmsearch.sidecars import Reader
from mmsearch.spaces import Opened

_TRIES = 2  # a file that changes while it is read is read this often


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `committed` files are indexed for good; `total` 0: still scanning.

    With a `model` it is about what was known before and is now encoded with that.
    """

    done: int
    total: int
    committed: int
    failed: int
    model: str = ""


@dataclass
class Ingest:
    """One indexing run. `stop` is asked between files; True ends the run after a commit.

    `towers` has of each modality the space that its vectors are written to.
    """

    catalog: Catalog
    towers: Mapping[Modality, Opened]
    settings: Settings
    rules: WalkRules
    dry_run: bool
    rehash: bool
    stop: Callable[[], bool]
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        self._batch: list[Ready] = []
        self._known = Known(self.catalog)
        self._fates = Fates(self.catalog, self._known, self.towers)
        self._parcels = Parcels(self.towers, self._known, self.settings.batch)
        self._loading = 0.0  # seconds of waiting for the decoders
        self._sidecars = Reader()
        self._retry: list[Pending] = []
        self._tries: Counter[bytes] = Counter()
        self._skipped: Counter[str] = Counter()
        self._commits = Commits(self.settings.batch)
        self.committed = 0  # files indexed for good in this run
        self._total = self._left = 0  # files to read, and those not yet handed out
        self._asked: dict[bytes, Pending] = {}  # handed out, by path
        towers = self.towers
        wants = Wants(
            towers[Modality.IMAGE].encoder.image_input if Modality.IMAGE in towers else None,
            towers[Modality.AUDIO].encoder.audio_input if Modality.AUDIO in towers else None,
            Modality.TEXT in towers,
        )
        self._pool = DecoderPool(workers(self.settings), wants, Limits.of(self.settings))

    def run(self, paths: Sequence[bytes]) -> Iterator[Progress]:
        """Go over the paths (none: all known roots); progress after every scan step and file."""
        scopes = self._begin(paths)
        scan = Scan(
            self.catalog,
            self.rules,
            self._worth_another_try(),
            self._fates.offline,
            {kind: SUFFIXES[kind] for kind in self.towers},
            rehash=self.rehash,
        )
        # what is to be read goes to a file first: the total is then known, and memory is not
        with tempfile.TemporaryFile(prefix="mmsearch-") as spool:
            found = (pending for scope in scopes for pending in scan.run(scope))
            for met, pending in enumerate(found, start=1):
                if pending is not None:
                    marshal.dump(astuple(pending), spool)
                    self._total += 1
                if met % 1000 == 0:
                    yield Progress(met, 0, 0, 0)
                if self.stop():
                    break
            spool.seek(0)
            self._left = self._total
            self.report.unchanged, self.report.skipped = scan.unchanged, scan.skipped
            self.report.sidecars = scan.sidecars
            if self._total:
                yield from self._read(spool)
        self._finish(scan, scopes)
        yield self._progress()

    def _begin(self, paths: Sequence[bytes]) -> list[Scope]:
        """Settle what to go over, note what is offline, and remember new roots."""
        scopes, self._fates.offline = resolve(self.catalog, paths)
        for root in self._fates.offline:
            count = self.catalog.count_below(root)
            self.report.offline += count
            self.report.notes.append(
                f"{display(root)} is offline: its {count} files keep their place; "
                "connect it, or drop it with mmsearch forget"
            )
        if not self.dry_run:
            known = {path: (id, device) for id, path, device in self.catalog.roots()}
            with self.catalog.transaction():
                for scope in scopes:
                    if scope.device is not None and scope.path not in known:
                        self.catalog.put_root(scope.path, scope.device, keep=self._fates.offline)
                    elif scope.device is not None and known[scope.path][1] != scope.device:
                        self.catalog.set_device(known[scope.path][0], scope.device)
        return scopes

    def _worth_another_try(self) -> frozenset[Reason]:
        """Reasons that may be gone although the file is the same as before."""
        plain, now = Settings(), self.settings
        raised = {
            Reason.NEEDS_EXTRA: find_spec("pi_heif") is not None,
            Reason.OVER_BUDGET: now.max_megapixels > plain.max_megapixels
            or now.max_hours > plain.max_hours,
            Reason.TOO_LARGE: now.max_file_mb > plain.max_file_mb
            or now.max_hours > plain.max_hours
            or now.max_text_mb > plain.max_text_mb,
            Reason.TIMED_OUT: now.timeout > plain.timeout,
        }
        return frozenset({Reason.UNREADABLE, Reason.CHANGED, *(r for r in raised if raised[r])})

    # -- reading -----------------------------------------------------------------------

    def _read(self, spool: IO[bytes]) -> Iterator[Progress]:
        pool = self._pool
        began = time.monotonic()
        try:
            while True:
                while pool.waiting < pool.window and not self.stop() and not self._commit_is_due():
                    if self._retry:
                        self._ask(self._retry.pop())
                    elif self._left:
                        self._left -= 1
                        self._ask(Pending(*marshal.load(spool)))
                    else:
                        break
                if self.stop():
                    pool.give_up()
                if pool.waiting:
                    asked = time.monotonic()
                    answer = pool.next()
                    self._loading += time.monotonic() - asked
                    self._take(answer)
                    yield self._progress()
                if not pool.waiting or self._commit_is_due():
                    self._bring_home(whole=not pool.waiting or self._commits.are_late())
                    self._commit()
                    yield self._progress()
                if not pool.waiting and (self.stop() or not (self._left or self._retry)):
                    break
        finally:
            pool.close()
            self._parcels.close()
        self._parcels.tell(self.report, time.monotonic() - began, self._loading)
        self.report.interrupted = bool(self._left or self._retry)

    def _progress(self) -> Progress:
        done = self._total - self._left - self._pool.waiting - len(self._retry)
        return Progress(done, self._total, self.committed, len(self.report.failures))

    def _ask(self, pending: Pending) -> None:
        """Have a file read. Where its content may be known, its digest alone comes first.

        Sidecars are read here: text takes no decoder.
        """
        if pending.file_id is not None:
            beside = self._sidecars.captions(pending.path, pending.beside)
            self._batch.append(Ready(pending, state_of(pending.path), captions=beside))
            return
        if pending.sidecar:
            self._batch.append(self._judged(pending))
            return
        known = pending.content_id is not None or pending.familiar
        self._submit(pending, decode=not self.dry_run and not known)

    def _judged(self, pending: Pending) -> Ready:
        """A sidecar: no item, and named when it cannot be read."""
        ready = Ready(pending, state_of(pending.path), reason=Reason.SIDECAR)
        try:
            ready.message = self._sidecars.check(pending.path)
        except LoadError as error:
            ready.reason, ready.message = error.reason, str(error)
        return ready

    def _submit(self, pending: Pending, *, decode: bool) -> None:
        self._asked[pending.path] = pending
        self._pool.submit(Job(pending.path, decode))

    def _take(self, answer: Piece | Outcome) -> None:
        """Keep a piece for the encoder; decide what an outcome means."""
        path = answer.job.path
        if isinstance(answer, Piece):
            if self._parcels.changed(answer):
                self._drop(path)
            if self._parcels.put(answer):
                self._send()
            return
        pending = self._asked.pop(path)
        if answer.digest is None:  # nothing is kept of half a file
            self._drop(path)
        self._parcels.end(path)
        if answer.given_up:
            self._retry.append(pending)
            return
        if answer.reason is Reason.CHANGED and self._again(pending):
            return
        ready = Ready(pending, answer.state, None, answer.reason, answer.message)
        if answer.digest is None:
            self._batch.append(ready)
            return
        ready.content = Content(
            answer.digest, answer.modality, answer.format, answer.width, answer.height,
            metadata=answer.metadata,
        )  # fmt: skip
        ready.captions = self._sidecars.captions(path, pending.beside)
        if answer.parts:
            ready.items = answer.parts
            self._parcels.finish(ready)
            return
        self._known.look_up([answer.digest])
        if answer.digest in self._known or self.dry_run:
            self._batch.append(ready)
        else:  # its digest turned out to be new
            self._submit(pending, decode=True)

    def _drop(self, path: bytes) -> None:
        """Forget what came of a file that failed."""
        if self._parcels.owns(path):
            while self._parcels:
                self._receive()
            self._parcels.drop(path)

    def _again(self, pending: Pending) -> bool:
        """Queue a file that changed under us for another try, if it has one left."""
        self._tries[pending.path] += 1
        if self._tries[pending.path] >= _TRIES:
            return False
        self._retry.append(pending)
        return True

    def _send(self) -> None:
        """Hand what waits to the encoder; take back what it has done meanwhile."""
        self._parcels.send()
        while len(self._parcels) > DEPTH:
            self._receive()

    def _receive(self) -> None:
        """Pass on the files that are whole with the oldest parcel."""
        for ready in self._parcels.receive():
            if self._parcels.settle(ready):
                self._batch.append(ready)
            else:
                self._submit(ready.pending, decode=True)

    def _bring_home(self, *, whole: bool) -> None:
        """Have everything encoded that waits; or (not `whole`) so much that a batch is ready, but
        for what may be left to the encoder while that is committed.
        """
        self._send()
        while self._parcels and (whole or items(self._batch) < self._parcels.least):
            self._receive()

    # -- committing --------------------------------------------------------------------

    def _commit_is_due(self) -> bool:
        return self._commits.are_due(items(self._batch) + self._parcels.items)

    def _commit(self) -> None:
        """Write the batch in one transaction. Only then are its files indexed."""
        batch, self._batch = self._batch, []
        self._commits.begin()
        if self.dry_run:
            for ready in batch:
                self._settle(ready, self._fates.of(ready)[0])
                if ready.content:  # what comes after it is a copy; no content has the id 0
                    self._known.setdefault(ready.content.digest, 0)
            return
        fates: list[tuple[Ready, str]] = []
        captions = self._parcels.captions(batch)
        with self.catalog.transaction():
            self._fates.put_captions(captions)
            for ready in batch:
                if ready.state is None or state_of(ready.pending.path) == ready.state:
                    fates.append((ready, self._fates.write(ready, self._parcels.rows)))
                elif not self._again(ready.pending):
                    ready.fail(Reason.CHANGED, "the file keeps changing while it is read")
                    fates.append((ready, self._fates.write(ready, self._parcels.rows)))
        for ready, fate in fates:
            self._settle(ready, fate)
        self._parcels.forget()
        self._known.clear()

    def _settle(self, ready: Ready, fate: str) -> None:
        """Count a file whose fate is on the disk."""
        self.committed += ready.content is not None
        self.report.captioned += ready.retold
        if fate == "failed":
            assert ready.reason is not None
            path = Path(os.fsdecode(ready.pending.path))
            self.report.failures.append(Failure(path, ready.reason, ready.message))
        elif fate != "vanished":
            setattr(self.report, fate, getattr(self.report, fate) + 1)
        if ready.reason is Reason.NEEDS_EXTRA:
            self._skipped[ready.message] += 1

    # -- the end -----------------------------------------------------------------------

    def _finish(self, scan: Scan, scopes: list[Scope]) -> None:
        """Say what is gone, and name folders that could not be listed."""
        self.report.notes += [f"{n} files skipped: {why}" for why, n in self._skipped.items()]
        for path, message in scan.unreadable.items():
            failure = Failure(Path(os.fsdecode(path)), Reason.UNREADABLE, message)
            self.report.failures.append(failure)
        if self.report.interrupted or self.stop():
            self.report.interrupted = True
            return
        missing = [id for id in scan.missing if id not in self._fates.moved]
        gone = [id for id, path in self.catalog.paths_by_id(missing) if not _is_file(path)]
        self.report.gone = self.catalog.count_indexed(gone)
        if self.dry_run:
            return
        with self.catalog.transaction():
            self.catalog.mark_gone(gone)
            for scope in scopes:
                self.catalog.clear_folder_failures(scope.path)
            for path, message in scan.unreadable.items():
                self.catalog.put_folder_failure(path, message)


def workers(settings: Settings) -> int:
    """How many decoder processes there are to be."""
    return settings.workers or min(os.cpu_count() or 1, 6)


def _is_file(path: bytes) -> bool:
    """False when it is certain that no file is there; a folder we may not look into is not."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError as error:
        return not vanished(error)

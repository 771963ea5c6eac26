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
from dataclasses import astuple, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from mmsearch.catalog import Catalog, Content, Part
from mmsearch.catalog.captions import Said, caption_digest
from mmsearch.decoding import SUFFIXES, DecoderPool, Job, Limits, Outcome, Piece, Wants
from mmsearch.encoding import DEPTH, Commits, Encoding, usable
from mmsearch.errors import LoadError
from mmsearch.files import Stat, WalkRules, display, vanished
from mmsearch.records import Caption, Failure, Modality, Reason, Report
from mmsearch.scan import Pending, Scan, Scope, contains, resolve
from mmsearch.settings import Settings
from mmsearch.sidecars import Reader
from mmsearch.spaces import Opened

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Vectors

    Row = NDArray[np.float32]  # (dim,)

_CAPTIONS = 32  # handed to the encoder at a time: the short ones together
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


@dataclass(slots=True)
class _Ready:
    """A file whose fate is known and waits for the commit."""

    pending: Pending
    state: tuple[int, int, int] | None
    content: Content | None = None
    reason: Reason | None = None
    message: str = ""
    items: int = 1
    captions: Sequence[Caption] = ()  # what its sidecars say
    retold: bool = False  # its captions are others than before

    @property
    def said(self) -> list[Caption]:
        """All captions: what is said beside the file, then what it says itself."""
        return [*self.captions, *(self.content.metadata.captions if self.content else ())]


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What the encoder has in hand: pieces by modality, and files whose last is among them."""

    pieces: Mapping[Modality, Sequence[Piece]]
    decoded: Sequence[_Ready]


@dataclass
class Ingest:
    """One indexing run. `stop` is asked between files; True ends the run after a commit.

    `towers` has of each modality the space that its vectors are written to.
    """

    catalog: Catalog
    towers: Mapping[Modality, Opened]
    settings: Settings
    rules: WalkRules
    dry_run: bool = False
    rehash: bool = False
    stop: Callable[[], bool] = lambda: False
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        self._batch: list[_Ready] = []
        self._pieces: list[Piece] = []  # decoded, waiting for the encoder
        self._decoded: list[_Ready] = []  # files whose last piece is among them
        self._encoding: Encoding[_Parcel] = Encoding(self.settings.batch)
        self._loading = 0.0  # seconds of waiting for the decoders
        self._sent: Counter[bytes] = Counter()  # by digest, how many pieces the encoder was given
        self._begun: dict[
            bytes, bytes
        ] = {}  # digests by path of files that more pieces may come of
        self._owners: dict[bytes, bytes] = {}  # by digest, of copies the one whose pieces are used
        # encoded, by digest: a row for each piece, None where the model gave no usable one
        self._rows: dict[bytes, list[tuple[Row | None, Part]]] = {}
        self._known: dict[bytes, int] = {}  # content ids by digest, as far as the batch asked
        self._sidecars = Reader()
        self._retry: list[Pending] = []
        self._tries: Counter[bytes] = Counter()
        self._moved: set[int] = set()
        self._offline: list[bytes] = []
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
            self._offline,
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
        scopes, self._offline = resolve(self.catalog, paths)
        for root in self._offline:
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
                        self.catalog.put_root(scope.path, scope.device, keep=self._offline)
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
            self._encoding.close()
        self._encoding.tell(self.report, time.monotonic() - began, self._loading)
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
            self._batch.append(_Ready(pending, _state(pending.path), captions=beside))
            return
        if pending.sidecar:
            self._batch.append(self._judged(pending))
            return
        known = pending.content_id is not None or pending.familiar
        self._submit(pending, decode=not self.dry_run and not known)

    def _judged(self, pending: Pending) -> _Ready:
        """A sidecar: no item, and named when it cannot be read."""
        ready = _Ready(pending, _state(pending.path), reason=Reason.SIDECAR)
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
            if self._begun.get(path) != answer.digest:  # begun again, and changed meanwhile
                self._drop_pieces(path)
            self._begun[path] = answer.digest
            if answer.number == 0:
                self._owners.setdefault(answer.digest, path)
            if self._owners.get(answer.digest) == path:
                self._pieces.append(answer)
            encoder = self.towers[answer.modality].encoder
            if len(self._pieces) >= self._encoding.size(encoder, answer.modality):
                self._send()
            return
        pending = self._asked.pop(path)
        if answer.digest is None:  # nothing is kept of half a file
            self._drop_pieces(path)
        self._begun.pop(path, None)
        if answer.given_up:
            self._retry.append(pending)
            return
        if answer.reason is Reason.CHANGED and self._again(pending):
            return
        ready = _Ready(pending, answer.state, None, answer.reason, answer.message)
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
            self._decoded.append(ready)
            return
        self._look_up([answer.digest])
        if answer.digest in self._known or self.dry_run:
            self._batch.append(ready)
        else:  # its digest turned out to be new
            self._submit(pending, decode=True)

    def _drop_pieces(self, path: bytes) -> None:
        """Forget what came of a file that failed."""
        digest = self._begun.get(path)
        if digest is not None and self._owners.get(digest) == path:
            while self._encoding:
                self._receive()
            self._pieces = [piece for piece in self._pieces if piece.digest != digest]
            self._rows.pop(digest, None)
            self._sent.pop(digest, None)
            del self._owners[digest]

    def _look_up(self, digests: list[bytes]) -> None:
        self._known |= self.catalog.content_ids([d for d in digests if d not in self._known])

    def _again(self, pending: Pending) -> bool:
        """Queue a file that changed under us for another try, if it has one left."""
        self._tries[pending.path] += 1
        if self._tries[pending.path] >= _TRIES:
            return False
        self._retry.append(pending)
        return True

    def _send(self) -> None:
        """Hand the waiting pieces to the encoder, each content once; take back what it has done
        meanwhile.
        """
        self._look_up([piece.digest for piece in self._pieces])
        new: dict[Modality, list[Piece]] = {}
        for piece in self._pieces:
            # a file that is begun again brings its first pieces a second time
            if piece.digest not in self._known and piece.number == self._sent[piece.digest]:
                self._sent[piece.digest] += 1
                new.setdefault(piece.modality, []).append(piece)
        calls = [
            (self.towers[modality].encoder, modality, [piece.data for piece in pieces])
            for modality, pieces in new.items()
        ]
        self._encoding.send(_Parcel(new, self._decoded), calls)
        self._pieces, self._decoded = [], []
        while len(self._encoding) > DEPTH:
            self._receive()

    def _receive(self) -> None:
        """Take a parcel from the encoder, and pass on the files that are whole with it."""
        parcel, found = self._encoding.take()
        for pieces, rows in zip(parcel.pieces.values(), found, strict=True):
            sound = usable(rows)
            for piece, row, good in zip(pieces, rows, sound, strict=True):
                kept = self._rows.setdefault(piece.digest, [])
                kept.append((row if good else None, _part(piece)))
            self.report.encoded += int(sound.sum())
        # what was new when it was sent may have been committed since
        self._look_up([ready.content.digest for ready in parcel.decoded if ready.content])
        for ready in parcel.decoded:
            self._weigh(ready)

    def _bring_home(self, *, whole: bool) -> None:
        """Have everything encoded that waits; or (not `whole`) so much that a batch is ready, but
        for what may be left to the encoder while that is committed.
        """
        least = self.settings.batch - self._encoding.kept
        if self._pieces or self._decoded:
            self._send()
        while self._encoding and (whole or _items(self._batch) < least):
            self._receive()

    def _weigh(self, ready: _Ready) -> None:
        """Pass on a file that was decoded, if it has a good vector for each of its pieces."""
        assert ready.content is not None
        digest = ready.content.digest
        if digest not in self._known:
            rows = self._rows.get(digest, [])
            # a copy whose pieces are used instead of these may yet fail, or has failed
            if self._owners.get(digest) in self._begun or len(rows) < ready.items:
                self._submit(ready.pending, decode=True)
                return
            if any(row is None for row, _ in rows):
                ready.content, ready.reason = None, Reason.NONFINITE
                ready.message = "the model gave no usable vector for it"
        self._batch.append(ready)

    # -- committing --------------------------------------------------------------------

    def _commit_is_due(self) -> bool:
        under_way = [ready for parcel in self._encoding.tags for ready in parcel.decoded]
        return self._commits.are_due(_items([*self._batch, *self._decoded, *under_way]))

    def _commit(self) -> None:
        """Write the batch in one transaction. Only then are its files indexed."""
        batch, self._batch = self._batch, []
        self._commits.begin()
        if self.dry_run:
            for ready in batch:
                self._settle(ready, self._fate(ready)[0])
                if ready.content:  # what comes after it is a copy; no content has the id 0
                    self._known.setdefault(ready.content.digest, 0)
            return
        fates: list[tuple[_Ready, str]] = []
        captions = self._encode_captions(batch)
        with self.catalog.transaction():
            for text, rows in captions:
                content_id = self.catalog.put_caption(text, self._space_of(Modality.TEXT), rows)
                self._known[caption_digest(text)] = content_id
            for ready in batch:
                if ready.state is None or _state(ready.pending.path) == ready.state:
                    fates.append((ready, self._write(ready)))
                elif not self._again(ready.pending):
                    ready.content, ready.reason = None, Reason.CHANGED
                    ready.message = "the file keeps changing while it is read"
                    fates.append((ready, self._write(ready)))
        for ready, fate in fates:
            self._settle(ready, fate)
        under_way = [parcel.decoded for parcel in self._encoding.tags]
        needed = {r.content.digest for some in under_way for r in some if r.content}
        self._owners = {
            d: path for d, path in self._owners.items() if path in self._begun or d in needed
        }
        self._rows = {d: rows for d, rows in self._rows.items() if d in self._owners}
        self._sent = Counter({d: n for d, n in self._sent.items() if d in self._owners})
        self._known.clear()

    def _space_of(self, modality: Modality) -> int:
        return self.towers[modality].space.id if modality in self.towers else 0

    def _encode_captions(self, batch: list[_Ready]) -> list[tuple[str, Vectors]]:
        """The captions that are new to the library, with their (1, dim) rows; (0, dim) where
        the model gave no usable one.
        """
        texts = {caption_digest(said.text): said.text for ready in batch for said in ready.said}
        self._look_up(list(texts))
        # the short ones together: little is padded
        new = sorted((text for key, text in texts.items() if key not in self._known), key=len)
        found: list[tuple[str, Vectors]] = []
        if Modality.TEXT not in self.towers:  # found as words alone, until there is one
            return [(text, np.empty((0, 0), np.float32)) for text in new]
        encoder = self.towers[Modality.TEXT].encoder
        for start in range(0, len(new), _CAPTIONS):
            block = new[start : start + _CAPTIONS]
            rows = self._encoding.encode(encoder, Modality.TEXT, block)
            good = usable(rows)
            found += [(text, rows[n : n + 1][good[n : n + 1]]) for n, text in enumerate(block)]
        return found

    def _caption(self, file_id: int, ready: _Ready) -> None:
        """Write what is said of a file."""

        def written(captions: Sequence[Caption]) -> list[Said]:
            return [(self._known[caption_digest(said.text)], said.source) for said in captions]

        beside = written(ready.captions)
        inside = written(ready.content.metadata.captions) if ready.content else None
        ready.retold = self.catalog.put_captions(file_id, beside, inside)

    def _write(self, ready: _Ready) -> str:
        """Write one file to the catalog; what became of it, in the report's words."""
        path, state, mark = ready.pending.path, ready.state, ready.pending.mark
        fate, origin = self._fate(ready)
        if fate == "vanished" or state is None:
            return "vanished"
        if (file_id := ready.pending.file_id) is not None:
            if self.catalog.put_mark(file_id, mark):
                self._caption(file_id, ready)
            return fate
        if ready.content is None:
            self.catalog.put_file(path, state, reason=ready.reason, message=ready.message)
            return fate
        if origin is not None:
            self.catalog.move_file(origin, path, state, mark)
            self._caption(origin, ready)
            return fate
        content_id = self._known.get(ready.content.digest)
        if content_id is None:
            rows = self._rows[ready.content.digest]
            if ready.content.modality is not Modality.IMAGE:
                ready.content = replace(ready.content, parts=tuple(part for _, part in rows))
            vectors = np.stack([row for row, _ in rows if row is not None])
            space_id = self._space_of(ready.content.modality)
            content_id = self.catalog.put_content(ready.content, space_id, vectors)
            self._known[ready.content.digest] = content_id
        else:
            self.catalog.describe(content_id, ready.content.metadata)
        kind = ready.content.modality
        file_id = self.catalog.put_file(
            path, state, content_id=content_id, modality=kind, mark=mark
        )  # fmt: skip
        self._caption(file_id, ready)
        return fate

    def _fate(self, ready: _Ready) -> tuple[str, int | None]:
        """added, changed, moved, copied, unchanged, skipped, sidecars, failed or vanished.

        For a moved file also the id of the file that it was.
        """
        pending = ready.pending
        if pending.file_id is not None:
            return "unchanged", None
        if ready.content is None:
            if ready.reason is Reason.UNREADABLE and _state(pending.path) is None:
                return "vanished", None  # deleted since the scan: nobody's fault
            if ready.reason is Reason.SIDECAR:
                return "sidecars", None
            return "skipped" if ready.reason and ready.reason.skipped else "failed", None
        content_id = self._known.get(ready.content.digest)
        if pending.content_id is not None:
            if pending.gone:
                return "added", None
            same = self.catalog.holds(pending.content_id, ready.content.digest)
            return "unchanged" if same else "changed", None
        if content_id is None:
            return "added", None
        origin = self._origin(content_id)
        if origin is None:
            return "copied", None
        self._moved.add(origin)
        return "moved", origin

    def _origin(self, content_id: int) -> int | None:
        """A file with this content that is no longer where it was, on a root that is there."""
        for id, path, gone in self.catalog.paths_of(content_id):
            offline = any(contains(root, path) for root in self._offline)
            if id not in self._moved and not offline and (gone or _state(path) is None):
                return id
        return None

    def _settle(self, ready: _Ready, fate: str) -> None:
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
        missing = [id for id in scan.missing if id not in self._moved]
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


def _items(files: Sequence[_Ready]) -> int:
    """How many vectors these files and what is said of them come to."""
    return sum(ready.items + len(ready.said) for ready in files)


def _part(piece: Piece) -> Part:
    return Part(piece.start, piece.end, piece.data if isinstance(piece.data, str) else None)


def _state(path: bytes) -> tuple[int, int, int] | None:
    try:
        return Stat.of(os.lstat(path)).figures
    except OSError:
        return None


def _is_file(path: bytes) -> bool:
    """False when it is certain that no file is there; a folder we may not look into is not."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError as error:
        return not vanished(error)

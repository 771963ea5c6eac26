"""What is known already, encoded for a further space: its files are read once more.

Passages and captions are encoded from the words in the catalog, pictures and sounds from their
files, if these still are what was indexed. A sound keeps the windows that it was cut into; one
that is longer than the encoder's own is the renormalised mean of its parts. Nothing but vectors
is written, a batch in a transaction, as in `ingest`; what an interrupted run has not come to is
found missing by the next.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.catalog import Catalog, Missing
from mmsearch.decoding import DecoderPool, Job, Limits, Outcome, Piece, Wants
from mmsearch.encoding import DEPTH, Commits, Encoding, usable
from mmsearch.ingest import Progress, workers
from mmsearch.records import Modality, Report
from mmsearch.settings import Settings
from mmsearch.spaces import Opened

if TYPE_CHECKING:
    from mmsearch.records import Vectors

_NEAR = 0.05  # seconds by which the beginnings of a window may differ between two rates

Place = tuple[int, int]  # a content and its part
Ready = tuple[Missing, str]  # a content of which all parts are in, or why it has none


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What the encoder has in hand: the places of its inputs by modality, and what is whole."""

    places: Mapping[Modality, Sequence[Place]]
    whole: Sequence[Ready]


class Fill:
    """One run over what a space lacks. `instead`: older spaces, whose vectors go for the new."""

    def __init__(
        self,
        catalog: Catalog,
        opened: Opened,
        settings: Settings,
        report: Report,
        stop: Callable[[], bool] = lambda: False,
        instead: Collection[int] = (),
        window: float | None = None,
    ) -> None:
        """`window`: of the library's sounds, in seconds, where those of one do not say."""
        self._catalog, self._space, self._encoder = catalog, opened.space, opened.encoder
        self._settings, self._report, self._stop = settings, report, stop
        self._instead, self._window = instead, window
        encoder, kinds = self._encoder, self._encoder.modalities
        wants = Wants(
            encoder.image_input if Modality.IMAGE in kinds else None,
            encoder.audio_input if Modality.AUDIO in kinds else None,
        )
        self._pool = DecoderPool(workers(settings), wants, Limits.of(settings))
        self._encoding: Encoding[_Parcel] = Encoding(settings.batch)
        self._inputs: dict[Modality, list[tuple[Place, Any]]] = {}  # waiting for the encoder
        self._whole: list[Ready] = []  # contents whose last input is among them
        self._sums: dict[int, dict[int, Vectors]] = {}  # (dim,) by content and part, as they come
        self._asked: dict[bytes, Missing] = {}  # files handed out, by path
        self._batch: list[Ready] = []  # ready for the commit
        self._failed: Counter[str] = Counter()
        self._commits = Commits(settings.batch)
        self._loading = 0.0
        self._done = self._committed = 0
        self.total = sum(catalog.count_missing(self._space.id, encoder.modalities).values())

    def run(self) -> Iterator[Progress]:
        """Fill the space; progress after every content and commit."""
        missing = self._missing()
        pool, began, more = self._pool, time.monotonic(), True
        try:
            while more or pool.waiting:
                while more and pool.waiting < pool.window and not self._is_due():
                    one = None if self._stop() else next(missing, None)
                    if one is None:
                        more = False
                        break
                    self._ask(one)
                if self._stop():
                    pool.give_up()
                if pool.waiting:
                    asked = time.monotonic()
                    answer = pool.next()
                    self._loading += time.monotonic() - asked
                    self._take(answer)
                if not pool.waiting or self._is_due():
                    self._bring_home(whole=not pool.waiting or self._commits.are_late())
                    self._commit()
                failed = sum(self._failed.values())
                yield Progress(self._done, self.total, self._committed, failed, self._encoder.name)
        finally:
            pool.close()
            self._encoding.close()
        self._encoding.tell(self._report, time.monotonic() - began, self._loading)
        self._report.interrupted |= self._stop()
        for why, count in self._failed.items():
            self._report.notes.append(f"{count:,} not encoded with {self._encoder.name}: {why}")

    def _missing(self) -> Iterator[Missing]:
        after, kinds = 0, self._encoder.modalities
        while page := self._catalog.missing(self._space.id, kinds, after):
            yield from page
            after = page[-1].content_id

    def _ask(self, one: Missing) -> None:
        """Have one content encoded: its words as they are, else what its file holds."""
        if one.modality is Modality.TEXT:
            for part, text in enumerate(one.texts):
                self._put(one.content_id, part, Modality.TEXT, text)
            self._end(one, "")
            return
        for _, path, gone in self._catalog.paths_of(one.content_id):
            if not gone and path not in self._asked and os.path.isfile(path):
                self._asked[path] = one
                self._pool.submit(Job(path, window=self._window_of(one)))
                return
        self._end(one, "the file is not there now")

    def _window_of(self, one: Missing) -> float | None:
        """How long the windows are that a sound was cut into: of several the first, whole one."""
        if not one.spans:
            return None
        start, end = one.spans[0]
        return end - start if len(one.spans) > 1 or start == 0 else self._window

    def _take(self, answer: Piece | Outcome) -> None:
        one = self._asked[answer.job.path]
        if isinstance(answer, Piece):
            if answer.number == 0:  # perhaps it was begun before
                self._drop(one.content_id)
            part = _part(one, answer)
            if part is not None:
                self._put(one.content_id, part, answer.modality, answer.data)
            return
        del self._asked[answer.job.path]
        if answer.given_up:
            self._drop(one.content_id)
            return
        why = ""
        if answer.digest is None:
            why = f"the file cannot be read now: {answer.reason}"
        elif one.digest[: len(answer.digest)] != answer.digest:
            why = "the file is another one now"
        self._end(one, why)

    def _put(self, content_id: int, part: int, modality: Modality, data: Any) -> None:
        """Hand an input to the encoder, in several parts where it takes no longer ones."""
        waiting = self._inputs.setdefault(modality, [])
        pieces = [data]
        if modality is Modality.AUDIO and self._encoder.audio_input is not None:
            pieces = np.array_split(data, -(-len(data) // self._encoder.audio_input.most))
        waiting += [((content_id, part), piece) for piece in pieces]
        if len(waiting) >= self._encoding.size(self._encoder, modality):
            self._send()

    def _drop(self, content_id: int) -> None:
        """Forget what has come of a file, if anything."""
        under_way = (some for parcel in self._encoding.tags for some in parcel.places.values())
        if any(place[0] == content_id for places in under_way for place in places):
            while self._encoding:
                self._receive()
        for kind, waiting in self._inputs.items():
            self._inputs[kind] = [one for one in waiting if one[0][0] != content_id]
        self._sums.pop(content_id, None)

    def _end(self, one: Missing, why: str) -> None:
        self._whole.append((one, why))

    # -- encoding ----------------------------------------------------------------------

    def _send(self) -> None:
        inputs, self._inputs = self._inputs, {}
        whole, self._whole = self._whole, []
        places = {kind: [place for place, _ in waiting] for kind, waiting in inputs.items()}
        calls = [(self._encoder, k, [data for _, data in some]) for k, some in inputs.items()]
        self._encoding.send(_Parcel(places, whole), calls)
        while len(self._encoding) > DEPTH:
            self._receive()

    def _receive(self) -> None:
        parcel, found = self._encoding.take()
        for places, rows in zip(parcel.places.values(), found, strict=True):
            for (content_id, part), row, good in zip(places, rows, usable(rows), strict=True):
                sums = self._sums.setdefault(content_id, {})
                added = row if good else np.full_like(row, np.nan)
                sums[part] = added + sums[part] if part in sums else added
        self._batch += parcel.whole

    def _bring_home(self, *, whole: bool) -> None:
        """As in `ingest`: all of it, or so much that a batch is ready."""
        least = self._settings.batch - self._encoding.kept
        if self._inputs or self._whole:
            self._send()
        while self._encoding and (whole or _size(self._batch) < least):
            self._receive()

    # -- committing --------------------------------------------------------------------

    def _is_due(self) -> bool:
        waiting = _size([*self._batch, *self._whole])
        waiting += sum(_size(parcel.whole) for parcel in self._encoding.tags)
        return self._commits.are_due(waiting)

    def _commit(self) -> None:
        """Write the batch's vectors in one transaction."""
        batch, self._batch = self._batch, []
        self._commits.begin()
        written = [(one, *self._rows(one, why)) for one, why in batch]
        there = 0
        if any(rows is not None for _, rows, _ in written):
            with self._catalog.transaction():
                for one, rows, _ in written:
                    if rows is not None and self._catalog.put_vectors(
                        one.content_id, self._space.id, rows, self._instead
                    ):
                        there += 1
                        self._report.encoded += len(rows)
        self._done += _size(batch)
        self._committed += there
        self._report.filled += there
        self._failed.update(why for *_, why in written if why)

    def _rows(self, one: Missing, why: str) -> tuple[Vectors | None, str]:
        """The (parts, dim) unit rows of a content, or None and why not."""
        sums = self._sums.pop(one.content_id, {})
        if why:
            return None, why
        parts = max(len(one.spans), len(one.texts), 1)
        if set(sums) != set(range(parts)):
            return None, "its windows are others than before"
        rows = np.stack([sums[part] for part in range(parts)])
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 1e-6).all()):
            return None, "the model gave no usable vector for it"
        return (rows / lengths).astype(np.float32), ""


def _part(one: Missing, piece: Piece) -> int | None:
    """Which of a content's parts a piece is; None for a window that is none of them."""
    if not one.spans:
        return piece.number if piece.number == 0 else None
    begun = np.array([start for start, _ in one.spans])
    near = int(np.abs(begun - (piece.start or 0.0)).argmin())
    return near if abs(begun[near] - (piece.start or 0.0)) <= _NEAR else None


def _size(batch: Sequence[Ready]) -> int:
    return sum(max(len(one.spans), len(one.texts), 1) for one, _ in batch)

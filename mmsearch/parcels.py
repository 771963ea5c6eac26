"""Pieces of files on their way through the encoder: waiting, under way, and their rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.catalog import Part
from mmsearch.catalog.captions import caption_digest
from mmsearch.decoding import Piece
from mmsearch.encoding import Encoding, usable
from mmsearch.fates import Known, Ready, items
from mmsearch.records import Modality, Reason, Report
from mmsearch.spaces import Opened

if TYPE_CHECKING:
    from mmsearch.fates import Row
    from mmsearch.records import Vectors

_CAPTIONS = 32  # handed to the encoder at a time: the short ones together


@dataclass(frozen=True, slots=True)
class Parcel:
    """What the encoder has in hand: pieces by modality, and files whose last is among them."""

    pieces: Mapping[Modality, Sequence[Piece]]
    decoded: Sequence[Ready]


class Parcels:
    """Each content is encoded once, however many files have it.

    `rows` has of each digest a row for each piece that was encoded, None where the model gave no
    usable one.
    """

    def __init__(self, towers: Mapping[Modality, Opened], known: Known, batch: int) -> None:
        self.rows: dict[bytes, list[tuple[Row | None, Part]]] = {}
        self.encoded = 0  # pieces that have a good row
        self._towers, self._known, self._batch = towers, known, batch
        self._pieces: list[Piece] = []  # decoded, waiting for the encoder
        self._decoded: list[Ready] = []  # files whose last piece is among them
        self._encoding: Encoding[Parcel] = Encoding(batch)
        self._sent: Counter[bytes] = Counter()  # by digest, how many pieces the encoder was given
        # digests by path of files that more pieces may come of
        self._begun: dict[bytes, bytes] = {}
        self._owners: dict[bytes, bytes] = {}  # by digest, of copies the one whose pieces are used

    def __len__(self) -> int:
        """How many parcels are under way."""
        return len(self._encoding)

    @property
    def items(self) -> int:
        """How many vectors the files come to that wait or are under way."""
        under_way = [ready for parcel in self._encoding.tags for ready in parcel.decoded]
        return items([*self._decoded, *under_way])

    @property
    def least(self) -> int:
        """So many vectors at least are a batch: of a large one the rest may stay under way."""
        return self._batch - self._encoding.kept

    def put(self, piece: Piece) -> bool:
        """Keep a piece for the encoder; whether those that wait make a parcel."""
        path = piece.job.path
        self._begun[path] = piece.digest
        if piece.number == 0:
            self._owners.setdefault(piece.digest, path)
        if self._owners.get(piece.digest) == path:
            self._pieces.append(piece)
        encoder = self._towers[piece.modality].encoder
        return len(self._pieces) >= self._encoding.size(encoder, piece.modality)

    def changed(self, piece: Piece) -> bool:
        """Whether its file was begun before, with other bytes."""
        return self._begun.get(piece.job.path, piece.digest) != piece.digest

    def owns(self, path: bytes) -> bool:
        """Whether rows of a file that was begun come of this path, not of a copy."""
        digest = self._begun.get(path)
        return digest is not None and self._owners.get(digest) == path

    def drop(self, path: bytes) -> None:
        """Forget what came of a file that `owns` it; nothing may be under way."""
        digest = self._begun[path]
        self._pieces = [piece for piece in self._pieces if piece.digest != digest]
        self.rows.pop(digest, None)
        self._sent.pop(digest, None)
        del self._owners[digest]

    def end(self, path: bytes) -> None:
        """No more pieces come of this file."""
        self._begun.pop(path, None)

    def finish(self, ready: Ready) -> None:
        """A file is whole with the last piece that was put."""
        self._decoded.append(ready)

    def send(self) -> None:
        """Hand what waits to the encoder, each content once."""
        if not self._pieces and not self._decoded:
            return
        self._known.look_up([piece.digest for piece in self._pieces])
        new: dict[Modality, list[Piece]] = {}
        for piece in self._pieces:
            # a file that is begun again brings its first pieces a second time
            if piece.digest not in self._known and piece.number == self._sent[piece.digest]:
                self._sent[piece.digest] += 1
                new.setdefault(piece.modality, []).append(piece)
        calls = [
            (self._towers[modality].encoder, modality, [piece.data for piece in pieces])
            for modality, pieces in new.items()
        ]
        self._encoding.send(Parcel(new, self._decoded), calls)
        self._pieces, self._decoded = [], []

    def receive(self) -> Sequence[Ready]:
        """Take the oldest parcel back from the encoder; the files that are whole with it."""
        parcel, found = self._encoding.take()
        for pieces, rows in zip(parcel.pieces.values(), found, strict=True):
            sound = usable(rows)
            for piece, row, good in zip(pieces, rows, sound, strict=True):
                self.rows.setdefault(piece.digest, []).append((row if good else None, _part(piece)))
            self.encoded += int(sound.sum())
        # what was new when it was sent may have been committed since
        self._known.look_up([ready.content.digest for ready in parcel.decoded if ready.content])
        return parcel.decoded

    def settle(self, ready: Ready) -> bool:
        """Whether the fate of a file that was received is certain; else it is read once more."""
        assert ready.content is not None
        digest = ready.content.digest
        if digest in self._known:
            return True
        rows = self.rows.get(digest, [])
        # a copy whose pieces are used instead of these may yet fail, or has failed
        if self._owners.get(digest) in self._begun or len(rows) < ready.items:
            return False
        if any(row is None for row, _ in rows):
            ready.fail(Reason.NONFINITE, "the model gave no usable vector for it")
        return True

    def captions(self, batch: Sequence[Ready]) -> list[tuple[str, Vectors]]:
        """The captions that are new to the library, with their (1, dim) rows; (0, dim) where
        the model gave no usable one.
        """
        texts = {caption_digest(said.text): said.text for ready in batch for said in ready.said}
        self._known.look_up(list(texts))
        # the short ones together: little is padded
        new = sorted((text for key, text in texts.items() if key not in self._known), key=len)
        found: list[tuple[str, Vectors]] = []
        if Modality.TEXT not in self._towers:  # found as words alone, until there is one
            return [(text, np.empty((0, 0), np.float32)) for text in new]
        encoder = self._towers[Modality.TEXT].encoder
        for start in range(0, len(new), _CAPTIONS):
            block = new[start : start + _CAPTIONS]
            rows = self._encoding.encode(encoder, Modality.TEXT, block)
            good = usable(rows)
            found += [(text, rows[n : n + 1][good[n : n + 1]]) for n, text in enumerate(block)]
        return found

    def forget(self) -> None:
        """Let go of rows that are committed: all but those of files that are still on their way."""
        under_way = [parcel.decoded for parcel in self._encoding.tags]
        needed = {r.content.digest for some in under_way for r in some if r.content}
        self._owners = {
            d: path for d, path in self._owners.items() if path in self._begun or d in needed
        }
        self.rows = {d: rows for d, rows in self.rows.items() if d in self._owners}
        self._sent = Counter({d: n for d, n in self._sent.items() if d in self._owners})

    def tell(self, report: Report, seconds: float, loading: float) -> None:
        """Note what was encoded in `seconds`, of which `loading` were waited for files."""
        report.encoded += self.encoded
        self._encoding.tell(report, seconds, loading)

    def close(self) -> None:
        """Give up what is under way."""
        self._encoding.close()


def _part(piece: Piece) -> Part:
    return Part(piece.start, piece.end, piece.data if isinstance(piece.data, str) else None)

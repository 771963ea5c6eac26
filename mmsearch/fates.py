"""Files on their way through a run, what becomes of each, and how that is written down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.catalog import Catalog, Content, Part
from mmsearch.catalog.captions import Said, caption_digest
from mmsearch.files import Stat
from mmsearch.records import Caption, Modality, Reason
from mmsearch.scan import Pending, contains

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Vectors
    from mmsearch.spaces import Opened

    Row = NDArray[np.float32]  # (dim,)
    Rows = Mapping[bytes, Sequence[tuple[Row | None, Part]]]  # by digest


@dataclass(slots=True)
class Ready:
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

    def fail(self, reason: Reason, message: str) -> None:
        """It is not indexed, and named."""
        self.content, self.reason, self.message = None, reason, message


class Known(dict[bytes, int]):
    """Content ids by digest, as far as the batch asked."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self._catalog = catalog

    def look_up(self, digests: Sequence[bytes]) -> None:
        """Ask for those that were not asked for yet."""
        self.update(self._catalog.content_ids([d for d in digests if d not in self]))


class Fates:
    """What becomes of each file. `offline` are roots that are not there: nothing left them."""

    def __init__(self, catalog: Catalog, known: Known, towers: Mapping[Modality, Opened]) -> None:
        self._catalog, self._known, self._towers = catalog, known, towers
        self.offline: Sequence[bytes] = ()
        self.moved: set[int] = set()  # files that were found elsewhere

    def of(self, ready: Ready) -> tuple[str, int | None]:
        """added, changed, moved, copied, unchanged, skipped, sidecars, failed or vanished.

        For a moved file also the id of the file that it was.
        """
        pending = ready.pending
        if pending.file_id is not None:
            return "unchanged", None
        if ready.content is None:
            if ready.reason is Reason.UNREADABLE and state_of(pending.path) is None:
                return "vanished", None  # deleted since the scan: nobody's fault
            if ready.reason is Reason.SIDECAR:
                return "sidecars", None
            return "skipped" if ready.reason and ready.reason.skipped else "failed", None
        content_id = self._known.get(ready.content.digest)
        if pending.content_id is not None:
            if pending.gone:
                return "added", None
            same = self._catalog.holds(pending.content_id, ready.content.digest)
            return "unchanged" if same else "changed", None
        if content_id is None:
            return "added", None
        origin = self._origin(content_id)
        if origin is None:
            return "copied", None
        self.moved.add(origin)
        return "moved", origin

    def _origin(self, content_id: int) -> int | None:
        """A file with this content that is no longer where it was, on a root that is there."""
        for id, path, gone in self._catalog.paths_of(content_id):
            offline = any(contains(root, path) for root in self.offline)
            if id not in self.moved and not offline and (gone or state_of(path) is None):
                return id
        return None

    def write(self, ready: Ready, rows: Rows) -> str:
        """Write one file to the catalog; what became of it, in the report's words.

        `rows` are those of new contents, a row for each part.
        """
        path, state, mark = ready.pending.path, ready.state, ready.pending.mark
        fate, origin = self.of(ready)
        if state is None or fate == "vanished":
            # a link that has taken its place is named, and left to the next scan
            return fate if ready.reason is Reason.CHANGED else "vanished"
        if (file_id := ready.pending.file_id) is not None:
            self._catalog.put_mark(file_id, mark)
            self._caption(file_id, ready)
            return fate
        if ready.content is None:
            self._catalog.put_file(path, state, reason=ready.reason, message=ready.message)
            return fate
        if origin is not None:
            self._catalog.move_file(origin, path, state, mark)
            self._caption(origin, ready)
            return fate
        content_id = self._known.get(ready.content.digest)
        if content_id is None:
            own = rows[ready.content.digest]
            if ready.content.modality is not Modality.IMAGE:
                ready.content = replace(ready.content, parts=tuple(part for _, part in own))
            vectors = np.stack([row for row, _ in own if row is not None])
            space_id = self._space_of(ready.content.modality)
            content_id = self._catalog.put_content(ready.content, space_id, vectors)
            self._known[ready.content.digest] = content_id
        else:
            self._catalog.describe(content_id, ready.content.metadata)
        kind = ready.content.modality
        file_id = self._catalog.put_file(
            path, state, content_id=content_id, modality=kind, mark=mark
        )  # fmt: skip
        self._caption(file_id, ready)
        return fate

    def put_captions(self, captions: Sequence[tuple[str, Vectors]]) -> None:
        """Write captions that are new, with their (1, dim) or (0, dim) rows."""
        for text, rows in captions:
            content_id = self._catalog.put_caption(text, self._space_of(Modality.TEXT), rows)
            self._known[caption_digest(text)] = content_id

    def _space_of(self, modality: Modality) -> int:
        return self._towers[modality].space.id if modality in self._towers else 0

    def _caption(self, file_id: int, ready: Ready) -> None:
        """Write what is said of a file."""

        def written(captions: Sequence[Caption]) -> list[Said]:
            return [(self._known[caption_digest(said.text)], said.source) for said in captions]

        beside = written(ready.captions)
        inside = written(ready.content.metadata.captions) if ready.content else None
        ready.retold = self._catalog.put_captions(file_id, beside, inside)


def items(files: Sequence[Ready]) -> int:
    """How many vectors these files and what is said of them come to."""
    return sum(ready.items + len(ready.said) for ready in files)


def state_of(path: bytes) -> tuple[int, int, int] | None:
    """A file's size, date and inode as the catalog keeps them; None where it is not there."""
    try:
        return Stat.of(os.lstat(path)).figures
    except OSError:
        return None

"""A list of answers that turns into a table of pandas and shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, overload

from mmsearch.errors import MissingExtra
from mmsearch.records import Hit, Sort

if TYPE_CHECKING:
    import pandas as pd


class Hits(list[Hit]):
    """The answers to a query: a list, and what there is to say about them in `notes`."""

    def __init__(self, hits: Iterable[Hit] = (), notes: Iterable[str] = ()) -> None:
        super().__init__(hits)
        self.notes = tuple(notes)

    @overload
    def __getitem__(self, at: SupportsIndex) -> Hit: ...
    @overload
    def __getitem__(self, at: slice) -> Hits: ...
    def __getitem__(self, at: SupportsIndex | slice) -> Hit | Hits:
        """One answer, or some of them with the same notes."""
        if isinstance(at, slice):
            return Hits(super().__getitem__(at), self.notes)
        return super().__getitem__(at)

    @property
    def paths(self) -> list[Path]:
        """Where the answers are, in their order."""
        return [hit.path for hit in self]

    def to_pandas(self) -> pd.DataFrame:
        """A row an answer, a column a field of Hit; `path` as a string, `modality` as its name.

        Raises MissingExtra where pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtra("a table of pandas", "pandas") from error
        names = list(Hit.__dataclass_fields__)
        frame = pd.DataFrame(
            [[getattr(hit, name) for name in names] for hit in self], columns=names
        )
        frame["path"] = [str(hit.path) for hit in self]
        frame["modality"] = [str(hit.modality) for hit in self]
        for name in ("score", "relevance", "start", "end"):
            frame[name] = frame[name].astype(float)  # None is NaN, in an empty column as well
        frame["taken"] = pd.to_datetime(frame["taken"])
        return frame

    def _repr_html_(self) -> str:
        """What a notebook shows: a card an answer, with small pictures."""
        from mmsearch.sheet import fragment

        return fragment(self, notes=self.notes)


def arranged(hits: Iterable[Hit], sort: Sort) -> list[Hit]:
    """These answers in another order; each keeps the rank that its score has given it.

    By date the newest is first, and what has no date last.
    """
    ranked = sorted(hits, key=lambda hit: hit.rank)
    if sort is Sort.PATH:
        ranked.sort(key=lambda hit: (bytes(hit.path), hit.start or 0.0))
    elif sort is Sort.DATE:
        undated = [hit for hit in ranked if hit.taken is None]
        dated = [hit for hit in ranked if hit.taken is not None]
        dated.sort(key=lambda hit: hit.taken, reverse=True)  # type: ignore[arg-type,return-value]
        return dated + undated
    return ranked

"""The table backgrounds: what hubness takes off the scores of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import insert, select

from mmsearch.catalog.session import Session
from mmsearch.catalog.tables import backgrounds, contents, vectors
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.records import Ids


class Hubness(Session):
    """The table backgrounds."""

    def pictures(self, space_id: int) -> tuple[Ids, Ids]:
        """The ids, rising, of a space's vectors of pictures; and of those without a constant."""
        query = (
            select(vectors.c.id, backgrounds.c.vector_id.is_(None))
            .join(contents, contents.c.id == vectors.c.content_id)
            .outerjoin(backgrounds, backgrounds.c.vector_id == vectors.c.id)
            .where(vectors.c.space_id == space_id, contents.c.modality == Modality.IMAGE)
            .order_by(vectors.c.id)
        )
        with self.snapshot():
            rows = self._connection.execute(query).all()
        found = np.array([tuple(row) for row in rows], np.int64).reshape(-1, 2)
        return found[:, 0], found[found[:, 1] == 1, 0]

    def put_hubness(self, constants: Iterable[tuple[int, float]]) -> None:
        """Keep constants by vector id, instead of those that these had."""
        rows = [{"vector_id": id, "hubness": constant} for id, constant in constants]
        self._connection.execute(insert(backgrounds).prefix_with("OR REPLACE"), rows)

"""The items that answer a query: by their vectors, of every modality, or by words alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmsearch.catalog import Catalog
from mmsearch.catalog.keywords import expression
from mmsearch.embedding import Asked
from mmsearch.files import well_formed
from mmsearch.language import Query
from mmsearch.records import Item, Modality
from mmsearch.space import Space

if TYPE_CHECKING:
    from mmsearch.filters import Filter
    from mmsearch.records import Ids, Vectors

Scored = tuple[float, int, Item]  # score, vector id, item


def by_vectors(
    catalog: Catalog,
    space: Space,
    asked: Asked,
    k: int,
    modality: Modality | None,
    kept: Filter | None,
) -> list[tuple[float, Item]]:
    """The k best items as (score, item), exactly; those that are gone are left out.

    Sounds, pictures and texts lie at different distances from one and the same query, so that
    their scores do not compare. Items of several modalities are ordered by how many standard
    deviations each score is above what this query scores with unrelated items of its
    modality, and by the scores alone where the encoder does not know that. The k best of all
    are among the k best of each modality, whose order this never changes.
    """
    found: dict[Modality, list[Scored]] = {}
    for kind, all_ids in space.by_modality().items():
        if modality in (None, kind):
            among = all_ids if kept is None else catalog.vector_ids(space.id, kept, kind)
            found[kind] = _nearest(catalog, space, asked.vector, k, among, kept)
    return [(score, item) for score, _, item in _merged(found, asked.background)[:k]]


def _nearest(
    catalog: Catalog, space: Space, vector: Vectors, k: int, among: Ids | None, kept: Filter | None
) -> list[Scored]:
    """The k best of some vectors' items. Of the copies of a picture each is kept or not."""
    wanted = k
    while True:
        ids, scores = space.search(vector, wanted, among)
        score_of = dict(zip(ids.tolist(), scores.tolist(), strict=True))
        matches = catalog.matches(list(score_of), filter=kept)
        if len(matches) >= k or len(ids) < wanted:
            scored = [(score_of[m.vector_id], m.vector_id, m.item) for m in matches]
            return sorted(scored, key=lambda one: (-one[0], one[1], one[2].id))[:k]
        # some stood for files that are gone: leave those out and look again, wider
        space.hide(sorted(set(score_of) - {match.vector_id for match in matches}))
        wanted *= 2


def _merged(
    found: Mapping[Modality, list[Scored]], background: Mapping[Modality, tuple[float, float]]
) -> list[Scored]:
    """Best first; then by vector, by item: the k best are the beginning of the k + 1 best."""
    if not background.keys() >= found.keys():
        background = dict.fromkeys(found, (0.0, 1.0))
    ranked = []
    for kind, items in found.items():
        mean, deviation = background[kind]
        ranked += [
            ((mean - score) / deviation, id, item.id, (score, id, item))
            for score, id, item in items
        ]
    return [one for *_, one in sorted(ranked)]


def by_words(
    catalog: Catalog, query: Query, k: int, modality: Modality | None, kept: Filter | None
) -> list[Item]:
    """The k items whose names, folders or passages have most of a query's words.

    Terms that take away leave out what has one of theirs; pictures and sounds say nothing.
    """
    wanted = [well_formed(words) for weight, words in query.words if weight > 0]
    unwanted = [well_formed(words) for weight, words in query.words if weight < 0]
    asked = expression(wanted, unwanted)
    return catalog.items_by_words(asked, k, modality, kept) if asked else []

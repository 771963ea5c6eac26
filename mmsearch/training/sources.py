"""The pairs of a training run: read once, copies joined, some held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from mmsearch.datasets.pairs import Bad, Pair
from mmsearch.errors import LoadError


def usable_pairs(
    pairs: Iterable[Pair], decode: Callable[[Pair, bytes], Any], workers: int
) -> Iterator[Pair | Bad]:
    """Read and decode every file once: pairs with their digests, or what is wrong, in order.

    `decode` raises LoadError for a file that is no use. Files of equal content are for
    `merged` to join.
    """

    def judge(pair: Pair) -> Pair | Bad:
        try:
            data = pair.read()
            decode(pair, data)
        except LoadError as error:
            return Bad(pair.name, f"{error.reason}: {error}")
        return replace(pair, digest=hashlib.sha256(data).hexdigest())

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(judge, pairs)


def merged(pairs: Iterable[Pair]) -> list[Pair]:
    """Pairs of equal content as one, with the captions of all: a copy is never a negative."""
    found: dict[str, Pair] = {}
    for pair in pairs:
        first = found.setdefault(pair.digest, pair)
        if first is not pair:
            both = tuple(dict.fromkeys(first.captions + pair.captions))
            found[pair.digest] = replace(first, captions=both)
    return list(found.values())


def data_hash(pairs: Iterable[Pair]) -> str:
    """SHA-256 of the content and the captions of all pairs, wherever the files lie."""
    whole = hashlib.sha256()
    for pair in pairs:
        whole.update(json.dumps([pair.digest, pair.captions], ensure_ascii=False).encode())
    return whole.hexdigest()


def held_out(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """(the rest, those held out): the files whose digests come first.

    The same files each time, wherever they lie and whatever their order. At least one file is
    held out unless the share is 0, and at least one is left.
    """
    count = min(len(pairs) - 1, max(1, round(share * len(pairs)))) if share else 0
    chosen = {pair.digest for pair in sorted(pairs, key=lambda pair: pair.digest)[:count]}
    rest = [pair for pair in pairs if pair.digest not in chosen]
    return rest, [pair for pair in pairs if pair.digest in chosen]

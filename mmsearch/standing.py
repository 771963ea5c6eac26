"""What a library holds, and how well its search does, for `status`."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsearch.backgrounds import sentences_of
from mmsearch.catalog import Catalog
from mmsearch.space import Space
from mmsearch.spaces import Spaces


def standing(catalog: Catalog, spaces: Spaces, folder: Path, *, measure: bool) -> dict[str, Any]:
    """Roots, counts, models, disk use, caches; with `measure`, recall and speed measured now."""
    first, *_ = told = [_told(catalog, one) for one in spaces.every]
    banks = {one.space.id: sentences_of(one.encoder) for one in spaces.opened}
    for space, one in zip(spaces.every, told, strict=True):
        one["search"] = space.searched(banks.get(space.id), anew=measure)
    late = waiting(catalog, spaces)
    return {
        "index": str(folder),
        **{key: first[key] for key in ("model", "fingerprint", "dim")},
        "roots": [os.fsdecode(path) for _, path, _ in catalog.roots()],
        **catalog.counts(),
        "labelled": catalog.count_labelled(),
        "waiting": late[1] if late else 0,
        "bytes": sum(_size(path) for path in folder.rglob("*")),
        "queries": {"kept": sum(len(space.asked.rows()) for space in spaces.every)},
        "cache": _together([one["cache"] for one in told]),
        "spaces": told,
    }


def waiting(catalog: Catalog, spaces: Spaces) -> tuple[str, int] | None:
    """The older built-in model that made the library, and how many files wait for a newer one."""
    count = catalog.count_waiting([space.id for space in spaces.older])
    return (spaces.older[-1].encoder_name, count) if count else None


def _told(catalog: Catalog, space: Space) -> dict[str, Any]:
    """What a space holds, and what it has yet to encode of what its model is noted to read."""
    state, (_, kinds) = space.state(), catalog.models()[space.id]
    return {
        "model": space.encoder_name,
        "fingerprint": space.fingerprint,
        "dim": space.dim,
        "modalities": sorted(kinds),
        "vectors": catalog.count_vectors(space.id)[0],
        "missing": sum(catalog.count_missing(space.id, kinds).values()),
        "cache": {
            "rows": state.rows, "fresh": state.fresh, "dead": state.dead, "problem": state.problem
        },
    }  # fmt: skip


def _together(caches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How the caches of all spaces stand, and the first problem that one of them has."""
    problems = (one["problem"] for one in caches if one["problem"])
    counts = {key: sum(one[key] for one in caches) for key in ("rows", "fresh", "dead")}
    return counts | {"problem": next(problems, None)}


def _size(path: Path) -> int:
    try:
        status = path.lstat()
    except OSError:
        return 0  # gone since the folder was listed, as a writer's log may be
    return status.st_size if stat.S_ISREG(status.st_mode) else 0

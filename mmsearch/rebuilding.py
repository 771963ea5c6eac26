"""Large caches, built while nobody waits: readers search the old one, and writers may write.

The files of a large library take minutes. They are built from a snapshot of the catalog, under a
lock of their own, and only the switch to them is the one writer's: a transaction of milliseconds,
which looks whether another cache was written meanwhile. Vectors that were added since the snapshot
are searched beside the new files, as they were beside the old ones. Killed at any point, the
catalog names the old files, whole as they were, and the next `mmsearch index` begins anew.
"""

from __future__ import annotations

from pathlib import Path

from mmsearch import backgrounds
from mmsearch.catalog import Catalog
from mmsearch.errors import LibraryLocked, StorageFailed
from mmsearch.locking import WriterLock
from mmsearch.space import Space
from mmsearch.spaces import Opened, every_space, spaces_in

_LATER = "mmsearch index builds it"


def rewrite(catalog: Catalog, folder: Path, *, always: bool = True) -> None:
    """Write all caches anew at once, of what is there now, or (not `always`) those that are
    outdated. The caller is the one writer.

    Indexes are tuned and measured anew, with the sentences of those encoders that can be opened.
    Raises DiskFull, StorageFailed.
    """
    spaces = spaces_in(catalog, folder)
    large = any(space.large() and (always or space.outdated()) for space in spaces)
    opened = every_space(catalog, folder).opened if large else ()
    banks = {one.space.id: backgrounds.sentences_of(one.encoder) for one in opened}
    for space in spaces:
        space.write_cache(always=always, sentences=banks.get(space.id))


def rebuild(folder: Path, one: Opened) -> list[str]:
    """Build the cache of this space and have it searched; what there is to say.

    The lock of the one writer must be free, or is waited for by a later run. Raises DiskFull,
    StorageFailed, LibraryDamaged.
    """
    database, cache = folder / "library.db", folder / "cache"
    row = (one.space.id, one.space.encoder_name, one.space.fingerprint, one.space.dim)
    sentences = backgrounds.sentences_of(one.encoder)
    cache.mkdir(mode=0o700, exist_ok=True)
    try:
        with WriterLock(cache / "LOCK"):
            with Catalog.open(database) as catalog:
                draft = Space(catalog, cache, row).draft(sentences, later=True)
            with WriterLock(folder / "LOCK"), Catalog.open(database, write=True) as catalog:
                if Space(catalog, cache, row).switch(draft):
                    return draft.notes
    except LibraryLocked:
        return [f"another run is at work: {_LATER} once that has ended"]
    except StorageFailed as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        # taken away with all files of before by one who wrote the cache meanwhile
    return [f"the library changed while its index was built: {_LATER} anew"]

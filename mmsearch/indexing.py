"""One run over a library: files first, then what is known and some space has no vectors of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mmsearch import backgrounds, engines
from mmsearch.catalog import Catalog
from mmsearch.files import WalkRules
from mmsearch.filling import Fill
from mmsearch.ingest import Ingest, Progress
from mmsearch.records import Modality
from mmsearch.settings import Settings
from mmsearch.space import Space
from mmsearch.spaces import Opened, Spaces, is_older

LONGEST_LOG = 64e6  # bytes; left alone, SQLite keeps a log at some 4 MB

_MANY = {Modality.IMAGE: "pictures", Modality.AUDIO: "sounds", Modality.TEXT: "texts"}


class Indexing:
    """One run of the one writer. `committed` files are indexed for good."""

    def __init__(
        self,
        catalog: Catalog,
        spaces: Spaces,
        settings: Settings,
        rules: WalkRules,
        *,
        dry_run: bool = False,
        rehash: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._catalog, self._spaces, self._settings, self._stop = catalog, spaces, settings, stop
        self._towers = spaces.towers()
        self._ingest = Ingest(catalog, self._towers, settings, rules, dry_run, rehash, stop)
        self.report = self._ingest.report
        self.report.dry_run = dry_run
        self.later: list[Opened] = []  # whose caches are to be built when the lock is free again

    @property
    def committed(self) -> int:
        """How many files this run has indexed for good."""
        return self._ingest.committed

    def run(self, paths: Sequence[bytes]) -> Iterator[Progress]:
        """Go over the paths (none: all known roots), then over what is missing."""
        self.report.notes += [
            f"{space.encoder_name} has encoded nothing in this run: {why}"
            for space, why in self._spaces.closed
        ]
        wishes = engines.wished(self._catalog, self._settings)  # refused before the work begins
        engines.check(wishes, {one.space.dim for one in self._spaces.opened})
        yield from self._ingest.run(paths)
        if self.report.dry_run:
            return
        engines.remember(self._catalog, wishes)
        if not self._settings.keep_queries:
            for space in self._spaces.every:
                space.asked.forget()
        if len(self._spaces.opened) + len(self._spaces.older) > 1:
            for one in self._spaces.opened:
                if not self.report.interrupted:
                    yield from self._fill(one)
        if not self.report.interrupted:
            for one in self._spaces.opened:
                changed = backgrounds.refresh(self._catalog, one.space, one.encoder)
                if (changed or one.space.outdated()) and one.space.large():
                    one.space.announce()
                    self.later.append(one)
                    continue
                sentences = backgrounds.sentences_of(one.encoder)
                self.report.notes += one.space.write_cache(always=changed, sentences=sentences)
        for space in self._spaces.older:
            space.drop_if_empty()
        if (size := self._catalog.log_bytes()) > LONGEST_LOG:
            self.report.notes.append(
                f"{self._catalog.path}-wal has {size / 1e6:,.0f} MB: another program reads the "
                "library and keeps it from shrinking; it does when that program ends"
            )

    def _fill(self, one: Opened) -> Iterator[Progress]:
        older = [
            space.id for space in self._spaces.older
            if is_older(space.encoder_name, one.encoder.name)
        ]  # fmt: skip
        first = self._towers.get(Modality.AUDIO)
        want = first.encoder.audio_input if first else None
        fill = Fill(
            self._catalog, one, self._settings, self.report, self._stop, older,
            want.window if want else None,
        )  # fmt: skip
        if fill.total:
            yield from fill.run()


def announcements(catalog: Catalog, spaces: Spaces) -> list[str]:
    """What is to be encoded of what is known already, a sentence a space."""
    told = []
    older: Sequence[Space] = spaces.older
    if older and (count := catalog.count_waiting([space.id for space in older])):
        newest = next(
            one.encoder.name for one in spaces.opened
            if is_older(older[-1].encoder_name, one.encoder.name)
        )  # fmt: skip
        told.append(
            f"this library was made by {older[-1].encoder_name}: {count:,} files are encoded anew "
            f"with {newest}"
        )
    if len(spaces.opened) > 1:
        for one in spaces.opened:
            missing = catalog.count_missing(one.space.id, one.encoder.modalities)
            if missing:
                what = ", ".join(f"{count:,} {_MANY[kind]}" for kind, count in missing.items())
                told.append(f"{one.encoder.name} has yet to encode what is known: {what}")
    return told

"""The library: one catalog and its spaces in one folder. What a user of the API holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mmsearch.access import Access
from mmsearch.catalog import Catalog
from mmsearch.encoders import Encoder, open_encoder
from mmsearch.errors import (
    DiskFull,
    EncoderMismatch,
    LibraryDamaged,
    UsageError,
)
from mmsearch.files import WalkRules, display
from mmsearch.hits import Hits
from mmsearch.joint import Joint
from mmsearch.language import Query, said
from mmsearch.querylog import QueryLog
from mmsearch.records import Failure, Label, Modality, Report
from mmsearch.search import How, Options, Search, by_words, fitting, how_to
from mmsearch.settings import Settings, load_settings
from mmsearch.spaces import Opened, Spaces, begin_spaces
from mmsearch.standing import standing, waiting

if TYPE_CHECKING:
    from mmsearch.checking import Depth
    from mmsearch.indexing import Indexing
    from mmsearch.ingest import Progress
    from mmsearch.labels import Vocabulary
    from mmsearch.repairing import Repaired

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_LOOKS = 5  # of a check, until no writer has replaced what it looks at


def open_library(
    path: str | os.PathLike[str] | None = None,
    *,
    model: str | Sequence[str] | None = None,
    **settings: Any,
) -> Library:
    """The library in a folder; without a path, the one that the settings name.

    A library remembers its models, and one or several that are named here are those to ask;
    `index` adds them where they are new. The settings' own is for a library that has none yet.
    Nothing is created before the first `index`. Other settings (`workers`, `batch`,
    `timeout`, `max_megapixels`, `max_file_mb`) may be given by name. Raises UsageError for
    a setting that does not exist.
    """
    models = (model,) if isinstance(model, str) else tuple(model or ())
    usual = models[0] if models else None
    return Library(load_settings(index=path, model=usual, **settings), models)


class Library:
    """A searchable collection of files. Use `open_library` to get one.

    Reading is safe beside a writer in another process; one object may be shared by threads.
    """

    def __init__(self, settings: Settings, models: Sequence[str] = ()) -> None:
        self.settings = settings
        self.folder = settings.index
        self.unbuilt: list[Opened] = []  # spaces whose indexes `index` has left to `build`
        self._access = Access(self.folder, tuple(models), settings.model)

    @property
    def models(self) -> Sequence[str]:
        """The models that are asked for; none: what the library has."""
        return self._access.models

    @property
    def encoder(self) -> Encoder:
        """The encoder that the settings name."""
        return open_encoder(self.settings.model)

    # -- writing -----------------------------------------------------------------------

    def index(
        self,
        paths: Paths = (),
        *,
        exclude: Sequence[str] = (),
        include_hidden: bool = False,
        dry_run: bool = False,
        rehash: bool = False,
        progress: Callable[[Progress], None] | None = None,
        stop: Callable[[], bool] | None = None,
        note: Callable[[str], None] = lambda line: None,
        build: bool = True,
    ) -> Report:
        """Bring the library up to date with files and folders; without paths, with all roots.

        `exclude` are globs on names or on paths below a root. `rehash` reads files again
        whose size and date have not changed. `dry_run` writes nothing. `progress` is called
        as the run goes on; `stop` is asked between files, and True ends the run after a
        commit; `note` is told what ought to be known before the work begins. Without `build` the
        indexes of a large library are left `unbuilt`: see there. Returns a Report of counts and
        failures.

        Every model of the library encodes what it reads, and one that is new to it also what is
        known already. Raises UsageError for a path that is not there, LibraryLocked beside another
        writer, EncoderMismatch, DiskFull, StorageFailed, LibraryDamaged, LibraryReadOnly.
        """
        from mmsearch.indexing import Indexing, announcements  # a query has no need of these

        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        asked = [os.path.abspath(os.fsencode(path)) for path in given]
        rules = WalkRules(
            exclude=tuple(os.fsencode(glob) for glob in exclude),
            include_hidden=include_hidden,
            without=frozenset({os.path.realpath(os.fsencode(self.folder))}),
        )
        if not self._access.database.exists():
            self._refuse_empty_start(asked)
        work: dict[str, Any] = {"rehash": rehash, "stop": stop or (lambda: False)}
        run = None
        try:
            with self._access.looking() if dry_run else self._access.writing(make=True) as catalog:
                spaces = begin_spaces(
                    catalog, self.folder, self.models, self.settings.model, dry_run=dry_run
                )
                for line in announcements(catalog, spaces):
                    note(line)
                run = Indexing(catalog, spaces, self.settings, rules, dry_run=dry_run, **work)
                report = _followed(run, asked, progress)
            self.unbuilt = run.later
            if build:
                report.notes += self.build()
            return report
        except DiskFull as error:
            count = run.committed if run else 0
            raise DiskFull(
                f"disk full, {count} files committed, rerun to continue ({error})"
            ) from error

    def build(self) -> list[str]:
        """Build the indexes of a large library that the last `index` here has left; what there is
        to say. That takes a while, in which everything is found and may be changed; cut off
        anywhere, it is left to the next `index`. Raises DiskFull, StorageFailed, LibraryDamaged.
        """
        from mmsearch.rebuilding import rebuild

        notes = []
        while self.unbuilt:
            notes += rebuild(self.folder, self.unbuilt.pop(0))
        return notes

    def _refuse_empty_start(self, asked: list[bytes]) -> None:
        if not asked:
            raise UsageError(f"nothing is indexed in {self.folder} yet: name a folder")
        for path in asked:
            if not os.path.exists(path):
                raise UsageError(f"no such file or folder: {display(path)}")

    def forget(self, paths: Paths = (), *, gone: bool = False) -> int:
        """Drop files from the library, never from the disk; returns how many.

        `paths` are roots, folders or files; `gone` drops what `index` found to be missing.
        Their vectors go with them, and the freed pages are given back. Raises UsageError for
        a path that the library does not know.
        """
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        if not given and not gone:
            raise UsageError("name what to forget: a path that was indexed, or --gone")
        from mmsearch.rebuilding import rewrite

        with self._access.writing() as catalog:
            ids = set(catalog.gone_files()) if gone else set()
            for path in given:
                ids |= self._known_below(catalog, os.fsencode(path))
            with catalog.transaction():
                catalog.drop_files(sorted(ids))
                for path in given:
                    for spelling in _spellings(os.fsencode(path)):
                        catalog.drop_roots_below(spelling)
            rewrite(catalog, self.folder)
            catalog.vacuum()
        return len(ids)

    def forget_queries(self) -> int:
        """Drop what was kept of past queries (see the setting `keep_queries`); returns how many."""
        with self._access.open_catalog() as catalog:  # whatever opens its encoders
            cache, rows = self.folder / "cache", catalog.spaces()
        return sum(QueryLog(cache, fingerprint, dim).forget() for _, _, fingerprint, dim in rows)

    def _known_below(self, catalog: Catalog, path: bytes) -> set[int]:
        roots = [root for _, root, _ in catalog.roots()]
        for spelling in _spellings(path):
            ids = set(catalog.files_below(spelling))
            if ids or spelling in roots:
                return ids
        raise UsageError(f"{display(path)} is not in the library; mmsearch status lists its roots")

    # -- labels ------------------------------------------------------------------------

    def label(
        self,
        vocabulary: str | Path | Vocabulary | Iterable[str],
        *,
        templates: Sequence[str] = (),
        top: int = 1,
        modality: str | Modality | None = None,
        where: str | None = None,
        min_relevance: float = 0.0,
        store: bool = True,
    ) -> list[Label]:
        """Label what is indexed with the words of a vocabulary: (path, modality, label, relevance).

        `vocabulary` is a list, "cat,dog,car", a file with a label a line, or a mapping from
        labels to their prompts; mmsearch.labels says what prompts and relevance are. Every
        picture, sound and text that `modality` and `where` let through gets the `top` labels
        that fit it best, as far as their relevance is `min_relevance` or more. With `store`
        they take the place of those that it had, and `query` finds it by them.

        Raises UsageError for a vocabulary, a template or a filter that is not understood,
        LibraryMissing, EncoderMismatch, and with `store` LibraryLocked beside another writer.
        """
        from mmsearch import labels

        words = labels.read_vocabulary(vocabulary)
        labels.check_templates(templates)
        if top < 1:
            raise UsageError(f"top is how many labels a file gets, at least 1, not {top}")
        kind, kept = fitting(modality, where)
        with self._labelling(store) as (catalog, spaces):
            if not spaces.opened:
                raise EncoderMismatch(
                    f"{self.folder} was made by {spaces.older[-1].encoder_name}, whose vectors do "
                    f"not compare with those of {self.encoder.name}; run mmsearch index first"
                )
            found: labels.Labelled = {}
            for found_in, one in spaces.in_words().items():
                if kind in (None, found_in):
                    found |= labels.labelled(
                        catalog, one.space, one.encoder, words,
                        templates=templates, top=top, modality=found_in, kept=kept,
                        least=min_relevance,
                    )  # fmt: skip
            if store:
                with catalog.transaction():
                    catalog.put_labels(found)
            return labels.by_file(catalog.files_with_contents(kind, kept), found)

    def labels(
        self, *, modality: str | Modality | None = None, where: str | None = None
    ) -> list[Label]:
        """The labels that are stored, by path, the most relevant of a file first."""
        from mmsearch.labels import by_file

        kind, kept = fitting(modality, where)
        with self._access.reading() as (catalog, _), catalog.snapshot():
            return by_file(catalog.files_with_contents(kind, kept), catalog.labels())

    def clear_labels(
        self, *, modality: str | Modality | None = None, where: str | None = None
    ) -> int:
        """Take the labels from what `modality` and `where` let through; how many files had any."""
        from mmsearch.labels import by_file

        kind, kept = fitting(modality, where)
        with self._labelling(True) as (catalog, _):
            files, stored = list(catalog.files_with_contents(kind, kept)), catalog.labels()
            had = {one.path for one in by_file(files, stored)}
            with catalog.transaction():
                catalog.put_labels({id: () for id, *_ in files if id in stored})
        return len(had)

    @contextmanager
    def _labelling(self, write: bool) -> Iterator[tuple[Catalog, Spaces]]:
        """The catalog and its spaces as a reader has them, or as the one writer."""
        if write:
            with self._access.writing() as catalog:
                yield catalog, self._access.spaces(catalog)
        else:
            with self._access.reading() as found, found[0].snapshot():
                yield found

    # -- reading -----------------------------------------------------------------------

    def query(self, q: str | Query, k: int = 10, **how: Unpack[Options]) -> Hits:
        """The k items that answer a query best, best first: words, or a Query of terms.

        A string may hold conditions: '"a dog" AND NOT "a ball"'. By name there may be given

        - `modality`: only items of that kind; `where`: only what fits a filter such as
          "width > height and taken >= 2024", in the language that mmsearch.filters describes.
          Every item that fits is looked at;
        - `all`: without the cut where relevance ends; `min_relevance`: cut there, from 0 to 1;
        - `fusion`: how the terms of a sum become one value ("sum", "mean", "product", "max");
          `subtract`: take unwanted terms off the sum's vector, instead of leaving out what
          they describe better (mmsearch.fusion has both);
        - `hybrid`: "auto" looks at vectors, captions and words, "off" at the items' own vectors
          alone, "only" at words alone;
        - `sort`: "score", "date" (newest first) or "path"; `group_duplicates`: fold what says
          the same into the best of it; `explain`: what carried each hit, in its `why`;
        - `exclude`: files that are not to be among the answers.

        Files that wait to be encoded anew (see `waiting`) are found by words alone, without a
        score. A hit's score is its raw inner product with the renormalised mean of what is
        wanted. Raises UsageError for a query that asks for nothing and for a filter that is not
        understood, LibraryMissing, LibraryDamaged, EncoderMismatch, LoadError for a bad file.
        """
        [hits] = self.query_many([q], k, **how)
        return hits

    def query_many(
        self, queries: Iterable[str | Query], k: int = 10, **how: Unpack[Options]
    ) -> list[Hits]:
        """The answers to each of many queries, all answered alike (see `query`), in their order.

        They are encoded together and compared with the library as matrix products.
        """
        wanted = replace(how_to(k, how), keep=self.settings.keep_queries)
        asked = [said(q) if isinstance(q, str) else q for q in queries]
        with self._access.reading() as (catalog, spaces):
            if not spaces.opened and not all(by_words(query) for query in asked):
                raise EncoderMismatch(
                    f"{self.folder} was made by {spaces.older[-1].encoder_name}, whose vectors do "
                    f"not compare with those of {self.encoder.name}; run mmsearch index, or ask in "
                    "words"
                )
            found = list(_search(catalog, spaces, wanted).run(asked))
        closed = [f"{space.encoder_name} was not asked: {why}" for space, why in spaces.closed]
        return [Hits(hits, [*hits.notes, *closed]) for hits in found] if closed else found

    def waiting(self) -> tuple[str, int] | None:
        """The older built-in model that made this library, and how many files still wait for
        `index` to encode them anew; None when none does.
        """
        with self._access.reading() as (catalog, spaces), catalog.snapshot():
            return waiting(catalog, spaces)

    def status(self, *, measure: bool = False) -> dict[str, Any]:
        """What the library holds: roots, counts, model, disk use, and the state of its cache.

        With `measure`, recall and speed of the search are measured now, instead of what was
        measured when its indexes were built.
        """
        with self._access.reading() as (catalog, spaces), catalog.snapshot():
            found = standing(catalog, spaces, self.folder, measure=measure)
        found["queries"]["keep"] = self.settings.keep_queries
        return found

    def errors(self, *, skipped: bool = False) -> list[Failure]:
        """Files that could not be read (or, with `skipped`, are of no supported type)."""
        with self._access.reading() as (catalog, _):
            return [
                Failure(Path(os.fsdecode(path)), reason, message)
                for path, reason, message in catalog.problems(skipped=skipped)
            ]

    def check(self, depth: str | Depth = "full", *, sample: int = 64, seed: int = 0) -> list[str]:
        """What is wrong, a sentence each with what to do; empty when the library is sound.

        "quick" has SQLite look at its pages and compares counts and fingerprints; "full" reads
        every vector, every word and every cached row, and the model's files; "deep" reads the
        files as well, and encodes `sample` of them again, chosen by `seed`. Writes nothing.
        """
        from mmsearch import checking
        from mmsearch.comparing import compared

        asked = checking.depth_of(depth)
        quick = asked is checking.Depth.QUICK
        try:
            with self._access.reading() as (catalog, spaces):
                for _ in range(_LOOKS):
                    version = catalog.data_version()
                    with catalog.snapshot():
                        found = checking.database(catalog, quick=quick)
                        found = found or checking.caches(spaces.every, quick=quick)
                    if not found or version == catalog.data_version():
                        break
                if asked is checking.Depth.DEEP and not found:
                    found += compared(catalog, spaces.towers(), self.settings, sample, seed)
        except LibraryDamaged as error:
            return [str(error)]
        if quick:
            return found
        closed = [(space.encoder_name, why) for space, why in spaces.closed]
        found += [line for encoder in spaces.encoders for line in checking.model(encoder)]
        return found + [f"{name} cannot be opened: {why}" for name, why in closed]

    def repair(
        self, approve: Callable[[Repaired], bool] = lambda plan: True, *, dry_run: bool = False
    ) -> Repaired:
        """Mend what `check` finds wrong; see mmsearch.repairing. What was done, or would be.

        `approve` is told before anything is changed, and may say no; with `dry_run` nobody is
        asked. library.db as it was is kept. Raises LibraryMissing, LibraryLocked beside a
        writer, SchemaMismatch for a newer library, DiskFull, StorageFailed, LibraryReadOnly.
        """
        from mmsearch.repairing import repair

        self.close()
        return repair(self.folder, None if dry_run else approve)

    def backup(self, target: str | os.PathLike[str], *, force: bool = False) -> int:
        """Copy the library to a new folder, also while it is written; how many files it has.

        The copy is read through before it is named, and opens as a library anywhere. `force`
        replaces an earlier backup. Raises LibraryMissing, LibraryDamaged, UsageError, DiskFull.
        """
        from mmsearch.backup import backup

        return backup(self.folder, Path(target), force=force)

    def restore(self, source: str | os.PathLike[str]) -> tuple[int, Path | None]:
        """Have this library be what a backup of it was: how many files it has now, and the
        folder in which library.db as it was is kept, if there was one.

        Raises LibraryMissing where `source` is no backup, LibraryDamaged, LibraryLocked.
        """
        from mmsearch.backup import restore

        self.close()
        return restore(self.folder, Path(source))

    def close(self) -> None:
        """Let go of the files. The object may be used again."""
        self._access.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _search(catalog: Catalog, spaces: Spaces, how: How) -> Search | Joint:
    """What answers queries: one space, several joined, or of an older model's the words alone."""
    if not spaces.opened:
        return Search(catalog, spaces.older[-1], None, how)
    found = [Search(catalog, one.space, one.encoder, how) for one in spaces.opened]
    return found[0] if len(found) == 1 else Joint(catalog, found, how)


def _followed(
    run: Indexing, paths: list[bytes], progress: Callable[[Progress], None] | None
) -> Report:
    for step in run.run(paths):
        if progress:
            progress(step)
    return run.report


def _spellings(path: bytes) -> list[bytes]:
    """A path as it may stand in the catalog: its links resolved, or (it may be gone) not."""
    return [os.path.realpath(path), os.path.abspath(path)]

"""A million files: the scan takes a fixed number of descriptors, and memory for one folder's names.

    PYTHONPATH=tests python -m campaigns.many_files --size 1000000

Row 37 of the table of failures. It is the scan that is tried: what is on the disk against what the
catalog knows, with the files to read written to a spool as `index` does it. Nothing is decoded. The
files are further names of a single one, in memory; the catalog is filled by SQL. Each of two
layouts, all in one folder and a thousand to a folder, is scanned when nothing is known, when
everything is, and when all files are gone, under a limit of 64 descriptors. A finding is

- another number of files to read, unchanged or missing than there are;
- a descriptor more than a scan of a thousand files takes;
- more memory than so many bytes for each file of the largest folder, beside a fixed amount.
"""

from __future__ import annotations

import marshal
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from campaigns.report import Report, arguments, reported
from PIL import Image
from sqlalchemy import insert

from mmsearch.catalog import Catalog
from mmsearch.catalog.tables import files
from mmsearch.decoding import SUFFIXES
from mmsearch.files import Stat, WalkRules
from mmsearch.records import Reason
from mmsearch.scan import Scan, Scope

A_FILE = 1000  # bytes of memory, for each file of the largest folder
FIXED = 32e6  # bytes, whatever there is
DESCRIPTORS = 64
_A_FOLDER = 1000
_AT_ONCE = 10_000  # rows written at a time


def layout(base: Path, size: int, a_folder: int) -> Iterator[tuple[bytes, list[bytes]]]:
    """Folders with the names in them."""
    for first in range(0, size, a_folder):
        folder = os.path.join(os.fsencode(base), b"%04d" % (first // a_folder))
        yield folder, [b"%07d.jpg" % n for n in range(first, min(first + a_folder, size))]


def make(base: Path, size: int, a_folder: int) -> None:
    """Write the files."""
    one = os.fsencode(base.with_suffix(".jpg"))
    Image.new("RGB", (8, 8)).save(os.fsdecode(one))
    for folder, names in layout(base, size, a_folder):
        os.makedirs(folder)
        at = os.open(folder, os.O_RDONLY)
        for name in names:
            os.link(one, name, dst_dir_fd=at)
        os.close(at)


def know(database: Path, base: Path, size: int, a_folder: int) -> None:
    """Have the catalog know them all, as files that were refused for good."""
    size_, mtime, inode = Stat.of(os.stat(base.with_suffix(".jpg"))).figures
    values = {"size": size_, "mtime_ns": mtime, "inode": inode, "added_at": 0, "sidecars": 0}
    values["reason"] = Reason.CORRUPT
    catalog = Catalog.open(database, write=True)
    with catalog.transaction():
        for folder, names in layout(base, size, a_folder):
            values["folder_id"] = catalog.folder_id(folder)
            for start in range(0, len(names), _AT_ONCE):
                rows = [values | {"name": name} for name in names[start : start + _AT_ONCE]]
                catalog._connection.execute(insert(files), rows)
    catalog.close()


@dataclass(frozen=True)
class Looked:
    """One scan: files to read, unchanged and gone, its descriptors, and bytes of memory taken."""

    found: tuple[int, int, int]
    descriptors: int
    memory: int


def look(database: Path, folder: Path) -> Looked:
    """Scan, and measure."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    held, before = _descriptors(), _memory("VmRSS")
    catalog = Catalog.open(database)
    scan = Scan(catalog, WalkRules(), frozenset(), (), SUFFIXES)
    pending, descriptors = 0, 0
    with tempfile.TemporaryFile(dir=database.parent) as spool:
        scope = Scope(os.fsencode(folder), folder.stat().st_dev)
        for met, found in enumerate(scan.run(scope)):
            if found is not None:
                marshal.dump(astuple(found), spool)
                pending += 1
            if met % _A_FOLDER == 0:
                descriptors = max(descriptors, _descriptors() - held)
    memory = _memory("VmHWM") - before
    catalog.close()
    return Looked((pending, scan.unchanged, len(scan.missing)), descriptors, memory)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) * 1024


def scans(scratch: Path, size: int, a_folder: int) -> Iterator[tuple[str, Looked]]:
    """The three scans of a layout. Each step is made in a process of its own: what one leaves
    behind in memory is not there for the next.
    """
    photos, database = scratch / "photos", scratch / "library.db"
    _apart(make, photos, size, a_folder)
    Catalog.create(database).close()
    yield "all new", _apart(look, database, photos)
    _apart(know, database, photos, size, a_folder)
    yield "all known", _apart(look, database, photos)
    shutil.rmtree(photos)
    photos.mkdir()
    yield "all gone", _apart(look, database, photos)
    photos.rmdir()
    database.unlink()


def _apart(step: Callable[..., Any], *given: Any) -> Any:
    """Call it in a new process. That is not forked from this one: other threads may be here, and
    a lock that one of them holds would stay locked in the copy for ever.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as process:
        return process.submit(step, *given).result()


def campaign(size: int, report: Report, scratch: Path) -> None:
    """Both layouts, and before them a thousand files, to know what is used in any case."""
    usual = max(one.descriptors for _, one in scans(scratch, _A_FOLDER, _A_FOLDER))
    megabytes: dict[str, int] = {}
    report.fact(descriptors=usual, megabytes=megabytes)
    for largest in (size, _A_FOLDER):
        for name, one in scans(scratch, size, largest):
            where = f"{name}, {largest:,} in a folder"
            megabytes[where] = round(one.memory / 1e6)
            report.count("scans")
            told = dict(zip(("all new", "all known", "all gone"), one.found, strict=True))
            if told != dict.fromkeys(told, 0) | {name: size}:
                report.found(where, f"found {told}")
            if one.descriptors > usual:
                report.found(where, f"{one.descriptors} descriptors, not {usual}")
            if one.memory > FIXED + A_FILE * largest:
                report.found(where, f"{one.memory:,} bytes")
    report.step(size)


def main() -> int:
    """Run it from a command line."""
    given = arguments(__doc__, "many_files.json", 1_000_000).parse_args()
    with reported("many files", given) as (report, scratch):
        campaign(given.size, report, scratch)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())

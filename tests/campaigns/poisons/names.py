"""Names."""

from __future__ import annotations

import os

from campaigns.poisons.building import Kind, jpeg
from hostile import INDEXED, UNSEEN, Maker

from mmsearch.records import Reason


def _named(pattern: bytes, becomes: str = INDEXED) -> Kind:
    def write(make: Maker, folder: str, number: int) -> None:
        above, name = os.path.split(pattern.replace(b"#", b"%d" % number))
        data = jpeg(make) if becomes != Reason.TYPE_MISMATCH else b"no picture"
        make.put(os.path.join(folder.encode(), above, name[:255]), data, becomes)

    return write


KINDS: dict[str, Kind] = {
    "name-latin-1": _named(b"caf\xe9 #.jpg"),
    "name-no-utf-8": _named(b"\xff\xfe\x80#.jpg"),
    "name-newline": _named(b"new\nline\n#.jpg"),
    "name-escape": _named(b"\x1b[31mred\x1b[0m\x07#.jpg"),
    "name-right-to-left": _named("gpj.\u202efdp#.jpg".encode()),
    "name-dash": _named(b"-rf #.jpg"),
    "name-255-bytes": _named(b"#" + b"n" * 300),
    "name-surrogate": _named(b"\xed\xa0\x80surrogate#.jpg"),
    "name-shell": _named(b"$(reboot) `id` '; DROP TABLE files; -- %s%n#.jpg"),
    "name-glob": _named(b" *?[a-z]{}~ # .jpg"),
    "name-deep": _named(b"deep/" * 200 + b"down-#.jpg"),
    "name-hidden": _named(b".hidden-#.jpg", UNSEEN),
    "name-of-bad": _named(b"bad \xfe\n\x1b[2J#.jpg", str(Reason.TYPE_MISMATCH)),
}

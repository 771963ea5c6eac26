"""Decoders gone wild, and what happens to a file while it is read."""

from __future__ import annotations

from collections.abc import Callable

from campaigns.poisons.building import files, jpeg
from hostile import FAILED, INDEXED, UNSEEN, Maker

from mmsearch.records import Reason


def _evil(name: str) -> tuple[str, Callable[[Maker], bytes]]:
    return ".jpg", lambda make: jpeg(make) + b"evil:" + name.encode()


KINDS = files(
    Reason.CRASHED, evil_segfault=_evil("segfault"), evil_abort=_evil("abort"),
    evil_exit=_evil("exit-0"), evil_lie=_evil("lie"), evil_orphan=_evil("orphan"),
)  # fmt: skip
KINDS |= files(Reason.TIMED_OUT, evil_sleep=_evil("sleep"), evil_spin=_evil("spin"))
KINDS |= files(Reason.OUT_OF_MEMORY, evil_swell=_evil("swell"))
KINDS |= files(FAILED, evil_recurse=_evil("recurse"))
KINDS |= files(
    INDEXED, evil_babble=_evil("babble"), evil_once=(".jpg", lambda make: _even(jpeg(make)))
)
KINDS |= files(UNSEEN, evil_vanishes=(".jpg", jpeg))
KINDS |= files(Reason.CHANGED, evil_grows=(".jpg", jpeg), evil_is_a_link=(".jpg", jpeg))


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)

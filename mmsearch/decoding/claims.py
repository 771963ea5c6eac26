"""What a worker claims, held against what can be true: it may be in the hands of a hostile file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.decoding.jobs import Job, Outcome, Piece, Wants
from mmsearch.records import Caption, Metadata, Modality, Reason
from mmsearch.sidecars import MOST, clean

if TYPE_CHECKING:
    from mmsearch.records import Pixels, Samples


def piece(job: Job, answer: dict[str, Any], data: bytes, number: int, wants: Wants) -> Piece:
    """A part as the worker sent it. Raises ValueError or TypeError when it is none."""
    wants = wants.cut(job.window)
    modality = Modality(answer["modality"])
    content: Pixels | Samples | str
    if modality is Modality.IMAGE and wants.image:
        size = wants.image.size
        content = np.frombuffer(data, np.uint8).reshape(size, size, 3)
    elif modality is Modality.AUDIO and wants.audio:
        content = np.frombuffer(data, "<f4")
        if not 1 <= len(content) <= wants.audio.most:
            raise ValueError("no window is this long")
        if not np.isfinite(content).all():
            raise ValueError("no sound has such samples")
    elif modality is Modality.TEXT and wants.text:
        content = data.decode("utf-8")
    else:
        raise ValueError("nobody asked for this")
    digest = bytes.fromhex(answer["digest"])
    return Piece(
        job, digest, modality, number, content, answer.get("start"), answer.get("end")
    )  # fmt: skip


def outcome(job: Job, answer: dict[str, Any], parts: int) -> Outcome:
    """What became of a job. Raises ValueError, KeyError or TypeError when it is nonsense."""
    state = tuple(answer["state"]) if "state" in answer else None
    if "reason" in answer:
        reason = Reason(answer["reason"])
        return Outcome(job, state=state, reason=reason, message=answer["message"])
    if job.decode and not parts:
        raise ValueError("a file without parts has a reason")
    return Outcome(
        job, state, bytes.fromhex(answer["digest"]), Modality(answer["modality"]),
        answer["format"], answer.get("width"), answer.get("height"),
        _metadata(answer["metadata"]), parts,
    )  # fmt: skip


def _metadata(told: dict[str, Any]) -> Metadata:
    """What a file says of itself. Raises ValueError, KeyError or TypeError when it is none."""
    captions = [
        Caption(str(source)[:20], clean(text)) for source, text in told.pop("captions")[:MOST]
    ]
    for name, value in told.items():
        numeric = name in ("taken", "iso", "duration", "latitude", "longitude")
        if value is None:
            continue
        # whole or not, a number that SQLite can hold: NaN is neither above nor below
        if numeric and not (type(value) in (int, float) and -(2**63) <= value < 2**63):
            raise ValueError("no file has such a number")
        if not numeric and not (type(value) is str and len(value.encode()) <= 1000):
            raise ValueError("no file has such a name")
    return Metadata(**told, captions=tuple(caption for caption in captions if caption.text))

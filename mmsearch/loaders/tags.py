"""What a sound's file says of itself: how long it is, and its tags.

libsndfile reads the ID3 of an MP3, the Vorbis comments of FLAC, Ogg Vorbis and Opus, and the INFO
list of a WAV. A WAV may have ID3 as well, and a field recorder's date (EBU Tech 3285: "bext").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import soundfile

from mmsearch.loaders import id3, riff
from mmsearch.loaders.cleaning import captions, wall_clock
from mmsearch.loaders.sounds import counts_frames
from mmsearch.records import Metadata

_STANDARDS = {"MP3": "id3", "FLAC": "vorbis", "OGG": "vorbis", "WAV": "info"}
_NAMES = ("title", "artist", "album", "genre", "comment", "date")
_ENDLESS = 2**62  # frames, or more, where nobody knows
_MOST = 1 << 20  # bytes of a chunk


def of_sound(file: BinaryIO, format: str) -> Metadata:
    """What is known of a sound; nothing of one that libsndfile cannot open."""
    counted = format != "MP3" or counts_frames(file)  # libsndfile would guess
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as sound:
            frames, rate = sound.frames, sound.samplerate
            tags = {name: getattr(sound, name) for name in _NAMES}
    except soundfile.LibsndfileError:
        return Metadata()
    standards = [(_STANDARDS[format], tags)]
    if format == "WAV":
        standards += _chunks(file)
    dates = [(wall_clock(tags.get("date", "")), standard) for standard, tags in standards]
    taken, source = next(((taken, source) for taken, source in dates if taken), (None, None))
    return Metadata(
        taken=taken,
        taken_source=source,
        duration=frames / rate if 0 < frames < _ENDLESS and counted else None,
        captions=captions(
            (standard, text) for standard, tags in standards for text in _sentences(tags)
        ),
    )


def _chunks(file: BinaryIO) -> Iterator[tuple[str, dict[str, str]]]:
    """What a WAV says in chunks that libsndfile passes over."""
    for name, data in riff.chunks(file, frozenset({b"bext", b"id3 ", b"ID3 "}), _MOST):
        if name == b"bext":  # 256 bytes of description, 32 each of who and which, date and time
            said, day, time = (
                part.partition(b"\0")[0].decode("latin-1")
                for part in (data[:256], data[320:330], data[330:338])
            )
            yield "bext", {"comment": said, "date": f"{day} {time}"}
        else:
            yield "id3", id3.read(data)


def _sentences(tags: dict[str, str]) -> Iterator[str]:
    """What a sound is, and what somebody remarked on it."""
    named = [tags.get(name, "") for name in ("title", "artist", "album", "genre")]
    # a genre may be a number that only ID3's list explains
    yield ", ".join(text.strip() for text in named if any(map(str.isalpha, text)))
    yield tags.get("comment", "")

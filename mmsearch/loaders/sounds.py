"""One sound file in; windows of mono float32 samples out, one after the other, or a LoadError.

Read with libsndfile alone, which opens no other file and no network. Nothing is ever held
but a few seconds: ten hours take no more memory than ten seconds. What a header promises is
held against the limits before anything is read, and at the end against what came. (An MP3
whose encoder left no count of its frames promises nothing: cut between two of them, it is a
shorter sound.)

Sounds are resampled here, with numpy: a stretch of whole seconds is resampled exactly by
cutting its spectrum, for any two rates in hertz, where a filter bank needs as many filters
as the rates have hertz without a common divisor. A package for it (soxr) would be one more
compiled dependency, and under the LGPL.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile

from mmsearch.errors import LoadError
from mmsearch.records import AudioInput, Reason

if TYPE_CHECKING:
    from mmsearch.records import Samples

MAX_HOURS = 24.0
_RATES = (1000, 768_000)  # hertz
_CHANNELS = 64
# Full scale is 1, and a float file may go beyond it; 16 is 24 decibels beyond. What is
# larger still, or not a number, comes from damage: no microphone gave it.
_LOUDEST = 16.0
# Three steps of 16 bits: what varies less is silence, or the hum of a converter.
_SILENCE = 1e-4
_SHORTEST = 1.0  # seconds: a rest shorter than this stays with the window before it

_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"})
_OGG_CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")
_OGG_PAGE = 65_307  # bytes, at most
_ENDLESS = 0xFFFFFFFF  # the length in a WAV written to a pipe, and in an RF64
_UNKNOWN = 2**62  # frames, or more, of what comes through a pipe
_WAV_CHUNKS = 10_000
_AT_ONCE = 1 << 19  # samples of all channels read at a time, 2 MB

# Resampling: seconds done at a time, seconds around them that are thrown away again, and
# where below the highest frequency the spectrum begins to fade, so that nothing rings long.
_HOP = 4
_CONTEXT = 1
_FADE = 0.95

_MP3_KILOBITS = {  # by version: 3 is MPEG-1, 2 and 0 are MPEG-2 and 2.5
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    0: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}


@dataclass(frozen=True, slots=True)
class SoundWindow:
    """A stretch of a sound: `start` and `end` in seconds, `samples` as the encoder wants them."""

    start: float
    end: float
    samples: Samples


def sniff(head: bytes) -> str | None:
    """The sound format that a file's first 4,096 bytes announce, or None."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"fLaC":
        return "FLAC"
    if head[:4] == b"OggS" and head[28:36].startswith(_OGG_CODECS):
        return "OGG"
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 0x80 and 2 <= head[3] <= 4:
        return "MP3"
    length = _mp3_frame(head)
    # two bytes are not enough of an MP3: the next frame has to begin where this one ends
    if length is not None and _mp3_frame(head[length:]) is not None:
        return "MP3"
    return None


def _mp3_frame(head: bytes) -> int | None:
    """How long the frame of MPEG layer III is that begins here, None where none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, kilobits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or not 1 <= kilobits <= 14 or rate == 3:
        return None
    bits = (144_000 if version == 3 else 72_000) * _MP3_KILOBITS[version][kilobits - 1]
    return bits // _MP3_RATES[version][rate] + (head[2] >> 1 & 1)


def windows(
    file: BinaryIO, want: AudioInput, *, max_hours: float = MAX_HOURS
) -> Iterator[SoundWindow]:
    """The windows of a sound, streamed. `file` is a real file (it has a `fileno`).

    A window starts where the last one ended. A rest of less than a second stays with the
    window before it; a sound shorter than a window is one window, as long as it is.
    Channels are averaged. Windows of silence, which would resemble everything, are left out.

    Raises LoadError, and nothing else, for whatever is wrong with the file, perhaps only
    after its last window: a caller must not keep what came before that.
    """
    heard = False
    size = round(want.window * want.rate)
    try:
        with _opened(file, max_hours) as sound:
            blocks = resampled(_blocks(sound, max_hours), sound.samplerate, want.rate)
            for first, samples in _cut(blocks, size, round(_SHORTEST * want.rate)):
                if np.ptp(samples) > _SILENCE:
                    heard = True
                    yield SoundWindow(
                        first / want.rate, (first + len(samples)) / want.rate, samples
                    )
    except soundfile.LibsndfileError as error:
        raise _translated(error, file) from error
    if not heard:
        raise LoadError(Reason.SILENT, "nothing but silence: there is nothing in it to find")


def check_header(file: BinaryIO, *, max_hours: float = MAX_HOURS) -> None:
    """Refuse a sound for what its header says, before anything is read. Raises LoadError."""
    try:
        _opened(file, max_hours).close()
    except soundfile.LibsndfileError as error:
        raise _translated(error, file) from error


# -- reading -----------------------------------------------------------------------------


def _opened(file: BinaryIO, max_hours: float) -> soundfile.SoundFile:
    """The file in libsndfile's hands, its header within the limits."""
    size = os.fstat(file.fileno()).st_size
    head = _bytes_at(file, 0, 4096)
    if not head:
        raise LoadError(Reason.EMPTY, "the file has no bytes")
    name = sniff(head)
    if name is None:
        raise LoadError(Reason.TYPE_MISMATCH, "not a sound of a supported format")
    if name == "WAV":
        _check_wav(file, size)
    elif name == "OGG" and not _ogg_ends(file, size):
        raise LoadError(Reason.TRUNCATED, "the file ends before its sound does")
    if name == "MP3" and not counts_frames(file):
        sound = soundfile.SoundFile(_piped(file.fileno()), closefd=True)
    else:
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        sound = soundfile.SoundFile(file.fileno(), closefd=False)
    try:
        _check_header(sound, max_hours)
    except BaseException:
        sound.close()
        raise
    return sound


def _bytes_at(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def counts_frames(file: BinaryIO) -> bool:
    """True when the first frame of an MP3 says how many there are."""
    head, at = _bytes_at(file, 0, 10), 0
    if head[:3] == b"ID3" and len(head) == 10:  # its size in four times seven bits
        at = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    frame = _bytes_at(file, at, 200)
    return any(name in frame for name in (b"Xing", b"Info", b"VBRI"))


def _piped(descriptor: int) -> int:
    """A pipe that the file is fed into, for a decoder that shall not guess its length.

    libsndfile would take the first frame's bits a second for those of all, and stop there.
    """
    reading, writing = os.pipe()

    def feed() -> None:
        at = 0
        with suppress(OSError), os.fdopen(writing, "wb", 0) as pipe:  # until nobody reads
            while block := os.pread(descriptor, _OGG_PAGE, at):
                at += len(block)
                pipe.write(block)

    threading.Thread(target=feed, daemon=True).start()
    return reading


def _check_header(sound: soundfile.SoundFile, max_hours: float) -> None:
    if sound.format not in _FORMATS:  # what stands behind an ID3 tag may be anything
        raise LoadError(Reason.TYPE_MISMATCH, f"holds {sound.format}, which is not supported")
    if not _RATES[0] <= sound.samplerate <= _RATES[1]:
        raise LoadError(
            Reason.OVER_BUDGET,
            f"{sound.samplerate:,} samples a second; {_RATES[0]:,} to {_RATES[1]:,} can be read",
        )
    if sound.channels > _CHANNELS:
        raise LoadError(
            Reason.OVER_BUDGET, f"{sound.channels} channels, over the limit of {_CHANNELS}"
        )
    if sound.frames == 0:
        raise LoadError(Reason.EMPTY, "the file has a header, and no sound")
    if sound.frames < _UNKNOWN:
        _check_length(sound.frames, sound.samplerate, max_hours)


def _check_length(frames: int, rate: int, max_hours: float) -> None:
    if frames > max_hours * 3600 * rate:
        raise LoadError(
            Reason.OVER_BUDGET,
            f"{frames / rate / 3600:,.1f} hours, over the limit of {max_hours:g}; "
            "raise it with MMSEARCH_MAX_HOURS",
        )


def _blocks(sound: soundfile.SoundFile, max_hours: float) -> Iterator[Samples]:
    """The sound as it is stored, in one channel, a block at a time."""
    done = 0
    share = np.full(sound.channels, 1 / sound.channels, np.float32)
    while True:
        block = sound.read(max(_AT_ONCE // sound.channels, 1), dtype="float32", always_2d=True)
        if not len(block):
            break
        if not (block.max() <= _LOUDEST and block.min() >= -_LOUDEST):  # NaN is neither
            raise LoadError(Reason.NONFINITE, f"samples that are not numbers up to {_LOUDEST:g}")
        done += len(block)
        _check_length(done, sound.samplerate, max_hours)
        yield block[:, 0] if sound.channels == 1 else block @ share
    if done < sound.frames < _UNKNOWN:
        raise LoadError(
            Reason.TRUNCATED if sound.format == "MP3" else Reason.CORRUPT,
            f"{done:,} samples could be read of {sound.frames:,}",
        )


def _check_wav(file: BinaryIO, size: int) -> None:
    """Refuse a WAV that ends before its data does: libsndfile reads what is there."""
    at, long = 12, None
    for _ in range(_WAV_CHUNKS):
        head = _bytes_at(file, at, 24)
        if len(head) < 8:
            raise LoadError(Reason.TRUNCATED, "the file ends before its sound begins")
        kind, length = struct.unpack_from("<4sI", head)
        if kind == b"ds64" and len(head) == 24:  # of an RF64: the lengths in 64 bits
            (long,) = struct.unpack_from("<Q", head, 16)
        if kind == b"data":
            length = long if length == _ENDLESS else length
            if length is not None and at + 8 + length > size:
                raise LoadError(
                    Reason.TRUNCATED,
                    f"{size - at - 8:,} bytes of sound, where the header promises {length:,}",
                )
            return
        at += 8 + length + length % 2
    raise LoadError(Reason.CORRUPT, f"no sound within {_WAV_CHUNKS:,} chunks")


def _ogg_ends(file: BinaryIO, size: int) -> bool:
    """True when the last page of an Ogg file is whole and marked as the last."""
    tail = _bytes_at(file, max(size - 2 * _OGG_PAGE, 0), 2 * _OGG_PAGE)
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return False
    lengths = tail[at + 27 : at + 27 + tail[at + 26]]
    whole = at + 27 + tail[at + 26] + sum(lengths) <= len(tail)
    return whole and bool(tail[at + 5] & 4)


def _translated(error: soundfile.LibsndfileError, file: BinaryIO) -> LoadError:
    """What libsndfile said, as the LoadError it comes down to."""
    said = error.error_string.rstrip(".") or "unknown error"
    if said == "Unspecified internal error":  # of a piped MP3 that ends within a frame
        return LoadError(Reason.TRUNCATED, "the file ends before its sound does")
    if said.startswith("File does not exist"):  # what it says of an MP3 without a frame
        said = "nothing that could be played was found in it"
    if _bytes_at(file, 0, 4) == b"fLaC" and not _reaches_its_end(file):
        return LoadError(Reason.TRUNCATED, "the file ends before its sound does")
    return LoadError(Reason.CORRUPT, f"cannot decode this sound: {said}")


def _reaches_its_end(file: BinaryIO) -> bool:
    """True when the last sample of a FLAC file that failed is there all the same."""
    try:
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            sound.seek(sound.frames - 1)
            return len(sound.read(1)) == 1
    except soundfile.LibsndfileError:
        return False


# -- resampling and cutting --------------------------------------------------------------


def resampled(blocks: Iterator[Samples], rate: int, wanted: int) -> Iterator[Samples]:
    """A sound at another rate, block by block; `round(n * wanted / rate)` samples for n.

    The sound is taken to go on as it begins and as it ends, so that neither clicks.
    """
    if rate == wanted:
        yield from blocks
        return
    context, hop = _CONTEXT * rate, _HOP * rate
    held: Samples | None = None  # a second that is done, and what is not
    for block in blocks:
        held = np.full(context, block[0]) if held is None else held
        held = np.concatenate([held, block])
        while len(held) >= context + hop + context:
            done = _at_rate(held[: context + hop + context], rate, wanted)
            yield done[_CONTEXT * wanted : -_CONTEXT * wanted]
            held = held[hop:]
    if held is None or len(held) == context:
        return
    left = len(held) - context
    whole = -(-left // rate) * rate + context  # whole seconds, and one more
    held = np.concatenate([held, np.full(context + whole - len(held), held[-1])])
    done = _at_rate(held, rate, wanted)[_CONTEXT * wanted :]
    yield done[: max(round(left * wanted / rate), 1)]


def _at_rate(stretch: Samples, rate: int, wanted: int) -> Samples:
    """A stretch of whole seconds at another rate, by way of its spectrum."""
    seconds = len(stretch) // rate
    if np.ptp(stretch) <= _SILENCE:  # hours of silence are passed over fast
        return np.full(seconds * wanted, stretch[0], np.float32)
    highest = seconds * min(rate, wanted) // 2  # of the frequencies that both rates can hold
    spectrum = np.fft.rfft(stretch)[: highest + 1]
    start = int(_FADE * highest)
    fall = np.linspace(0, np.pi, len(spectrum) - start)
    spectrum[start:] *= (1 + np.cos(fall)) / 2
    scale = wanted / rate
    return (np.fft.irfft(spectrum, seconds * wanted) * scale).astype(np.float32)


def _cut(blocks: Iterator[Samples], size: int, shortest: int) -> Iterator[tuple[int, Samples]]:
    """Windows of `size` samples, each with the number of its first; the last one is shorter, or
    longer by a rest of less than `shortest`.
    """
    first, held = 0, np.empty(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= size + shortest:
            yield first, held[:size]
            first, held = first + size, held[size:]
    if len(held):
        yield first, held

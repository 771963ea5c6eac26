"""The worker's side: files are read, their parts sent as they come."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any, BinaryIO

from mmsearch.decoding.frames import receive, send
from mmsearch.decoding.jobs import SUFFIXES, Limits, Wants
from mmsearch.errors import LoadError
from mmsearch.records import AudioInput, ImageInput, Metadata, Modality, Reason
from mmsearch.sidecars import MOST

# Bytes a second of the largest sounds people keep: 192,000 samples of two channels, 4 bytes
# each. Hours times this is how large a sound may be before it is even opened.
_SOUND_BYTES = 192_000 * 2 * 4
_LARGE_SOUND = 1 << 26  # bytes: hashing as many takes longer than opening the file once more


def prepare() -> None:
    """Import all that reading files takes, for those that are forked from this process."""
    from mmsearch import files  # noqa: F401
    from mmsearch.loaders import formats, metadata, texts  # noqa: F401

    with suppress(ImportError, OSError):  # no libsndfile: said when there is a sound to read
        from mmsearch.loaders import sounds  # noqa: F401
    for name in formats.PLUGINS:
        with suppress(LoadError):
            formats.plugin(name)


def work() -> None:
    """The life of a worker process: answer jobs from stdin on stdout until stdin ends."""
    questions = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a codec prints must not be an answer
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        hello, _ = receive(questions)
        image, sound = hello["wants"]["image"], hello["wants"]["audio"]
        wants = Wants(
            ImageInput(**image) if image else None,
            AudioInput(**sound) if sound else None,
            hello["wants"]["text"],
        )
        limits = Limits(**hello["limits"])
        from mmsearch import loaders  # noqa: F401 - now, so that "ready" is true

        cap_memory(limits)
        send(answers, {"ready": True})
        while True:
            question, _ = receive(questions)
            now = wants.cut(question["window"])
            reading = Reading(question["path"].encode("latin-1"), now, limits, answers)
            send(answers, reading.answer(question["decode"]))


class Reading:
    """One file in the worker's hands: its parts are sent as they come, the rest is returned."""

    def __init__(self, path: bytes, wants: Wants, limits: Limits, answers: IO[bytes]) -> None:
        self._path = path
        self._wants = wants
        self._limits = limits
        self._answers = answers
        self._found: dict[str, Any] = {}

    def answer(self, decode: bool) -> dict[str, Any]:
        """What an Outcome is made of."""
        from mmsearch import files

        state: dict[str, Any] = {}
        try:
            if os.path.realpath(self._path) != self._path:  # a walk follows no link
                which = "it" if os.path.islink(self._path) else "a folder above it"
                raise LoadError(Reason.CHANGED, f"{which} became a link")
            with suppress(OSError):  # so that a refused file, too, is known by its state
                state["state"] = files.Stat.of(os.lstat(self._path)).figures
            with files.opened(self._path) as (file, status):
                modality, name = self._judge(file.read(4096))
                self._found = {"modality": modality, "format": name}
                self._read(file, status, modality, decode)
                state["state"] = files.Stat.of(status).figures
            return self._found | state
        except LoadError as error:
            return state | {"reason": error.reason, "message": str(error)}
        except MemoryError:
            message = "more memory needed than allowed"
            return state | {"reason": Reason.OUT_OF_MEMORY, "message": message}

    def _judge(self, head: bytes) -> tuple[Modality, str]:
        """What the file is by its first bytes; a text alone is known by its suffix.

        Raises LoadError for what is nothing that the encoder has a tower for.
        """
        from mmsearch import loaders

        suffix = os.path.splitext(self._path)[1].lower()
        named = next((m for m, suffixes in SUFFIXES.items() if suffix in suffixes), None)
        modality, name = named, loaders.sniff(head[:64])
        if name:
            modality = Modality.IMAGE
        elif self._wants.audio and (name := _sniff_sound(head)):
            modality = Modality.AUDIO
        elif named is Modality.TEXT:
            name = "TEXT" if suffix == b".txt" else "MARKDOWN"
        wanted = {
            Modality.IMAGE: self._wants.image is not None,
            Modality.AUDIO: self._wants.audio is not None,
            Modality.TEXT: self._wants.text,
        }
        if modality is None:
            raise LoadError(Reason.UNSUPPORTED, "not a picture, a sound or a text")
        if not wanted[modality]:
            raise LoadError(Reason.NO_MODEL, f"the model has no tower for {modality}")
        if not head:
            raise LoadError(Reason.EMPTY, "the file has no bytes")
        if not name:
            kind = "a picture" if modality is Modality.IMAGE else "a sound"
            raise LoadError(Reason.TYPE_MISMATCH, f"named like {kind}, but holds none")
        return modality, name

    def _read(
        self, file: BinaryIO, status: os.stat_result, modality: Modality, decode: bool
    ) -> None:
        """Hash the file and, if it is to be decoded, send its parts."""
        from mmsearch import files, loaders

        limits = self._limits
        if modality is Modality.IMAGE:
            files.check_size(status, limits.max_file_mb * 1e6)
            data = files.read_all(file, status)
            self._found["digest"] = files.digest(data).hex()
            self._describe(io.BytesIO(data), modality)
            if decode and self._wants.image:
                budget = limits.max_megapixels
                image = loaders.load_image(data, self._wants.image, max_megapixels=budget)
                self._found |= {"width": image.width, "height": image.height}
                self._send_piece(image.pixels.data.cast("B"))
            return
        most = limits.max_text_mb * 1e6
        if modality is Modality.AUDIO:
            most = limits.max_hours * 3600 * _SOUND_BYTES
        files.check_size(status, most)
        if modality is Modality.AUDIO and status.st_size > _LARGE_SOUND:
            from mmsearch.loaders import sounds

            sounds.check_header(file, max_hours=limits.max_hours)
        self._found["digest"] = files.digest_of(file, lambda: send(self._answers, {})).hex()
        self._describe(file, modality)
        file.seek(0)
        if decode and modality is Modality.TEXT:
            from mmsearch.loaders import texts

            markdown = self._found["format"] == "MARKDOWN"
            for passage in texts.passages(
                file, markdown=markdown, max_megabytes=limits.max_text_mb
            ):
                self._send_piece(passage.encode())
        elif decode and self._wants.audio:
            from mmsearch.loaders import sounds

            for window in sounds.windows(file, self._wants.audio, max_hours=limits.max_hours):
                samples = window.samples.astype("<f4", order="C")
                self._send_piece(samples.data.cast("B"), start=window.start, end=window.end)
                # a header may say nothing, or too little; what was silent at the end is no window
                known = self._found["metadata"]["duration"] or 0
                self._found["metadata"]["duration"] = max(known, window.end)

    def _describe(self, file: BinaryIO, modality: Modality) -> None:
        """Ask the file what it says of itself; what cannot be read is not known."""
        from mmsearch.loaders import metadata

        said = Metadata()
        with suppress(Exception):
            said = metadata.read_metadata(file, modality, self._found["format"])
        self._found["metadata"] = asdict(said) | {
            "captions": [(caption.source, caption.text) for caption in said.captions[:MOST]]
        }

    def _send_piece(self, data: bytes | memoryview, **span: float) -> None:
        head = {"digest": self._found["digest"], "modality": self._found["modality"], **span}
        send(self._answers, head, data)


def _sniff_sound(head: bytes) -> str | None:
    from mmsearch.loaders import sounds  # a folder of pictures has no need of libsndfile

    return sounds.sniff(head)


def cap_memory(limits: Limits) -> None:
    """Bound this process: what it has, the file, and two copies of a picture of the budget.

    A sound or a text is read in pieces and needs less.
    """
    if sys.platform != "linux":
        return  # RLIMIT_AS means nothing on macOS, and Windows has no limits of this kind
    import resource

    with open("/proc/self/statm", "rb") as file:
        pages = int(file.read().split()[0])
    now = pages * os.sysconf("SC_PAGE_SIZE")
    cap = now + int(2 * limits.max_file_mb * 1e6) + int(10 * limits.max_megapixels * 1e6) + 2**28
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        cap = min(cap, hard)
    resource.setrlimit(resource.RLIMIT_AS, (cap, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

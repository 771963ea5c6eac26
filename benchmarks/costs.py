"""What the built-in model costs: bytes, and processor time of one core, decoding included."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring import spread
from pictures import pixels

from mmsearch.datasets.captions import read_captions
from mmsearch.encoders.builtin import Builtin
from mmsearch.loaders import sounds
from mmsearch.records import Modality
from mmsearch.training import esc50

ROUNDS = 5


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file that ships."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def times(encoder: Builtin, data: Path) -> dict[str, Any]:
    """Milliseconds of processor time: a picture and a sound with reading and decoding, a text, and
    the first text of a process. The system's file cache is warm; every item is another."""
    photos = read_captions(data / "flickr8k", "test")[:100]
    couples = [[one.path, other.path] for one, other in zip(photos[::2], photos[1::2], strict=True)]

    def pictures(paths: Sequence[Path]) -> None:
        # two a call and so in one thread
        encoder.encode(Modality.IMAGE, [pixels(encoder, path) for path in paths])

    found: dict[str, Any] = {"image_ms": _halved(_spent(pictures, couples))}
    found["images_per_second"] = round(1000 / found["image_ms"]["median"], 1)
    texts = [photo.captions[0] for photo in photos]
    found["text_ms"] = _spent(lambda text: encoder.encode(Modality.TEXT, [text]), texts)
    found["first_text_ms"] = _spent(
        lambda name: Builtin(name, encoder.folder).encode(Modality.TEXT, ["a dog"]), [encoder.name]
    )
    want = encoder.audio_input
    if want is not None:

        def sound(path: Path) -> None:
            # some clips are a few milliseconds longer than the five seconds
            with path.open("rb") as file:
                window = next(sounds.windows(file, want))
            encoder.encode(Modality.AUDIO, [window.samples])

        found["sound_ms"] = _spent(sound, [clip.path for clip in esc50.clips(data)[:50]])
    return found


def _spent(call: Callable[[Any], object], inputs: Sequence[Any]) -> dict[str, Any]:
    """Milliseconds of processor time a call takes, the mean over the inputs in each round."""
    for one in inputs:
        call(one)  # sessions start, files are cached
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for one in inputs:
            call(one)
        rounds.append(round(1000 * (time.process_time() - began) / len(inputs), 3))
    return spread(rounds)


def _halved(found: dict[str, Any]) -> dict[str, Any]:
    return spread([value / 2 for value in found["all"]])

"""What kinds of files are built from: small pictures and sounds, and how a kind is written."""

from __future__ import annotations

from collections.abc import Callable

from hostile import Maker, encoded, encoded_sound, tones

RATE = 16_000
Kind = Callable[[Maker, str, int], None]  # writes the n-th of its kind into a folder


def sound(make: Maker, kind: str, subtype: str, rate: int = RATE, **change: float) -> bytes:
    """A sound of half a second; `last` and `times` alter its samples."""
    samples = tones(0.5, rate, seed=make.choose.randrange(1 << 30)) * change.get("times", 1.0)
    if "last" in change:
        samples[-1] = change["last"]
    return encoded_sound(samples, rate, kind, subtype)


def files(becomes: str, **kinds: tuple[str, Callable[[Maker], bytes]]) -> dict[str, Kind]:
    """Kinds that are plain files: of each the suffix and what builds its bytes."""
    found: dict[str, Kind] = {}
    for name, (suffix, build) in kinds.items():

        def write(
            make: Maker, folder: str, number: int, *, name: str = name, suffix: str = suffix,
            build: Callable[[Maker], bytes] = build,
        ) -> None:  # fmt: skip
            path = f"{folder}/{name.replace('_', '-')}-{number}{suffix}"
            make.put(path, build(make), becomes)

        found[name.replace("_", "-")] = write
    return found


def jpeg(make: Maker) -> bytes:
    """A small JPEG."""
    return encoded(make.picture(), "JPEG")


def png(make: Maker) -> bytes:
    """A small PNG."""
    return encoded(make.picture(), "PNG")


def gif(make: Maker) -> bytes:
    """A small GIF."""
    return encoded(make.picture(), "GIF")

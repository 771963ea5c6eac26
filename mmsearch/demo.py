"""The demonstration: photographs that scikit-image ships, found by words."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mmsearch.errors import MissingExtra

QUERIES = {
    "a cat": "chelsea.png",
    "a cup of coffee": "coffee.png",
    "a rocket launch": "rocket.jpg",
    "an astronaut": "astronaut.png",
}


def photographs() -> Path:
    """The folder of pictures inside the installed scikit-image, which is not imported.

    Raises MissingExtra when it is not installed.
    """
    found = find_spec("skimage")
    if found is None or found.origin is None:
        raise MissingExtra("the demo (scikit-image's photographs)", "demo")
    return Path(found.origin).parent / "data"

"""XMP: what programs say of a picture, in an XML packet.

Read with expat, and as little of XML as that takes: a packet that declares a document type is
refused, for with one come entities, which may be a billion words or another file. Of a packet
that breaks off, what came before counts.

ISO 16684-1, Extensible metadata platform.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from xml.parsers import expat

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_ITEM = f"{_RDF} li"
_NAMES = {
    "http://purl.org/dc/elements/1.1/ title": "title",
    "http://purl.org/dc/elements/1.1/ description": "description",
    "http://purl.org/dc/elements/1.1/ subject": "subject",
    "http://ns.adobe.com/photoshop/1.0/ Headline": "headline",
    "http://ns.adobe.com/exif/1.0/ DateTimeOriginal": "taken",
    "http://ns.adobe.com/photoshop/1.0/ DateCreated": "created",
    "http://ns.adobe.com/xap/1.0/ CreateDate": "digitized",
}


def read(packet: bytes) -> dict[str, list[str]]:
    """The values of the wanted properties by the names in `_NAMES`: an array has several."""
    reading = _Reading()
    with suppress(expat.ExpatError, _Refused, UnicodeError, LookupError):
        reading.parser.Parse(packet.strip(b"\0 \r\n\t"), True)
    return reading.found


class _Refused(Exception):
    """The packet asks for more than is safe."""


class _Reading:
    """What has been found so far, and where the parser is."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self._property: str | None = None  # the wanted one we are within
        self._text: list[str] = []
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text.append

    def _refuse(self, *_: Any) -> None:
        raise _Refused

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._text.clear()
        self._property = _NAMES.get(name, self._property)
        if name == f"{_RDF} Description":  # simple properties may be its attributes
            for attribute, value in attributes.items():
                if attribute in _NAMES:
                    self._add(_NAMES[attribute], value)

    def _end(self, name: str) -> None:
        if self._property and (name == _ITEM or name in _NAMES):
            self._add(self._property, "".join(self._text))
        self._text.clear()
        if name in _NAMES:
            self._property = None

    def _add(self, property: str, value: str) -> None:
        if value.strip():
            self.found.setdefault(property, []).append(value)

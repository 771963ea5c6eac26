"""The contact sheet: whole in itself, readable, and harmless whatever the files are called."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
from pathlib import Path

import html5lib
from conftest import paint
from PIL import Image

from mmsearch.records import Hit, Modality, Share, Why
from mmsearch.sheet import fragment, page

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT


def parsed(html):
    """As a browser reads it."""
    return html5lib.parse(html, namespaceHTMLElements=False)


def test_a_sheet_of_each_kind(tmp_path):
    """Picture as data, sound with its seconds, passage, caption, score, relevance, link."""
    odd = "größe 狗 #1?.png"
    hits = [
        Hit(1, 0.312, 0.87, paint(tmp_path / odd, "red", (100, 300)), IMAGE, 1,
            captions=("a red wall",), duplicates=(tmp_path / "copy.png",)),
        Hit(2, 0.25, None, tmp_path / "bark.ogg", AUDIO, 2, 5.0, 10.5),
        Hit(3, None, None, tmp_path / "notes.txt", TEXT, 3, text="1 < 2 & so on",
            why=Why((Share("so", 0.25),), (Share("1 < 2", -0.5),))),
    ]  # fmt: skip
    tree = parsed(page(hits, title="a red wall"))
    first, second, third = tree.iter("article")
    (image,) = first.iter("img")
    assert (image.get("width"), image.get("height"), image.get("alt")) == ("80", "240", "")
    data = base64.b64decode(image.get("src").removeprefix("data:image/jpeg;base64,"))
    shown = Image.open(io.BytesIO(data)).convert("RGB")
    assert shown.size == (80, 240)
    assert max(abs(a - b) for a, b in zip(shown.getpixel((40, 100)), (255, 0, 0), strict=True)) < 4
    assert [link.get("href") for link in tree.iter("a")] == [
        (tmp_path / name).as_uri() for name in (odd, "bark.ogg", "notes.txt")
    ]
    assert [link.text for link in tree.iter("a")] == [odd, "bark.ogg", "notes.txt"]
    said = " ".join(first.itertext())
    for words in ("a red wall", str(tmp_path), "and 1 like it", "copy.png", "87%", "score 0.312"):
        assert words in said
    assert next(first.iter("meter")).get("value") == "0.870"
    (sound,) = second.iter("audio")
    assert sound.get("src") == (tmp_path / "bark.ogg").as_uri() + "#t=5,10.5"
    assert "5–10.5 s" in "".join(second.itertext())
    assert next(third.iter("blockquote")).text == "1 < 2 & so on"
    assert "words: so +0.250" in "".join(third.itertext())
    assert "pieces: 1 < 2 -0.500" in "".join(third.itertext())
    assert next(tree.iter("title")).text == next(tree.iter("h1")).text == "a red wall"


def test_a_picture_that_is_gone_or_unwanted(tmp_path):
    """The card is there without it."""
    gone = Hit(1, 0.3, None, tmp_path / "gone.png", IMAGE, 1)
    there = Hit(1, 0.3, None, paint(tmp_path / "red.png", "red"), IMAGE, 1)
    assert [len(list(parsed(page([hit])).iter("img"))) for hit in (gone, there)] == [0, 1]
    assert not list(parsed(page([there], thumbnails=False)).iter("img"))
    assert "nothing found" in page([])


def test_what_browsers_would_run_is_not_linked():
    """Known as a picture by its content, a file called .html or .svg would be a page."""
    names = ["a.html", "a.svg", "a.xhtml", "a", "a.js", "a.PNG", "a.md", "a.Ogg"]
    hits = [Hit(1, 0.3, None, Path("/p") / name, IMAGE, 1) for name in names]
    tree = parsed(page(hits))
    assert [link.text for link in tree.iter("a")] == ["a.PNG", "a.md", "a.Ogg"]


def test_the_policy_allows_nothing_but_what_is_there():
    """No script, nothing fetched; the one style is known by its hash, nothing is styled inline."""
    html = page([Hit(1, 0.3, None, Path("/p/a.png"), IMAGE, 1)])
    tree = parsed(html)
    (policy,) = [m.get("content") for m in tree.iter("meta") if m.get("http-equiv")]
    (style,) = tree.iter("style")
    hashed = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashed}'; img-src data:; media-src file:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not [node for node in tree.iter() if node.get("style") is not None]
    assert not re.search("https?:", html)
    assert "prefers-color-scheme: dark" in style.text


# -- row 65 --------------------------------------------------------------------------------------

_STARTS = ["", '"', "'", ">", '">', "'>", "-->", "</a>", "</title>", "</style>", "]]>", "\x00"]
_BODIES = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>", " onmouseover=alert(1) x=",
    "javascript:alert(1)",
    "<a href=javascript:alert(1)>x</a>", "<math><mtext></form><form><mglyph><style></math>",
    "<base href=//evil>", "<meta http-equiv=refresh content=0;url=//evil>", "<!--", "<![CDATA[",
    "&lt;script&gt;", "&#60;script&#62;", "\u202e<b>gnp.x", "＜script＞", "<style>*{x:y}</style>",
    "<object data=x>", "\x1b]8;;//evil\x07x", "<plaintext>",
]  # fmt: skip
PAYLOADS = [start + body for start, body in itertools.product(_STARTS, _BODIES)]


def shape(html):
    """Every element with its attributes' names, in order: what a payload must not change."""
    return [(str(node.tag), sorted(node.attrib)) for node in parsed(html).iter()]


def payload_hit(words, kind=TEXT):
    """An answer all of whose words, and its path, are these."""
    name = words.replace("/", "∕").replace("\0", "\1")
    path = Path("/p", name, f"{name}.ogg")
    why = Why((Share(words, 0.1),), (Share(words, 0.2),))
    return Hit(1, 0.3, 0.5, path, kind, 1, 1.0, 2.0, words, (words,), None, (path,), why)


def test_row_65_no_payload_becomes_an_element_or_an_attribute():
    """Row 65: 240 payloads as name, folder, caption, passage, query and share change nothing."""
    assert len(set(PAYLOADS)) >= 200
    hits, harmless = [payload_hit(words) for words in PAYLOADS], [payload_hit("x")] * len(PAYLOADS)
    html = page(hits, title=" ".join(PAYLOADS))
    assert shape(html) == shape(page(harmless, title="x"))
    assert all(char.isprintable() or char == "\n" for char in html)
    notes = ["x"] * len(PAYLOADS)
    assert shape(fragment(hits, notes=PAYLOADS)) == shape(fragment(harmless, notes=notes))
    quoted = [quote.text for quote in parsed(html).iter("blockquote")]
    plain = [words.isprintable() for words in PAYLOADS]
    assert list(itertools.compress(quoted, plain)) == list(itertools.compress(PAYLOADS, plain))


def test_row_65_links_lead_to_the_file_alone():
    """Row 65: every address is that of the file whose card it is on."""
    hits = [payload_hit(words, kind) for words in PAYLOADS for kind in (AUDIO, TEXT)]
    cards = list(parsed(page(hits)).iter("article"))
    for hit, card in zip(hits, cards, strict=True):
        found = [node.get("href") or node.get("src") for node in card.iter()]
        addresses = {address.partition("#")[0] for address in found if address}
        assert addresses == {hit.path.as_uri()}

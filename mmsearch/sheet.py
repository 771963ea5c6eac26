"""Answers as HTML: a contact sheet that is whole in itself, and the cards of a notebook.

Names, captions and passages come from files that anyone may have made. All of it is escaped,
the page carries no script, and its content security policy allows none: nothing is fetched,
and pictures come as data. A file is linked only when its name says that it is a picture, a
sound or a text: one that is named page.html is known as a picture by its content, and would
be a page to a browser.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mmsearch.files import display, well_formed
from mmsearch.records import Hit, Modality, Share
from mmsearch.thumbnails import as_jpeg, thumbnail

_PIXELS = 240  # the longer side of a picture: some 10 kB each
_MOST = 60  # cards of a notebook
_LINKED = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif",
     ".heic", ".heif", ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".txt", ".md"}
)  # fmt: skip

_STYLE = """
.mmsearch { --ink: #1d1f23; --soft: #6a6f78; --card: #fff; --edge: #e3e5e9;
  display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: .9rem;
  font: 14px/1.45 system-ui, sans-serif; color: var(--ink); }
.mmsearch article { background: var(--card); border: 1px solid var(--edge); border-radius: .6rem;
  padding: .7rem; display: flex; flex-direction: column; gap: .35rem; overflow-wrap: anywhere; }
.mmsearch img { display: block; max-width: 100%; height: auto; margin: 0 auto;
  border-radius: .3rem; }
.mmsearch audio { width: 100%; height: 2rem; }
.mmsearch p, .mmsearch blockquote { margin: 0; }
.mmsearch blockquote { border-left: 3px solid var(--edge); padding-left: .6rem; }
.mmsearch a { color: inherit; }
.mmsearch .where, .mmsearch .note { color: var(--soft); font-size: 12px; }
.mmsearch .score { display: flex; gap: .6rem; align-items: center; color: var(--soft);
  font-variant-numeric: tabular-nums; margin-top: auto; }
.mmsearch .score b { color: var(--ink); }
.mmsearch meter { flex: 1; min-width: 3rem; height: .7rem; }
.mmsearch .note { grid-column: 1 / -1; }
@media (prefers-color-scheme: dark) {
  .mmsearch { --ink: #e7e9ee; --soft: #979daa; --card: #1f2227; --edge: #343841; }
}
"""
_PAGE_STYLE = """
:root { color-scheme: light dark; }
body { margin: 1.5rem; background: Canvas; }
h1 { font: 600 20px/1.3 system-ui, sans-serif; overflow-wrap: anywhere; }
"""


def page(hits: Sequence[Hit], *, title: str = "", thumbnails: bool = True) -> str:
    """The contact sheet: one HTML file that needs no other, for a browser or for an archive."""
    style = _STYLE + _PAGE_STYLE
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; style-src 'sha256-{hashed}'; img-src data:; media-src file:; "
        "base-uri 'none'; form-action 'none'"
    )
    heading = _text(title or "mmsearch")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{heading}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<h1>{heading}</h1>\n{_cards(hits, thumbnails, ())}</body>\n</html>"
    )


def fragment(hits: Sequence[Hit], *, notes: Sequence[str] = ()) -> str:
    """The cards alone, for a page of somebody else's: at most 60, some 10 kB each."""
    said = list(notes)
    if len(hits) > _MOST:
        said.append(f"and {len(hits) - _MOST:,} more")
    return f"<style>{_STYLE}</style>\n{_cards(hits[:_MOST], True, said)}"


def _cards(hits: Sequence[Hit], thumbnails: bool, notes: Sequence[str]) -> str:
    cards = [_card(hit, thumbnails) for hit in hits]
    cards += [f'<p class="note">{_text(note)}</p>' for note in notes]
    if not hits:
        cards.append('<p class="note">nothing found</p>')
    return '<section class="mmsearch">\n' + "\n".join(cards) + "\n</section>\n"


def _card(hit: Hit, thumbnails: bool) -> str:
    parts = []
    if hit.modality is Modality.IMAGE and thumbnails:
        parts.append(_picture(hit.path))
    if hit.modality is Modality.AUDIO and _linked(hit.path):
        at = "" if hit.start is None else f"#t={hit.start:g},{hit.end:g}"
        parts.append(f'<audio controls preload="none" src="{_uri(hit.path)}{at}"></audio>')
    name = _text(display(os.fsencode(hit.path.name)))
    if _linked(hit.path):
        name = f'<a href="{_uri(hit.path)}">{name}</a>'
    place = "" if hit.start is None else f" · {hit.start:g}–{hit.end:g} s"
    parts.append(f"<p>{name}{place}</p>")
    parts += [f"<p>{_text(caption)}</p>" for caption in hit.captions]
    if hit.text is not None:
        parts.append(f"<blockquote>{_text(hit.text)}</blockquote>")
    parts.append(f'<p class="where">{_text(display(os.fsencode(hit.path.parent)))}</p>')
    if hit.duplicates:
        names = ", ".join(display(os.fsencode(path)) for path in hit.duplicates)
        parts.append(f'<p class="where">and {len(hit.duplicates)} like it: {_text(names)}</p>')
    if hit.why is not None:
        parts += [_told(name, shares) for name, shares in
                  (("words", hit.why.words), ("pieces", hit.why.pieces)) if shares]  # fmt: skip
    parts.append(_score(hit))
    return "<article>\n" + "\n".join(part for part in parts if part) + "\n</article>"


def _picture(path: Path) -> str:
    small = thumbnail(path, _PIXELS)
    if small is None:
        return ""
    data = base64.b64encode(as_jpeg(small)).decode("ascii")
    size = f'width="{small.width}" height="{small.height}"'
    return f'<img src="data:image/jpeg;base64,{data}" {size} alt="">'


def _score(hit: Hit) -> str:
    said = f"<b>{hit.rank}</b>"
    if hit.relevance is not None:
        said += f' <meter value="{hit.relevance:.3f}"></meter> {hit.relevance:.0%}'
    if hit.score is not None:
        said += f" <span>score {hit.score:.3f}</span>"
    return f'<p class="score">{said}</p>'


def _told(name: str, shares: Sequence[Share]) -> str:
    told = ", ".join(f"{_text(share.what)} {share.carried:+.3f}" for share in shares)
    return f'<p class="where">{name}: {told}</p>'


def _text(words: str) -> str:
    """Words as HTML shows them: nothing in them is an element, an attribute or a control."""
    return escape(display(well_formed(words)))


def _linked(path: Path) -> bool:
    return path.suffix.lower() in _LINKED


def _uri(path: Path) -> str:
    return escape(path.absolute().as_uri())

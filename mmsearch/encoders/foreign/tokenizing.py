"""Tokenizers of open_clip as the one JSON file that our encoders read: the same ids for a text.

Two things are left out, for which JSON has no words: ftfy's repair of wrongly decoded text
("cafÃ©"), and entities of HTML ("&amp;").
"""

from __future__ import annotations

import string
import unicodedata
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

# What CLIP's tokenizer takes for words: contractions, letters, single digits, other signs.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

# What ftfy does to any text: ligatures and signs of another width become plain ones, quotation
# marks straight; control characters go.
_LIGATURES = "ĲĳŉǄǅǆǇǈǉǊǋǌǱǲǳﬀﬁﬂﬃﬄ"
_WIDE = map(chr, range(0xFF01, 0xFFF0))
_PLAIN = {sign: unicodedata.normalize("NFKC", sign) for sign in (*_LIGATURES, *_WIDE)}
_REPAIR = [
    *(normalizers.Replace(sign, plain) for sign, plain in _PLAIN.items() if plain != sign),
    normalizers.Replace(Regex("[\u02bc\u2018-\u201b]"), "'"),
    normalizers.Replace(Regex("[\u201c-\u201f]"), '"'),
    normalizers.Replace(
        Regex(r"[\x00-\x08\x0b\x0e-\x1f\x7f\x{206a}-\x{206f}\x{feff}\x{fff9}-\x{fffc}]"), ""
    ),
    normalizers.NFC(),
]
_SPACES = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
_PUNCTUATION = Regex("[" + "".join(f"\\{sign}" for sign in string.punctuation) + "]")
CLEANING = {
    "whitespace": [*_REPAIR, *_SPACES],
    "lower": [*_REPAIR, *_SPACES, normalizers.Lowercase()],
    "canonicalize": [
        *_REPAIR,
        normalizers.Replace("_", " "),
        normalizers.Replace(_PUNCTUATION, ""),
        normalizers.Lowercase(),
        *_SPACES,
    ],
}


def clip_tokenizer(theirs: Any, clean: str) -> Tokenizer:
    """CLIP's byte-pair encoding; theirs: an open_clip.SimpleTokenizer.

    The marks of begin and end are put around a text; in a text they are words like others.
    """
    tokenizer = Tokenizer(
        models.BPE(theirs.encoder, list(theirs.bpe_ranks), end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.Sequence(CLEANING[clean])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    first, last = (theirs.decoder[i] for i in (theirs.sot_token_id, theirs.eot_token_id))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(first, theirs.sot_token_id), (last, theirs.eot_token_id)],
    )
    return tokenizer


def cleaned(tokenizer: Tokenizer, clean: str) -> Tokenizer:
    """A tokenizer with open_clip's cleaning before its own."""
    own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
    tokenizer.normalizer = normalizers.Sequence([*CLEANING[clean], *own])
    return tokenizer

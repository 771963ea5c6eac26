"""Tokenizers of open_clip as the one JSON file that our encoders read: the same ids for a text.

One thing is left out: ftfy's repair of wrongly decoded text ("cafÃ©"), for which JSON has no words.
"""

from __future__ import annotations

import string
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

# What CLIP's tokenizer takes for words: contractions, letters, single digits, other signs.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

_SPACES = [normalizers.Replace(Regex(r"[\s\x1c-\x1f]+"), " "), normalizers.Strip()]
_PUNCTUATION = Regex("[" + "".join(f"\\{sign}" for sign in string.punctuation) + "]")
CLEANING = {
    "whitespace": _SPACES,
    "lower": [*_SPACES, normalizers.Lowercase()],
    "canonicalize": [
        normalizers.Replace("_", " "),
        normalizers.Replace(_PUNCTUATION, ""),
        normalizers.Lowercase(),
        *_SPACES,
    ],
}


def clip_tokenizer(theirs: Any, clean: str) -> Tokenizer:
    """CLIP's byte-pair encoding; theirs: an open_clip.SimpleTokenizer."""
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
    tokenizer.add_special_tokens([AddedToken(t, normalized=True) for t in (first, last)])
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

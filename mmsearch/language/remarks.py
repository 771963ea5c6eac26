"""What a question seems to mean and a model does not understand, and how to ask it."""

from __future__ import annotations

import re

from mmsearch.language.query import Query, terms_of

# An encoder reads "a dog without a ball" much as "a dog with a ball".
_NEGATION = re.compile(
    r"\b(without|excluding|except(?: for)?|but not?|with no|no|not)\b|(没有|不带|不含|不包括|除了)",
    re.IGNORECASE,
)
_JOINS = re.compile(r"[\s,;，、]+$|[\s,;，、]+(?:and|but|with)$", re.IGNORECASE)
_JOINED = re.compile(r"\S\s+(AND|OR|NOT)\s+\S")


def remarks(query: Query) -> list[str]:
    """A sentence for each thing said in words that signs would say better.

    >>> from mmsearch.language.query import text
    >>> remarks(text("a dog without a ball"))[0].partition(": ")[2]
    'to leave something out, ask for "a dog" - "a ball"'
    """
    found = []
    for term in terms_of(query):
        if not isinstance(term.value, str) or term.weight <= 0:
            continue
        if joined := _JOINED.search(term.value):
            found.append(
                f"{joined[1]} within a phrase is a word like any other: to join conditions, "
                f'quote each part, as in "a dog" {joined[1]} "a ball"'
            )
        elif negation := _NEGATION.search(term.value):
            before = _JOINS.sub("", term.value[: negation.start()]).strip()
            after = term.value[negation.end() :].strip(" ,.;，。、")
            example = f'"{before}" - "{after}"' if before and after else '"a dog" - "a ball"'
            found.append(
                f'a model does not understand "{negation[0]}": to leave something out, '
                f"ask for {example}"
            )
    return found

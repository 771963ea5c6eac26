"""Kinds of hostile files, more than sixty of them, each with what must become of it.

What a decoder does to itself, and what becomes of a file while it is read, is done by tests/evil
in the decoder processes; all else are real files, built by tests/hostile.py.
"""

from campaigns.poisons import bombs, broken, names, odd, wild
from campaigns.poisons.good import good

__all__ = ["COSTLY", "KINDS", "MOVING", "good"]

KINDS = wild.KINDS | broken.KINDS | bombs.KINDS | odd.KINDS | names.KINDS
# What runs into a limit of time or memory costs that limit, whatever mmsearch does: one of each.
COSTLY = ("evil-sleep", "evil-spin", "evil-swell")
# What is no longer what it was when it has been read: written anew for each run.
MOVING = frozenset({"evil-vanishes", "evil-is-a-link", "evil-grows", "evil-once"})

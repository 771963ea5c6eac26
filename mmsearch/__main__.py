"""`python -m mmsearch` is the same as `mmsearch`."""

from mmsearch.cli import main

main()

"""Labels on stdout, and how good they were measured to be."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mmsearch.errors import UsageError
from mmsearch.files import display
from mmsearch.printing.plain import print_json
from mmsearch.records import Label


def print_labels(labels: Sequence[Label], form: str | None = None) -> None:
    """Every label as a table, JSON, NDJSON or CSV; without a form, how many files have which.

    Raises UsageError for another form.
    """
    match form:
        case None:
            counts = Counter(one.label for one in labels)
            for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
                print(f"{count:>9,}  {display(name)}")
            print(f"{len({one.path for one in labels}):>9,}  files with labels")
        case "table":
            for one in labels:
                path = display(os.fsencode(one.path))
                print(f"{one.relevance:6.3f}  {display(one.label)}  {path}")
        case "json":
            print_json([one.as_dict() for one in labels])
        case "ndjson":
            for one in labels:
                print(json.dumps(one.as_dict(), ensure_ascii=False))
        case "csv":
            from mmsearch.labels import write_rows  # nothing else printed has need of numpy

            write_rows(sys.stdout, labels)
        case _:
            raise UsageError(f"--format is one of table, json, ndjson, csv, not {form}")


def print_labelling(found: dict[str, Any]) -> None:
    """Print what `mmsearch bench labels` found."""
    counts = f"{found['files']:,} files of {found['classes']:,} classes"
    print(f"{found['model']} ({found['fingerprint'][:8]}) on {counts}")
    print(f"accuracy  {found['accuracy']:.3f}")
    print(f"macro F1  {found['macro_f1']:.3f}")

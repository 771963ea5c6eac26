"""What a person or a script reads: answers on stdout, progress and notes on stderr."""

from mmsearch.printing.answers import Format, print_hits, print_many
from mmsearch.printing.labels import print_labelling, print_labels
from mmsearch.printing.measures import print_recall, print_self, print_speed
from mmsearch.printing.meters import Meter, TrainingMeter
from mmsearch.printing.plain import note, print_json
from mmsearch.printing.reports import (
    print_failures,
    print_plan,
    print_report,
    print_search,
    print_trained,
)

__all__ = [
    "Format",
    "Meter",
    "TrainingMeter",
    "note",
    "print_failures",
    "print_hits",
    "print_json",
    "print_labelling",
    "print_labels",
    "print_many",
    "print_plan",
    "print_recall",
    "print_report",
    "print_search",
    "print_self",
    "print_speed",
    "print_trained",
]

"""How well a model and a library find things, how fast, and whether one's own library is sound.

`recall` and `classed` measure on sets with known answers: `exact` by the bare vectors, `served` as
a library answers. `speed` measures the stages of indexing and queries, `costs` what anything takes.
`self_test` needs no known answers. Nothing here changes a library or a set; what has to be written
goes to a temporary folder.
"""

from mmsearch.evaluation.classed import measure_labels
from mmsearch.evaluation.exact import best_ranks, exact_ranks
from mmsearch.evaluation.recall import measure_recall

__all__ = ["best_ranks", "exact_ranks", "measure_labels", "measure_recall"]

"""The items that answer queries: by their own vectors, their captions and their words.

Every score is standardised first: how many standard deviations it lies above what this query
scores with unrelated items of that modality. What an item's own vector, its captions and its
words say is fused into one value (mmsearch.ranking); what that is worth to the query as a
whole, mmsearch.fusion says.
"""

from mmsearch.answers.answering import answer
from mmsearch.answers.question import Answer, Hybrid, Question

__all__ = ["Answer", "Hybrid", "Question", "answer"]

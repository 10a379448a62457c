"""Learning from feedback: aggregation and what is said about it."""

from edi_storage.learning.aggregation import LearningReport, as_markdown, learn

__all__ = ["LearningReport", "as_markdown", "learn"]

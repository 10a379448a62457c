"""Learning from feedback: what is counted, what is chosen by it, and what is said of it."""

from edi_storage.learning.aggregation import Learned, learn

__all__ = ["Learned", "learn"]

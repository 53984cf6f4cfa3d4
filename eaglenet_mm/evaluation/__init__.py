"""Ranks, post-processing and the metric around them."""

from .metrics import RetrievalRankMetric

__all__ = ['RetrievalRankMetric']

"""Ranks, post-processing and the metric around them."""

from .metrics import KeptScores, RetrievalRankMetric

__all__ = ['KeptScores', 'RetrievalRankMetric']

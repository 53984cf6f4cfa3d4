"""Ranks, post-processing and the metric around them."""

from eaglenet_mm.evaluation.metrics import KeptScores, RetrievalRankMetric

__all__ = ['KeptScores', 'RetrievalRankMetric']

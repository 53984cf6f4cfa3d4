"""Retrieval metrics and the functions behind them."""

from eaglenet_mm.evaluation.metrics import KeptScores, RetrievalRankMetric

__all__ = ['KeptScores', 'RetrievalRankMetric']

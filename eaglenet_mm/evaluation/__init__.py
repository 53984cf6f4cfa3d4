"""Retrieval metrics and the functions behind them."""

from eaglenet_mm.evaluation.metrics import (
    KeptScores,
    MomentMetric,
    RetrievalRankMetric,
)

__all__ = ['KeptScores', 'MomentMetric', 'RetrievalRankMetric']

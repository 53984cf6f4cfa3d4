"""Metrics for MMEngine's evaluator."""

from eaglenet_mm.evaluation.metrics.retrieval_rank_metric import (
    KeptScores,
    RetrievalRankMetric,
)

__all__ = ['KeptScores', 'RetrievalRankMetric']

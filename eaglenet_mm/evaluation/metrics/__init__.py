"""Metrics for MMEngine's evaluator."""

from eaglenet_mm.evaluation.metrics.moment_metric import MomentMetric
from eaglenet_mm.evaluation.metrics.retrieval_rank_metric import (
    KeptScores,
    RetrievalRankMetric,
)

__all__ = ['KeptScores', 'MomentMetric', 'RetrievalRankMetric']

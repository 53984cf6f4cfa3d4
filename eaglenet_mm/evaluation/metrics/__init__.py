"""Metrics for MMEngine's evaluator."""

from eaglenet_mm.evaluation.metrics.kept_scores import KeptScores
from eaglenet_mm.evaluation.metrics.retrieval_rank_metric import (
    RetrievalRankMetric,
)

__all__ = ['KeptScores', 'RetrievalRankMetric']

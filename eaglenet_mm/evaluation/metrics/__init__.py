"""Metrics for MMEngine's evaluator."""

from .kept_scores import KeptScores
from .retrieval_rank_metric import RetrievalRankMetric

__all__ = ['KeptScores', 'RetrievalRankMetric']

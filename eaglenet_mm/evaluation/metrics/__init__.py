"""Metrics for MMEngine's evaluator."""

from .retrieval_rank_metric import RetrievalRankMetric

__all__ = ['RetrievalRankMetric']

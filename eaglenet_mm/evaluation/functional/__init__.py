"""Pure functions on score matrices; they import torch alone."""

from .bootstrap import bootstrap_recall
from .ranking import (
    RankResult,
    check_finite,
    rank_targets,
    summarize_ranks,
    text_to_video_ranks,
    video_caption_scores,
    video_to_text_ranks,
)
from .rescoring import dual_softmax, query_bank_normalisation

__all__ = [
    'RankResult',
    'bootstrap_recall',
    'check_finite',
    'dual_softmax',
    'query_bank_normalisation',
    'rank_targets',
    'summarize_ranks',
    'text_to_video_ranks',
    'video_caption_scores',
    'video_to_text_ranks',
]

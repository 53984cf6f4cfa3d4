"""Pure functions on score matrices; they import torch alone."""

from .bootstrap import bootstrap_recall
from .ranking import (
    RankResult,
    check_finite,
    rank_targets,
    summarize_positions,
    summarize_ranks,
    text_to_video_ranks,
    video_caption_scores,
    video_to_text_ranks,
)
from .rescoring import dual_softmax, query_bank_normalisation
from .right_pairs import RightPairs
from .two_stage import off_shortlist_scores, on_shortlist, shortlist_recall

__all__ = [
    'RankResult',
    'RightPairs',
    'bootstrap_recall',
    'check_finite',
    'dual_softmax',
    'off_shortlist_scores',
    'on_shortlist',
    'query_bank_normalisation',
    'rank_targets',
    'shortlist_recall',
    'summarize_positions',
    'summarize_ranks',
    'text_to_video_ranks',
    'video_caption_scores',
    'video_to_text_ranks',
]

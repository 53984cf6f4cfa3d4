"""Functions on score matrices, which import only torch."""

from eaglenet_mm.evaluation.functional.bootstrap import bootstrap_recall
from eaglenet_mm.evaluation.functional.ranking import (
    RankResult,
    RightPairs,
    check_finite,
    off_shortlist_scores,
    on_shortlist,
    rank_targets,
    shortlist_recall,
    summarize_positions,
    summarize_ranks,
    text_to_video_ranks,
    video_caption_scores,
    video_to_text_ranks,
)
from eaglenet_mm.evaluation.functional.rescoring import (
    dual_softmax,
    query_bank_normalisation,
)

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

"""Functions on score matrices, which import only torch."""

from eaglenet_mm.evaluation.functional.bootstrap import bootstrap_recall
from eaglenet_mm.evaluation.functional.moments import (
    RankedWindows,
    chance_of_hit,
    didemo_consensus,
    rank_windows,
    share_in_moments,
    summarize_didemo,
    summarize_windows,
    temporal_iou,
    times_in_moments,
)
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
    'RankedWindows',
    'RightPairs',
    'bootstrap_recall',
    'chance_of_hit',
    'check_finite',
    'didemo_consensus',
    'dual_softmax',
    'off_shortlist_scores',
    'on_shortlist',
    'query_bank_normalisation',
    'rank_targets',
    'rank_windows',
    'share_in_moments',
    'shortlist_recall',
    'summarize_didemo',
    'summarize_positions',
    'summarize_ranks',
    'summarize_windows',
    'temporal_iou',
    'text_to_video_ranks',
    'times_in_moments',
    'video_caption_scores',
    'video_to_text_ranks',
]

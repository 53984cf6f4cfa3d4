"""Hooks of the Runner."""

from .contrastive_batch_hook import ContrastiveBatchHook
from .dataset_epoch_hook import DatasetEpochHook
from .logit_scale_hook import LogitScaleClampHook
from .lost_videos_hook import LostVideosHook
from .results_page_hook import ResultsPageHook
from .retrieval_checkpoint_hook import RetrievalCheckpointHook
from .retrieval_early_stopping_hook import RetrievalEarlyStoppingHook
from .retrieval_visualization_hook import RetrievalVisualizationHook
from .strict_resume_hook import StrictResumeHook

__all__ = [
    'ContrastiveBatchHook',
    'DatasetEpochHook',
    'LogitScaleClampHook',
    'LostVideosHook',
    'ResultsPageHook',
    'RetrievalCheckpointHook',
    'RetrievalEarlyStoppingHook',
    'RetrievalVisualizationHook',
    'StrictResumeHook',
]

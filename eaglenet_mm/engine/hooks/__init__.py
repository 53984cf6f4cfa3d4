"""Hooks of the Runner."""

from .contrastive_batch_hook import ContrastiveBatchHook
from .dataset_epoch_hook import DatasetEpochHook
from .logit_scale_hook import LogitScaleClampHook
from .lost_videos_hook import LostVideosHook
from .results_page_hook import ResultsPageHook
from .retrieval_visualization_hook import RetrievalVisualizationHook

__all__ = [
    'ContrastiveBatchHook',
    'DatasetEpochHook',
    'LogitScaleClampHook',
    'LostVideosHook',
    'ResultsPageHook',
    'RetrievalVisualizationHook',
]

"""Hooks for MMEngine's runners."""

from eaglenet_mm.engine.hooks.contrastive_batch_hook import (
    ContrastiveBatchHook,
)
from eaglenet_mm.engine.hooks.dataset_epoch_hook import DatasetEpochHook
from eaglenet_mm.engine.hooks.logit_scale_hook import LogitScaleClampHook
from eaglenet_mm.engine.hooks.lost_videos_hook import LostVideosHook
from eaglenet_mm.engine.hooks.results_page_hook import ResultsPageHook
from eaglenet_mm.engine.hooks.retrieval_checkpoint_hook import (
    RetrievalCheckpointHook,
)
from eaglenet_mm.engine.hooks.retrieval_early_stopping_hook import (
    RetrievalEarlyStoppingHook,
)
from eaglenet_mm.engine.hooks.retrieval_visualization_hook import (
    RetrievalVisualizationHook,
)
from eaglenet_mm.engine.hooks.start_weights_hook import StartWeightsHook
from eaglenet_mm.engine.hooks.strict_resume_hook import StrictResumeHook

__all__ = [
    'ContrastiveBatchHook',
    'DatasetEpochHook',
    'LogitScaleClampHook',
    'LostVideosHook',
    'ResultsPageHook',
    'RetrievalCheckpointHook',
    'RetrievalEarlyStoppingHook',
    'RetrievalVisualizationHook',
    'StartWeightsHook',
    'StrictResumeHook',
]

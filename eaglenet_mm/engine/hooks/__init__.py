"""Hooks of the Runner."""

from .contrastive_batch_hook import ContrastiveBatchHook
from .dataset_epoch_hook import DatasetEpochHook
from .logit_scale_hook import LogitScaleClampHook

__all__ = [
    'ContrastiveBatchHook',
    'DatasetEpochHook',
    'LogitScaleClampHook',
]

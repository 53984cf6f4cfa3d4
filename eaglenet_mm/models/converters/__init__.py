"""Checkpoints of others, turned into ours."""

from .eaglenet_release import ConversionReport, convert_eaglenet_release
from .eaglenet_release_names import ReleaseOptions
from .model_fit import check_model_fit, read_model_options

__all__ = [
    'ConversionReport',
    'ReleaseOptions',
    'check_model_fit',
    'convert_eaglenet_release',
    'read_model_options',
]

"""Checkpoints of others, turned into ours."""

from .conversion import (
    ConversionReport,
    convert_baseline_release,
    convert_eaglenet_release,
)
from .model_fit import check_model_fit, read_model_options
from .release_names import METHODS, ReleaseOptions
from .release_source import read_release_file, write_converted

BaselineReport = ConversionReport  # deprecated: the two are one

__all__ = [
    'METHODS',
    'BaselineReport',
    'ConversionReport',
    'ReleaseOptions',
    'check_model_fit',
    'convert_baseline_release',
    'convert_eaglenet_release',
    'read_model_options',
    'read_release_file',
    'write_converted',
]

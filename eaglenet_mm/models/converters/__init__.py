"""Checkpoints of others, turned into ours."""

from .baseline_release import BaselineReport, convert_baseline_release
from .eaglenet_release import ConversionReport, convert_eaglenet_release
from .eaglenet_release_names import ReleaseOptions
from .model_fit import check_model_fit, read_model_options
from .release_file import read_release_file, write_converted
from .release_methods import METHODS

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

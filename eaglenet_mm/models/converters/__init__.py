"""Conversion of released checkpoints."""

from eaglenet_mm.models.converters.conversion import (
    ConversionReport,
    convert_baseline_release,
    convert_eaglenet_release,
)
from eaglenet_mm.models.converters.model_fit import (
    check_model_fit,
    read_model_options,
)
from eaglenet_mm.models.converters.release_names import METHODS, ReleaseOptions
from eaglenet_mm.models.converters.release_source import (
    read_release_file,
    write_converted,
)

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

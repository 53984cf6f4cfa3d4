"""Official annotation files, read, checked and brought to the one schema."""

from .didemo import convert_didemo
from .msrvtt import convert_msrvtt
from .msvd import convert_msvd
from .splits import (
    ConvertedSplit,
    SplitPlan,
    SplitReport,
    assemble_split,
    find_overlaps,
    write_splits,
)
from .vatex import convert_vatex

__all__ = [
    'ConvertedSplit',
    'SplitPlan',
    'SplitReport',
    'assemble_split',
    'convert_didemo',
    'convert_msrvtt',
    'convert_msvd',
    'convert_vatex',
    'find_overlaps',
    'write_splits',
]

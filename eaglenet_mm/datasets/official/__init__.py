"""Conversion of official annotation files to the annotation schema."""

from eaglenet_mm.datasets.official.didemo import convert_didemo
from eaglenet_mm.datasets.official.msrvtt import convert_msrvtt
from eaglenet_mm.datasets.official.msvd import convert_msvd
from eaglenet_mm.datasets.official.splits import (
    ConvertedSplit,
    SplitPlan,
    SplitReport,
    assemble_split,
    find_overlaps,
    write_splits,
)
from eaglenet_mm.datasets.official.vatex import convert_vatex

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

"""Data containers; they import nothing else of this package."""

from eaglenet_mm.structures.features import (
    EmbedsState,
    Features,
    TextFeatures,
    VideoFeatures,
)
from eaglenet_mm.structures.retrieval_data_sample import RetrievalDataSample

__all__ = [
    'EmbedsState',
    'Features',
    'RetrievalDataSample',
    'TextFeatures',
    'VideoFeatures',
]

"""Containers that pass between the parts; they import nothing of ours."""

from eaglenet_mm.structures.features import (
    Features,
    TextFeatures,
    VideoFeatures,
)
from eaglenet_mm.structures.retrieval_data_sample import RetrievalDataSample

__all__ = ['Features', 'RetrievalDataSample', 'TextFeatures', 'VideoFeatures']

"""Containers that pass between the parts; they import nothing of ours."""

from .features import EmbedsState, Features, TextFeatures, VideoFeatures
from .retrieval_data_sample import RetrievalDataSample

__all__ = [
    'EmbedsState',
    'Features',
    'RetrievalDataSample',
    'TextFeatures',
    'VideoFeatures',
]

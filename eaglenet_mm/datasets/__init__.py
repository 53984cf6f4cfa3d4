"""Annotation, data sets, wrappers, readers and transforms."""

from .annotation import check_annotation, read_annotation, write_annotation
from .draws import current_draw, number_draws
from .samplers import DistinctVideoBatchSampler
from .text_video_dataset import TextVideoDataset
from .transforms import (
    CLIPTokenizer,
    DecodeFrames,
    OpenVideo,
    PackRetrievalInputs,
    ResizeCenterCrop,
    SampleFrames,
    TokenizeCaptions,
    WordTokenizer,
)
from .video_readers import VideoReadError, open_video
from .wrappers import (
    CaptionExpansion,
    ParagraphDataset,
    RandomCaption,
    RetrievalDatasetWrapper,
    VideoSubset,
)

__all__ = [
    'CLIPTokenizer',
    'CaptionExpansion',
    'DecodeFrames',
    'DistinctVideoBatchSampler',
    'OpenVideo',
    'PackRetrievalInputs',
    'ParagraphDataset',
    'RandomCaption',
    'ResizeCenterCrop',
    'RetrievalDatasetWrapper',
    'SampleFrames',
    'TextVideoDataset',
    'TokenizeCaptions',
    'VideoReadError',
    'VideoSubset',
    'WordTokenizer',
    'check_annotation',
    'current_draw',
    'number_draws',
    'open_video',
    'read_annotation',
    'write_annotation',
]

"""Annotation, datasets, wrappers, readers and transforms."""

from eaglenet_mm.datasets.annotation import (
    check_annotation,
    read_annotation,
    write_annotation,
)
from eaglenet_mm.datasets.draws import current_draw, number_draws
from eaglenet_mm.datasets.samplers import DistinctVideoBatchSampler
from eaglenet_mm.datasets.text_video_dataset import TextVideoDataset
from eaglenet_mm.datasets.transforms import (
    CLIPTokenizer,
    DecodeFrames,
    OpenVideo,
    PackRetrievalInputs,
    ResizeCenterCrop,
    SampleFrames,
    TokenizeCaptions,
    WordTokenizer,
)
from eaglenet_mm.datasets.video_readers import VideoReadError, open_video
from eaglenet_mm.datasets.wrappers import (
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

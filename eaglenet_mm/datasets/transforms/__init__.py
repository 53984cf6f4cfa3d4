"""Transforms from an annotated video to tensors, and tokenizers."""

from eaglenet_mm.datasets.transforms.decode_frames import (
    DecodeFrames,
    clock_times,
)
from eaglenet_mm.datasets.transforms.frame_sampling import (
    SampleFrames,
    clean_frames,
    release_frames,
    release_seeks,
    select_frames,
)
from eaglenet_mm.datasets.transforms.hugging_face_tokenizer import (
    HuggingFaceTokenizer,
)
from eaglenet_mm.datasets.transforms.open_video import OpenVideo
from eaglenet_mm.datasets.transforms.pack_retrieval_inputs import (
    PackRetrievalInputs,
)
from eaglenet_mm.datasets.transforms.resize_center_crop import (
    ResizeCenterCrop,
    resize_center_crop,
)
from eaglenet_mm.datasets.transforms.tokenizers import (
    CLIPTokenizer,
    TokenizeCaptions,
    WordTokenizer,
)

__all__ = [
    'CLIPTokenizer',
    'DecodeFrames',
    'HuggingFaceTokenizer',
    'OpenVideo',
    'PackRetrievalInputs',
    'ResizeCenterCrop',
    'SampleFrames',
    'TokenizeCaptions',
    'WordTokenizer',
    'clean_frames',
    'clock_times',
    'release_frames',
    'release_seeks',
    'resize_center_crop',
    'select_frames',
]

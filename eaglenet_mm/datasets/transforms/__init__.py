"""Transforms from an annotated video to tensors, and the tokenizers."""

from .decode_frames import DecodeFrames, clock_times
from .frame_sampling import (
    clean_frames,
    release_frames,
    release_seeks,
    select_frames,
)
from .hugging_face_tokenizer import HuggingFaceTokenizer
from .open_video import OpenVideo
from .pack_retrieval_inputs import PackRetrievalInputs
from .resize_center_crop import ResizeCenterCrop, resize_center_crop
from .sample_frames import SampleFrames
from .tokenize_captions import TokenizeCaptions
from .tokenizers import CLIPTokenizer, WordTokenizer

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

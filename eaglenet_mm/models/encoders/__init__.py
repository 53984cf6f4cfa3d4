"""Encoders: pixels and token ids to features."""

from .clip_encoder import CLIPEncoder
from .clip_text_encoder import CLIPTextEncoder
from .clip_video_encoder import CLIPVideoEncoder
from .hugging_face_text_encoder import HuggingFaceTextEncoder
from .patch_shift import PatchShift
from .registered_encoder import RegisteredEncoder
from .registered_text_encoder import RegisteredTextEncoder

__all__ = [
    'CLIPEncoder',
    'CLIPTextEncoder',
    'CLIPVideoEncoder',
    'HuggingFaceTextEncoder',
    'PatchShift',
    'RegisteredEncoder',
    'RegisteredTextEncoder',
]

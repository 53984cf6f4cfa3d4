"""Encoders: pixels and token ids to features."""

from .clip_encoder import CLIPEncoder, CLIPTextEncoder, CLIPVideoEncoder
from .clip_tower import PatchShift
from .hugging_face_text_encoder import HuggingFaceTextEncoder
from .registered_encoder import RegisteredEncoder, RegisteredTextEncoder

__all__ = [
    'CLIPEncoder',
    'CLIPTextEncoder',
    'CLIPVideoEncoder',
    'HuggingFaceTextEncoder',
    'PatchShift',
    'RegisteredEncoder',
    'RegisteredTextEncoder',
]

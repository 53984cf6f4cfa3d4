"""Encoders of pixels and token ids."""

from eaglenet_mm.models.encoders.clip_encoder import (
    CLIPEncoder,
    CLIPTextEncoder,
    CLIPVideoEncoder,
)
from eaglenet_mm.models.encoders.clip_tower import PatchShift
from eaglenet_mm.models.encoders.hugging_face_text_encoder import (
    HuggingFaceTextEncoder,
)
from eaglenet_mm.models.encoders.registered_encoder import (
    RegisteredEncoder,
    RegisteredTextEncoder,
)

__all__ = [
    'CLIPEncoder',
    'CLIPTextEncoder',
    'CLIPVideoEncoder',
    'HuggingFaceTextEncoder',
    'PatchShift',
    'RegisteredEncoder',
    'RegisteredTextEncoder',
]

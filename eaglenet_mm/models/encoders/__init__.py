"""Encoders: pixels and token ids to features."""

from .clip_encoder import CLIPEncoder
from .clip_text_encoder import CLIPTextEncoder
from .clip_video_encoder import CLIPVideoEncoder
from .patch_shift import PatchShift

__all__ = ['CLIPEncoder', 'CLIPTextEncoder', 'CLIPVideoEncoder', 'PatchShift']

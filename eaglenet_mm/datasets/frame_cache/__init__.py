"""Decoded frames on disk: written once, checked at each reading."""

from .layout import CacheEntry, cache_folder, frame_recipe
from .reader import FrameCache
from .writer import FrameCacheWriter

__all__ = [
    'CacheEntry',
    'FrameCache',
    'FrameCacheWriter',
    'cache_folder',
    'frame_recipe',
]

"""Decoded frames on disk: written once, checked at each reading."""

from eaglenet_mm.datasets.frame_cache.building import (
    CacheReport,
    build_frame_cache,
)
from eaglenet_mm.datasets.frame_cache.frame_cache import (
    CacheEntry,
    FrameCache,
    FrameCacheWriter,
    cache_folder,
    frame_recipe,
)

__all__ = [
    'CacheEntry',
    'CacheReport',
    'FrameCache',
    'FrameCacheWriter',
    'build_frame_cache',
    'cache_folder',
    'frame_recipe',
]

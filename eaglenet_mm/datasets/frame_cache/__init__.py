"""Cache of decoded frames on disk, with a checksum for each item."""

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

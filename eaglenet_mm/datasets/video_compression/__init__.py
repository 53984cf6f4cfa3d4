"""Small copies of videos: few frames a second, short side of few pixels."""

from eaglenet_mm.datasets.video_compression.copies import (
    CompressionReport,
    compress_folder,
    compress_video,
)

__all__ = ['CompressionReport', 'compress_folder', 'compress_video']

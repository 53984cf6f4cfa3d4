"""Small copies of videos, with reduced frame rate and resolution."""

from eaglenet_mm.datasets.video_compression.copies import (
    CompressionReport,
    compress_folder,
    compress_video,
)

__all__ = ['CompressionReport', 'compress_folder', 'compress_video']

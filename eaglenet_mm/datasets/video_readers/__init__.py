"""Readers of video files: frame numbers in, RGB frames out."""

from .base import (
    VideoEndError,
    VideoReader,
    VideoReadError,
    VideoSamplingError,
    VideoTimeoutError,
)
from .decord_reader import DecordReader
from .guarded_reader import GuardedReader, reading_progress
from .opencv_reader import OpenCVReader
from .opening import BACKENDS, check_backend, open_video
from .pyav_reader import PyAVReader
from .torchcodec_reader import TorchCodecReader
from .video_header import VideoHeader, read_header

__all__ = [
    'BACKENDS',
    'DecordReader',
    'OpenCVReader',
    'PyAVReader',
    'TorchCodecReader',
    'VideoEndError',
    'VideoHeader',
    'VideoReadError',
    'VideoReader',
    'VideoSamplingError',
    'VideoTimeoutError',
    'check_backend',
    'open_video',
    'read_header',
]

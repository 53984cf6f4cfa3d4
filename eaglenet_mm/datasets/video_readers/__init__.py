"""Readers of video files: frame numbers in, RGB frames out."""

from .base import (
    VideoEndError,
    VideoReader,
    VideoReadError,
    VideoSamplingError,
    VideoTimelineError,
    VideoTimeoutError,
)
from .decord_reader import DecordReader
from .guarded_reader import GuardedReader, reading_progress
from .opencv_reader import OpenCVReader
from .opening import BACKENDS, check_backend, open_video
from .pyav_reader import PyAVReader
from .timeline import Timeline
from .torchcodec_reader import TorchCodecReader
from .video_header import VideoHeader, read_header

__all__ = [
    'BACKENDS',
    'DecordReader',
    'GuardedReader',
    'OpenCVReader',
    'PyAVReader',
    'Timeline',
    'TorchCodecReader',
    'VideoEndError',
    'VideoHeader',
    'VideoReadError',
    'VideoReader',
    'VideoSamplingError',
    'VideoTimelineError',
    'VideoTimeoutError',
    'check_backend',
    'open_video',
    'read_header',
    'reading_progress',
]

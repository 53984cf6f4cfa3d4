"""Readers of video files: frame numbers in, RGB frames out."""

from .base import VideoEndError, VideoReader, VideoReadError
from .decord_reader import DecordReader
from .opencv_reader import OpenCVReader
from .opening import BACKENDS, check_backend, open_video
from .pyav_reader import PyAVReader, VideoHeader, read_header

__all__ = [
    'BACKENDS',
    'DecordReader',
    'OpenCVReader',
    'PyAVReader',
    'VideoEndError',
    'VideoHeader',
    'VideoReadError',
    'VideoReader',
    'check_backend',
    'open_video',
    'read_header',
]

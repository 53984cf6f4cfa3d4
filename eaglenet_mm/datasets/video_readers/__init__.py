"""Video readers: frame numbers in, RGB frames out."""

from eaglenet_mm.datasets.video_readers.base import (
    VideoEndError,
    VideoReader,
    VideoReadError,
    VideoSamplingError,
    VideoTimelineError,
    VideoTimeoutError,
)
from eaglenet_mm.datasets.video_readers.guarded_reader import (
    GuardedReader,
    reading_progress,
)
from eaglenet_mm.datasets.video_readers.opencv_reader import OpenCVReader
from eaglenet_mm.datasets.video_readers.opening import (
    BACKENDS,
    check_backend,
    open_video,
)
from eaglenet_mm.datasets.video_readers.pyav_reader import PyAVReader
from eaglenet_mm.datasets.video_readers.seeking_readers import (
    DecordReader,
    TorchCodecReader,
)
from eaglenet_mm.datasets.video_readers.timeline import Timeline
from eaglenet_mm.datasets.video_readers.video_header import (
    VideoHeader,
    read_header,
)

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

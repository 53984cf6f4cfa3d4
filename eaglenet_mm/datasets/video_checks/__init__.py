"""Check of all videos of a dataset before training."""

from eaglenet_mm.datasets.video_checks.check_set import (
    CheckReport,
    check_videos,
    clean_annotation,
    report_lines,
)
from eaglenet_mm.datasets.video_checks.one_video import (
    STATUSES,
    VideoCheck,
    check_video,
)

__all__ = [
    'STATUSES',
    'CheckReport',
    'VideoCheck',
    'check_video',
    'check_videos',
    'clean_annotation',
    'report_lines',
]

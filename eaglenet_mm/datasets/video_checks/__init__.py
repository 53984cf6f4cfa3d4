"""Checking of all videos of an annotation file before training."""

from .check_set import check_videos, clean_annotation
from .one_video import STATUSES, VideoCheck, check_video
from .report import CheckReport, report_lines

__all__ = [
    'STATUSES',
    'CheckReport',
    'VideoCheck',
    'check_video',
    'check_videos',
    'clean_annotation',
    'report_lines',
]

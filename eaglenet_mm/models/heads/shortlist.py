"""Deprecated import path; use ``eaglenet_mm.models.heads``."""

from eaglenet_mm.models.heads.base_pair_head import (
    mean_of_unit_frames,
    unit_sentences,
)

__all__ = ['mean_of_unit_frames', 'unit_sentences']

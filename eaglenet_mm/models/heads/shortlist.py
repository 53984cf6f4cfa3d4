"""Deprecated place of functions of the contract of heads."""

from eaglenet_mm.models.heads.base_pair_head import (
    mean_of_unit_frames,
    unit_sentences,
)

__all__ = ['mean_of_unit_frames', 'unit_sentences']

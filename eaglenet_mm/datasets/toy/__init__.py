"""The toy data set: videos of moving shapes, made in a minute."""

from .content import (
    ToyCombination,
    make_captions,
    order_blind_ceiling,
    split_combinations,
    toy_vocabulary,
)
from .drawing import render_video
from .writing import write_toy_dataset

__all__ = [
    'ToyCombination',
    'make_captions',
    'order_blind_ceiling',
    'render_video',
    'split_combinations',
    'toy_vocabulary',
    'write_toy_dataset',
]

"""Toy dataset of moving shapes, generated in a minute."""

from eaglenet_mm.datasets.toy.content import (
    ToyCombination,
    make_captions,
    order_blind_ceiling,
    split_combinations,
    toy_vocabulary,
)
from eaglenet_mm.datasets.toy.drawing import render_video
from eaglenet_mm.datasets.toy.writing import write_toy_dataset

__all__ = [
    'ToyCombination',
    'make_captions',
    'order_blind_ceiling',
    'render_video',
    'split_combinations',
    'toy_vocabulary',
    'write_toy_dataset',
]

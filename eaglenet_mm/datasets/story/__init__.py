"""Story set: videos of several scenes, generated in a minute."""

from eaglenet_mm.datasets.story.content import (
    Caption,
    Scene,
    make_captions,
    make_stories,
    mean_of_scenes_ceiling,
    order_blind_ceiling,
    split_scenes,
    story_vocabulary,
)
from eaglenet_mm.datasets.story.drawing import render_scene, render_story
from eaglenet_mm.datasets.story.writing import write_story_dataset

__all__ = [
    'Caption',
    'Scene',
    'make_captions',
    'make_stories',
    'mean_of_scenes_ceiling',
    'order_blind_ceiling',
    'render_scene',
    'render_story',
    'split_scenes',
    'story_vocabulary',
    'write_story_dataset',
]

"""Rendering of story videos, with numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eaglenet_mm.datasets.story.content import MOTIONS, SHAPES, Scene, Story

#: Frame rate of the files, before frames of the variable ones are left out.
VIDEO_FPS = 8
#: Shortest and longest scene, in frames.
SCENE_FRAMES = (14, 24)
#: Width and height of the files in pixels.
VIDEO_SIZE = 64

#: Bright shapes on dark backgrounds, so that a small network trained from
#: scratch separates them within minutes.
_COLOURS: dict[str, tuple[int, int, int]] = {
    'red': (250, 50, 50),
    'green': (60, 230, 80),
    'blue': (80, 110, 255),
    'yellow': (250, 230, 60),
    'white': (240, 240, 240),
    'orange': (250, 150, 30),
    'pink': (250, 110, 220),
    'cyan': (60, 225, 235),
}
_BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    'grey': (50, 50, 50),
    'navy': (10, 10, 90),
    'brown': (80, 45, 10),
    'purple': (70, 10, 75),
}


def draw_lengths(story: Story, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw the number of frames of each scene."""
    least, most = SCENE_FRAMES
    return tuple(int(rng.integers(least, most + 1)) for _ in story)


def render_story(
    story: Story, lengths: Sequence[int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Render the scenes of a story one after the other.

    Args:
        story (tuple[Scene, ...]): The scenes.
        lengths (Sequence[int]): Number of frames of each scene.
        rng (np.random.Generator): Source of all else that is not told.

    Returns:
        NDArray[np.uint8]: RGB frames, shape ``(sum(lengths), 64, 64, 3)``.
    """
    return np.concatenate(
        [
            render_scene(scene, length, rng)
            for scene, length in zip(story, lengths, strict=True)
        ]
    )


def render_scene(
    scene: Scene, num_frames: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Render a scene; ``rng`` is the source of all that is not told.

    Returns:
        NDArray[np.uint8]: RGB frames, shape ``(num_frames, 64, 64, 3)``.

    Raises:
        ValueError: If an attribute of the scene is unknown.
    """
    for value, known in (
        (scene.shape, SHAPES),
        (scene.colour, _COLOURS),
        (scene.motion, MOTIONS),
        (scene.background, _BACKGROUNDS),
    ):
        if value not in known:
            raise ValueError(
                f'A scene shows one of {list(known)}, but got {value!r} in '
                f'{scene}.'
            )
    # Render reverses forwards, then flip: the same set of frames.
    backwards = scene.motion in ('left', 'up', 'shrink', 'vanish')
    motion = scene.reversed.motion if backwards else scene.motion
    ground = np.array(_BACKGROUNDS[scene.background], np.float32)
    ground = ground + rng.uniform(-8, 8)
    colour = np.array(_COLOURS[scene.colour]) + rng.uniform(-14, 14, 3)
    size = (num_frames, VIDEO_SIZE, VIDEO_SIZE, 3)
    frames = 4 * rng.standard_normal(size, np.float32)
    for frame, centre, radius, opacity in zip(
        frames, *_course(motion, num_frames, rng), strict=True
    ):
        cover = opacity * _cover(scene.shape, centre, radius)[..., None]
        frame += ground * (1 - cover) + colour * cover
    if backwards:
        frames = frames[::-1]
    return np.clip(frames, 0, 255).round().astype(np.uint8)


def _course(
    motion: str, num_frames: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], ...]:
    """Centres (frames, 2) as x, y; radii (frames,); opacities (frames,)."""
    time = np.linspace(0, 1, num_frames)
    centres = np.tile(rng.uniform(26, 38, 2), (num_frames, 1))
    radii = np.full(num_frames, rng.uniform(17, 21))
    opacity = np.ones(num_frames)
    if motion in ('right', 'down'):
        axis = 0 if motion == 'right' else 1
        centres[:, axis] = rng.uniform(6, 12) + time * rng.uniform(40, 46)
    elif motion == 'grow':
        radii = rng.uniform(4, 9) + time * rng.uniform(18, 22)
    elif motion == 'appear':
        opacity = np.linspace(rng.uniform(0, 0.2), 1, num_frames)
    elif motion == 'blink':
        # on for a time, off for as long, with random phase: no order
        place = np.arange(num_frames) + rng.integers(8)
        opacity = np.where(place % 8 < 4, 1.0, 0.0)
    return centres, radii, opacity


def _cover(
    shape: str, centre: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Coverage of each pixel by the shape, (size, size) in [0, 1]."""
    pixels = np.arange(VIDEO_SIZE) + 0.5
    x, y = pixels[None, :] - centre[0], pixels[:, None] - centre[1]
    across, along = np.abs(x), np.abs(y)
    if shape == 'square':
        distance = np.maximum(across, along) - 0.9 * radius
    elif shape == 'triangle':
        side = 0.87 * across - 0.5 * y - 0.55 * radius
        distance = np.maximum(side, y - 0.75 * radius)
    elif shape == 'cross':
        arm = 0.36 * radius
        distance = np.minimum(
            np.maximum(across - arm, along - 1.1 * radius),
            np.maximum(along - arm, across - 1.1 * radius),
        )
    elif shape == 'disc':
        distance = np.hypot(x, y) - radius
    elif shape == 'bar':
        distance = np.maximum(across - 1.2 * radius, along - 0.3 * radius)
    else:
        distance = np.abs(np.hypot(x, y) - 0.8 * radius) - 0.28 * radius
    return np.clip(0.5 - distance, 0, 1)

"""Rendering of toy videos, with numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eaglenet_mm.datasets.toy.content import MOTIONS, SHAPES, ToyCombination

#: Frame rate of the files.
VIDEO_FPS = 8
#: Odd, so that sampling at 4 frames per second gives the same 6 frames when
#: the video is reversed.
FRAMES_PER_VIDEO = 11
#: Width and height of the files in pixels.
VIDEO_SIZE = 64

#: Bright shapes on dark backgrounds, so that a small network trained from
#: scratch separates them within minutes.
_COLOURS: dict[str, tuple[int, int, int]] = {
    'red': (250, 60, 60),
    'green': (60, 230, 80),
    'blue': (90, 120, 255),
    'yellow': (250, 230, 60),
    'white': (240, 240, 240),
}
_BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    'grey': (50, 50, 50),
    'navy': (10, 10, 90),
}


def render_video(
    combination: ToyCombination, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Render a combination; ``rng`` is the source of all other variation.

    Returns:
        NDArray[np.uint8]: RGB frames, shape ``(11, 64, 64, 3)``.

    Raises:
        ValueError: If an attribute of the combination is unknown.
    """
    for value, known in (
        (combination.shape, SHAPES),
        (combination.colour, _COLOURS),
        (combination.motion, MOTIONS),
        (combination.background, _BACKGROUNDS),
    ):
        if value not in known:
            raise ValueError(
                f'A toy video shows one of {list(known)}, but got {value!r} '
                f'in {combination}.'
            )
    # Render reverses forwards, then flip: the same set of frames.
    backwards = combination.motion in ('left', 'up', 'shrink', 'vanish')
    motion = combination.reversed.motion if backwards else combination.motion
    ground = np.array(_BACKGROUNDS[combination.background])
    ground = ground + rng.uniform(-8, 8)
    colour = np.array(_COLOURS[combination.colour]) + rng.uniform(-18, 18, 3)
    frames = np.empty((FRAMES_PER_VIDEO, VIDEO_SIZE, VIDEO_SIZE, 3))
    for frame, centre, radius, opacity in zip(
        frames, *_course(motion, rng), strict=True
    ):
        cover = opacity * _cover(combination.shape, centre, radius)[..., None]
        frame[...] = ground * (1 - cover) + colour * cover
    frames += rng.normal(0, 4, frames.shape)
    if backwards:
        frames = frames[::-1]
    return np.clip(frames, 0, 255).round().astype(np.uint8)


def _course(
    motion: str, rng: np.random.Generator
) -> tuple[NDArray[np.float64], ...]:
    """Centres (frames, 2) as x, y; radii (frames,); opacities (frames,)."""
    time = np.linspace(0, 1, FRAMES_PER_VIDEO)
    centres = np.tile(rng.uniform(26, 38, 2), (FRAMES_PER_VIDEO, 1))
    radii = np.full(FRAMES_PER_VIDEO, rng.uniform(17, 21))
    opacity = np.ones(FRAMES_PER_VIDEO)
    if motion in ('right', 'down'):
        axis = 0 if motion == 'right' else 1
        centres[:, axis] = rng.uniform(6, 12) + time * rng.uniform(40, 46)
    elif motion == 'grow':
        radii = rng.uniform(4, 9) + time * rng.uniform(18, 22)
    elif motion == 'appear':
        opacity = np.linspace(rng.uniform(0, 0.2), 1, FRAMES_PER_VIDEO)
    elif motion == 'blink':
        # on for two frames, off for two, with random phase: no order
        place = np.arange(FRAMES_PER_VIDEO) + rng.integers(4)
        opacity = np.where(place % 4 < 2, 1.0, 0.0)
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
    else:
        distance = np.abs(np.hypot(x, y) - 0.8 * radius) - 0.28 * radius
    return np.clip(0.5 - distance, 0, 1)

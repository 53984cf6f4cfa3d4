"""Moving shapes: combinations, their split, and how one is drawn.

A toy video shows one coloured shape doing one thing on one background. Its
combination of shape, colour, motion and background is all that the captions
tell; place, size, speed, shades, stripes and noise differ from rendering to
rendering. Most motions have a reverse that shows the **same set of frames**
in the opposite order: a model that is blind to order can only guess between
the two, and :func:`order_blind_ceiling` says how far that takes it.

Only numpy is needed here. Words are in :mod:`.toy_captions`, files are
written by :mod:`.toy_writer`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

#: Raise it whenever the same seed would give other videos or captions.
TOY_VERSION = 1
#: Frames a second of the files.
VIDEO_FPS = 8
#: Odd, so that every second frame, at 4 frames a second, gives 8 frames that
#: are the same 8 when the video runs backwards.
FRAMES_PER_VIDEO = 15
#: Width and height of the files in pixels.
VIDEO_SIZE = 64

SHAPES = ('square', 'triangle', 'cross', 'ring')
COLOURS: dict[str, tuple[int, int, int]] = {
    'red': (220, 40, 40),
    'green': (40, 190, 60),
    'blue': (50, 80, 235),
    'yellow': (235, 215, 40),
    'purple': (190, 50, 210),
}
BACKGROUNDS = ('dark', 'light', 'striped')
#: Every motion with its reverse; still and shaking are their own.
REVERSED_MOTION = {
    'right': 'left',
    'left': 'right',
    'up': 'down',
    'down': 'up',
    'grow': 'shrink',
    'shrink': 'grow',
    'still': 'still',
    'shake': 'shake',
}
#: Motions that are assigned to a split together.
MOTION_GROUPS = (
    ('right', 'left'),
    ('up', 'down'),
    ('grow', 'shrink'),
    ('still', 'shake'),
)
#: Share of the combinations; training gets the rest.
SPLIT_SHARES = {'test': 0.25, 'val': 0.125}


@dataclass(frozen=True)
class ToyCombination:
    """What a toy video shows; all that its captions may tell.

    Args:
        shape (str): One of ``SHAPES``.
        colour (str): One of ``COLOURS``.
        motion (str): One of ``REVERSED_MOTION``.
        background (str): One of ``BACKGROUNDS``.
    """

    shape: str
    colour: str
    motion: str
    background: str

    @property
    def reversed(self) -> ToyCombination:
        """The combination seen when the video runs backwards."""
        return replace(self, motion=REVERSED_MOTION[self.motion])

    @property
    def name(self) -> str:
        """A readable id, for example ``red-ring-left-striped``."""
        return f'{self.colour}-{self.shape}-{self.motion}-{self.background}'


def split_combinations(seed: int = 0) -> dict[str, list[ToyCombination]]:
    """Divide all combinations into train, val and test.

    Combinations that differ only within one of ``MOTION_GROUPS`` stay
    together, so a motion and its reverse are always in the same gallery. The
    shares of ``SPLIT_SHARES`` hold within every group.

    Args:
        seed (int): Seed of the division. Defaults to 0.

    Returns:
        dict[str, list[ToyCombination]]: Disjoint lists with the keys
        ``'train'``, ``'val'`` and ``'test'``; together every combination
        once.
    """
    rng = np.random.default_rng([seed, TOY_VERSION])
    splits: dict[str, list[ToyCombination]] = {
        'train': [],
        'val': [],
        'test': [],
    }
    looks = list(product(SHAPES, COLOURS, BACKGROUNDS))
    for group in MOTION_GROUPS:
        order = [looks[i] for i in rng.permutation(len(looks))]
        start = 0
        for split, share in SPLIT_SHARES.items():
            stop = start + round(share * len(looks))
            chosen, start = order[start:stop], stop
            splits[split] += _with_motions(chosen, group)
        splits['train'] += _with_motions(order[start:], group)
    return splits


def _with_motions(
    looks: Sequence[tuple[str, str, str]], motions: Sequence[str]
) -> list[ToyCombination]:
    return [
        ToyCombination(shape, colour, motion, background)
        for (shape, colour, background), motion in product(looks, motions)
    ]


def order_blind_ceiling(
    gallery: Sequence[ToyCombination], top_k: int
) -> float:
    """Give the best expected recall of a model that is blind to order.

    Videos whose combinations are equal or each other's reverse have the same
    distribution of frame sets. To a model that sees the set only they are
    exchangeable, so among the ``g`` of them in the gallery the right one is
    in any place with probability ``1/g``, at best among the first ``g``.

    Args:
        gallery (Sequence[ToyCombination]): The combination of each video;
            every video is asked for equally often.
        top_k (int): The K of R@K, at least 1.

    Returns:
        float: Recall at K in percent.

    Raises:
        ValueError: If the gallery is empty or ``top_k`` is below 1.
    """
    if not gallery or top_k < 1:
        raise ValueError(
            'The ceiling needs a gallery of at least one video and top_k >= '
            f'1, but got {len(gallery)} videos and top_k={top_k}.'
        )

    def frame_set(item: ToyCombination) -> ToyCombination:
        return min(item, item.reversed, key=lambda either: either.motion)

    sizes = Counter(map(frame_set, gallery))
    found = [min(1.0, top_k / sizes[frame_set(item)]) for item in gallery]
    return 100 * sum(found) / len(found)


def render_video(
    combination: ToyCombination, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw one rendering of a combination.

    Args:
        combination (ToyCombination): What to show.
        rng (np.random.Generator): Source of everything a caption does not
            tell.

    Returns:
        NDArray[np.uint8]: RGB frames, shape ``(15, 64, 64, 3)``.

    Raises:
        ValueError: If a part of the combination is unknown.
    """
    for value, known in (
        (combination.shape, SHAPES),
        (combination.colour, COLOURS),
        (combination.motion, REVERSED_MOTION),
        (combination.background, BACKGROUNDS),
    ):
        if value not in known:
            raise ValueError(
                f'A toy video shows one of {list(known)}, but got {value!r} '
                f'in {combination}.'
            )
    # A reverse is drawn forwards and turned round: the same set of frames.
    backwards = combination.motion in ('left', 'up', 'shrink')
    motion = combination.reversed.motion if backwards else combination.motion
    centres, radii = _trajectory(motion, rng)
    ground = _background(combination.background, rng)
    colour = np.array(COLOURS[combination.colour]) + rng.uniform(-18, 18, 3)
    frames = np.empty((FRAMES_PER_VIDEO, VIDEO_SIZE, VIDEO_SIZE, 3))
    for frame, centre, radius in zip(frames, centres, radii, strict=True):
        cover = _cover(combination.shape, centre, radius)[..., None]
        frame[...] = ground * (1 - cover) + colour * cover
    frames += rng.normal(0, 4, frames.shape)
    if backwards:
        frames = frames[::-1]
    return np.clip(frames, 0, 255).round().astype(np.uint8)


def _trajectory(
    motion: str, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (frames, 2) as x, y and radii (frames,), in pixels."""
    time = np.linspace(0, 1, FRAMES_PER_VIDEO)
    radii = np.full(FRAMES_PER_VIDEO, rng.uniform(11, 15))
    centres = np.tile(rng.uniform(24, 40, 2), (FRAMES_PER_VIDEO, 1))
    if motion in ('right', 'down'):
        axis = 0 if motion == 'right' else 1
        centres[:, axis] = rng.uniform(11, 19) + time * rng.uniform(26, 34)
    elif motion == 'grow':
        radii = rng.uniform(6, 9) + time * rng.uniform(11, 15)
    elif motion == 'shake':
        centres += rng.uniform(-9, 9, centres.shape)
    return centres, radii


def _background(
    background: str, rng: np.random.Generator
) -> NDArray[np.float64]:
    """One still picture, (size, size, 1)."""
    level = {'dark': 35.0, 'light': 205.0, 'striped': 60.0}[background]
    picture = np.full((VIDEO_SIZE, VIDEO_SIZE, 1), level)
    picture += rng.uniform(-15, 15)
    if background == 'striped':
        place = (np.arange(VIDEO_SIZE) + rng.integers(16)) % 16
        picture += 90.0 * (place < 8)[None, :, None]
    return picture


def _cover(
    shape: str, centre: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    """Share of each pixel that the shape covers, (size, size) in [0, 1]."""
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

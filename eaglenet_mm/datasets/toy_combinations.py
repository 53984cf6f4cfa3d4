"""What toy videos show: combinations, their split and its bounds.

A toy video shows one coloured shape doing one thing on one background. Its
combination of shape, colour, motion and background is all that the captions
tell; place, size, speed, shades and noise differ from rendering to rendering.
Most motions have a reverse that shows the **same set of frames** in the
opposite order: a model that is blind to order can only guess between the two,
and :func:`order_blind_ceiling` says how far that takes it.

Pictures are drawn by :mod:`.toy_shapes`, words are in :mod:`.toy_captions`,
files are written by :mod:`.toy_writer`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

#: Raise it whenever the same seed would give other videos or captions.
TOY_VERSION = 1

SHAPES = ('square', 'triangle', 'cross', 'ring')
COLOURS = ('red', 'green', 'blue', 'yellow', 'white')
BACKGROUNDS = ('grey', 'navy')
#: Every motion with its reverse; still and blinking are their own.
REVERSED_MOTION = {
    'right': 'left',
    'left': 'right',
    'up': 'down',
    'down': 'up',
    'grow': 'shrink',
    'shrink': 'grow',
    'appear': 'vanish',
    'vanish': 'appear',
    'still': 'still',
    'blink': 'blink',
}
#: Motions that are assigned to a split together.
MOTION_GROUPS = (
    ('right', 'left'),
    ('up', 'down'),
    ('grow', 'shrink'),
    ('appear', 'vanish'),
    ('still', 'blink'),
)
#: Share of the combinations; training gets the rest.
SPLIT_SHARES = {'test': 0.3, 'val': 0.1}


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
    shares of ``SPLIT_SHARES`` hold within every group, and the first few of
    a list show all motions.

    Args:
        seed (int): Seed of the division. Defaults to 0.

    Returns:
        dict[str, list[ToyCombination]]: Disjoint lists with the keys
        ``'train'``, ``'val'`` and ``'test'``; together every combination
        once.
    """
    rng = np.random.default_rng([seed, TOY_VERSION])
    looks = list(product(SHAPES, COLOURS, BACKGROUNDS))
    orders = [rng.permutation(len(looks)) for _ in MOTION_GROUPS]
    splits: dict[str, list[ToyCombination]] = {
        'train': [],
        'val': [],
        'test': [],
    }
    stops = {}
    stop = 0
    for split, share in SPLIT_SHARES.items():
        stop += round(share * len(looks))
        stops[split] = stop
    # The motions take turns, so that any first few show most of them.
    for place in range(len(looks)):
        split = next(
            (name for name, stop in stops.items() if place < stop), 'train'
        )
        for motions, order in zip(MOTION_GROUPS, orders, strict=True):
            shape, colour, background = looks[order[place]]
            splits[split] += [
                ToyCombination(shape, colour, motion, background)
                for motion in motions
            ]
    return splits


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

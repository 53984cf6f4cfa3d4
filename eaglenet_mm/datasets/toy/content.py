"""Content of toy videos and the wording of their captions.

A toy video shows one coloured shape performing one motion on one background.
Captions describe exactly this combination of shape, colour, motion and
background; position, size, speed, shade and noise vary between renderings.
Most motions have a reverse with the **same set of frames** in opposite order.
An order-blind model can only guess between the two;
:func:`order_blind_ceiling` computes its best possible recall.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

#: Raise whenever the same seed would give other videos or captions.
TOY_VERSION = 1

#: Values of each attribute, with their wording in captions.
SHAPES = {
    'square': ('square', 'box'),
    'triangle': ('triangle', 'wedge'),
    'cross': ('cross', 'plus sign'),
    'ring': ('ring', 'hoop'),
}
COLOURS = {
    'red': ('red', 'bright red'),
    'green': ('green', 'bright green'),
    'blue': ('blue', 'bright blue'),
    'yellow': ('yellow', 'bright yellow'),
    'white': ('white', 'bright white'),
}
MOTIONS = {
    'right': ('moves right', 'slides from left to right', 'goes to the right'),
    'left': ('moves left', 'slides from right to left', 'goes to the left'),
    'up': ('moves up', 'rises from bottom to top', 'climbs upwards'),
    'down': ('moves down', 'falls from top to bottom', 'sinks downwards'),
    'grow': ('grows', 'becomes bigger', 'gets larger and larger'),
    'shrink': ('shrinks', 'becomes smaller', 'gets smaller and smaller'),
    'appear': ('appears', 'fades in', 'becomes visible'),
    'vanish': ('vanishes', 'fades out', 'disappears'),
    'still': ('stays still', 'does not move', 'rests in its place'),
    'blink': ('blinks', 'flashes', 'comes and goes'),
}
BACKGROUNDS = {
    'grey': ('on a grey background', 'in front of a grey wall'),
    'navy': ('on a navy background', 'in front of a navy wall'),
}
_TEMPLATES = (
    'a {colour} {shape} {motion} {background}',
    '{background} a {colour} {shape} {motion}',
    'the {shape} is {colour} and {motion} {background}',
    'a video of a {colour} {shape} that {motion} {background}',
)

#: Motions assigned to the same split.
MOTION_GROUPS = (
    ('right', 'left'),
    ('up', 'down'),
    ('grow', 'shrink'),
    ('appear', 'vanish'),
    ('still', 'blink'),
)
_OWN_REVERSE = ('still', 'blink')
#: Every motion with its reverse.
REVERSED_MOTION = {
    one: one if one in _OWN_REVERSE else other
    for group in MOTION_GROUPS
    for one, other in (group, group[::-1])
}
#: Fractions of the combinations; training gets the rest.
SPLIT_SHARES = {'test': 0.3, 'val': 0.1}


@dataclass(frozen=True)
class ToyCombination:
    """Content of a toy video, as described by its captions.

    Values are keys of ``SHAPES``, ``COLOURS``, ``MOTIONS``, ``BACKGROUNDS``.
    """

    shape: str
    colour: str
    motion: str
    background: str

    @property
    def reversed(self) -> ToyCombination:
        """ToyCombination: Content of the video played backwards."""
        return replace(self, motion=REVERSED_MOTION[self.motion])

    @property
    def name(self) -> str:
        """str: Readable id, for example ``red-ring-left-navy``."""
        return f'{self.colour}-{self.shape}-{self.motion}-{self.background}'


def split_combinations(seed: int = 0) -> dict[str, list[ToyCombination]]:
    """Split all combinations into ``'train'``, ``'val'`` and ``'test'``.

    Combinations that differ only within one of ``MOTION_GROUPS`` stay
    together, so a motion and its reverse are always in the same gallery. The
    fractions of ``SPLIT_SHARES`` hold within every group, and the start of
    each list covers all motions.
    """
    rng = np.random.default_rng([seed, TOY_VERSION])
    looks = list(product(SHAPES, COLOURS, BACKGROUNDS))
    orders = [rng.permutation(len(looks)) for _ in MOTION_GROUPS]
    places = []
    for split, share in SPLIT_SHARES.items():
        places += [split] * round(share * len(looks))
    places += ['train'] * (len(looks) - len(places))
    splits: dict[str, list[ToyCombination]] = dict(train=[], val=[], test=[])
    # Interleave the motions, so that the first few items cover most of them.
    for place, split in enumerate(places):
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
    """Compute the best expected recall of an order-blind model, in percent.

    Videos with equal or mutually reverse combinations have the same
    distribution of frame sets, so an order-blind model cannot tell them apart.
    With ``g`` of them in the gallery, the right one is equally likely at each
    of ``g`` ranks, at best the first ``g``.

    Args:
        gallery (Sequence[ToyCombination]): The combination of each video;
            each is the target equally often.
        top_k (int): The K of R@K, at least 1.

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


def make_captions(
    combination: ToyCombination, num_captions: int, rng: np.random.Generator
) -> list[str]:
    """Describe a combination in different words.

    Every caption states shape, colour, motion and background, so it matches
    videos of this combination only. Captions have distinct templates, are
    lowercase and have no punctuation.

    Raises:
        ValueError: If ``num_captions`` is not between 1 and 4.
    """
    if not 1 <= num_captions <= len(_TEMPLATES):
        raise ValueError(
            f'A toy video has 1 to {len(_TEMPLATES)} captions, but got '
            f'num_captions={num_captions}.'
        )
    chosen = rng.permutation(len(_TEMPLATES))[:num_captions]
    return [
        _TEMPLATES[template].format(
            shape=rng.choice(SHAPES[combination.shape]),
            colour=rng.choice(COLOURS[combination.colour]),
            motion=rng.choice(MOTIONS[combination.motion]),
            background=rng.choice(BACKGROUNDS[combination.background]),
        )
        for template in chosen
    ]


def toy_vocabulary() -> list[str]:
    """List the words of toy captions, sorted, for ``WordTokenizer``."""
    phrases = [*_TEMPLATES]
    for attribute in (SHAPES, COLOURS, MOTIONS, BACKGROUNDS):
        for synonyms in attribute.values():
            phrases += synonyms
    words = {word for phrase in phrases for word in phrase.split()}
    return sorted(word for word in words if not word.startswith('{'))

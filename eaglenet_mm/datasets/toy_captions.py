"""The words of the toy videos."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np

from .toy_combinations import ToyCombination

_SHAPE_WORDS = {
    'square': ('square', 'box'),
    'triangle': ('triangle', 'wedge'),
    'cross': ('cross', 'plus sign'),
    'ring': ('ring', 'hoop'),
}
_COLOUR_WORDS = {
    'red': ('red', 'bright red'),
    'green': ('green', 'bright green'),
    'blue': ('blue', 'bright blue'),
    'yellow': ('yellow', 'bright yellow'),
    'white': ('white', 'bright white'),
}
_MOTION_WORDS = {
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
_BACKGROUND_WORDS = {
    'grey': ('on a grey background', 'in front of a grey wall'),
    'navy': ('on a navy background', 'in front of a navy wall'),
}
_TEMPLATES = (
    'a {colour} {shape} {motion} {background}',
    '{background} a {colour} {shape} {motion}',
    'the {shape} is {colour} and {motion} {background}',
    'a video of a {colour} {shape} that {motion} {background}',
)


def make_captions(
    combination: ToyCombination, num_captions: int, rng: np.random.Generator
) -> list[str]:
    """Describe a combination in different words.

    Every caption tells shape, colour, motion and background, so it fits the
    videos of this combination and no other.

    Args:
        combination (ToyCombination): What the video shows.
        num_captions (int): Captions wanted, 1 to 4; no two share a template.
        rng (np.random.Generator): Chooses templates and synonyms.

    Returns:
        list[str]: The captions, lower case, without punctuation.

    Raises:
        ValueError: If ``num_captions`` is not between 1 and 4.
    """
    if not 1 <= num_captions <= len(_TEMPLATES):
        raise ValueError(
            f'A toy video has 1 to {len(_TEMPLATES)} captions, but '
            f'num_captions={num_captions} was asked for.'
        )
    chosen = rng.permutation(len(_TEMPLATES))[:num_captions]
    return [
        _TEMPLATES[template].format(
            shape=rng.choice(_SHAPE_WORDS[combination.shape]),
            colour=rng.choice(_COLOUR_WORDS[combination.colour]),
            motion=rng.choice(_MOTION_WORDS[combination.motion]),
            background=rng.choice(_BACKGROUND_WORDS[combination.background]),
        )
        for template in chosen
    ]


def toy_vocabulary() -> list[str]:
    """List every word that a toy caption can contain.

    Returns:
        list[str]: The words, sorted; what ``WordTokenizer`` takes as its
        ``vocab``.
    """
    phrases: Iterable[str] = chain(
        *_SHAPE_WORDS.values(),
        *_COLOUR_WORDS.values(),
        *_MOTION_WORDS.values(),
        *_BACKGROUND_WORDS.values(),
        _TEMPLATES,
    )
    words = chain.from_iterable(phrase.split() for phrase in phrases)
    return sorted({word for word in words if not word.startswith('{')})

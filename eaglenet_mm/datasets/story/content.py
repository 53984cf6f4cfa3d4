"""Content of story videos and the wording of their captions.

A story video shows two or three scenes, one after the other. A scene is one
coloured shape doing something on a background. A caption tells one scene, or
two that follow each other; none tells a whole video of three. Position, size,
speed, shade and noise vary from video to video and are never told.

Most motions have a reverse with the **same set of frames** in opposite order.
A model blind to the order of frames can only guess between the two; one that
averages all frames loses which shape had which colour. Both bounds are
computed here: :func:`order_blind_ceiling`, :func:`mean_of_scenes_ceiling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np

#: Raise whenever the same seed would give other videos or captions.
STORY_VERSION = 2

#: Values of each attribute, with their wording in captions.
SHAPES = {
    'square': ('square', 'box'),
    'triangle': ('triangle', 'wedge'),
    'cross': ('cross', 'plus sign'),
    'ring': ('ring', 'hoop'),
    'disc': ('disc', 'ball'),
    'bar': ('bar', 'beam'),
}
COLOURS = {
    'red': ('red', 'bright red'),
    'green': ('green', 'bright green'),
    'blue': ('blue', 'bright blue'),
    'yellow': ('yellow', 'bright yellow'),
    'white': ('white', 'bright white'),
    'orange': ('orange', 'bright orange'),
    'pink': ('pink', 'bright pink'),
    'cyan': ('cyan', 'bright cyan'),
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
    'brown': ('on a brown background', 'in front of a brown wall'),
    'purple': ('on a purple background', 'in front of a purple wall'),
}
_TEMPLATES = (
    'a {colour} {shape} {motion} {background}',
    '{background} a {colour} {shape} {motion}',
    'the {shape} is {colour} and {motion} {background}',
    'there is a {colour} {shape} that {motion} {background}',
)
#: Two scenes in order, without backgrounds: short enough for the text tower.
_PART = 'a {colour} {shape} {motion}'
_LINKS = ('{first} then {second}', 'first {first} and then {second}')

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
#: Fractions of the scenes; training gets the rest.
SPLIT_SHARES = {'test': 0.25, 'val': 0.1}


@dataclass(frozen=True)
class Scene:
    """Content of a scene, as told by its captions.

    Values are keys of ``SHAPES``, ``COLOURS``, ``MOTIONS``, ``BACKGROUNDS``.
    """

    shape: str
    colour: str
    motion: str
    background: str

    @property
    def reversed(self) -> Scene:
        """Scene: Content of the scene played backwards."""
        return replace(self, motion=REVERSED_MOTION[self.motion])

    @property
    def name(self) -> str:
        """str: Readable id, for example ``red-ring-left-navy``."""
        return f'{self.colour}-{self.shape}-{self.motion}-{self.background}'


#: Scenes of a video in the order they are shown.
Story = tuple[Scene, ...]


@dataclass(frozen=True)
class Caption:
    """A sentence and the scenes it tells, as positions in the story."""

    text: str
    first: int
    last: int


def split_scenes(seed: int = 0) -> dict[str, list[Scene]]:
    """Split all 1920 scenes into ``'train'``, ``'val'`` and ``'test'``.

    Scenes that differ only within one of ``MOTION_GROUPS`` stay together, so
    a motion and its reverse are always in the same split. The fractions of
    ``SPLIT_SHARES`` hold within every group.
    """
    rng = np.random.default_rng([seed, STORY_VERSION])
    looks = list(product(SHAPES, COLOURS, BACKGROUNDS))
    splits: dict[str, list[Scene]] = dict(train=[], val=[], test=[])
    places = []
    for split, share in SPLIT_SHARES.items():
        places += [split] * round(share * len(looks))
    places += ['train'] * (len(looks) - len(places))
    for motions in MOTION_GROUPS:
        for split, look in zip(
            places, rng.permutation(len(looks)), strict=True
        ):
            shape, colour, background = looks[look]
            splits[split] += [
                Scene(shape, colour, motion, background) for motion in motions
            ]
    return splits


def make_stories(
    scenes: Sequence[Scene],
    num_stories: int,
    rng: np.random.Generator,
    *,
    three_scenes: float = 0.1,
) -> list[Story]:
    """Join scenes into stories of two and three, in random order.

    Scenes are dealt like cards: all of them once, then all of them again. As
    long as there are enough, no scene comes twice and every caption has one
    right answer. Scenes of one story differ in shape and colour.

    Args:
        scenes (Sequence[Scene]): Scenes of the split.
        num_stories (int): Number of stories.
        rng (np.random.Generator): Source of the order.
        three_scenes (float): Fraction of stories with three scenes.
            Default: 0.1.
    """
    stories: list[Story] = []
    hand: list[Scene] = []
    num_long = round(three_scenes * num_stories)
    for size in rng.permutation(
        [3] * num_long + [2] * (num_stories - num_long)
    ):
        story: list[Scene] = []
        while len(story) < size:
            fitting = _first_fitting(hand, story)
            if fitting is None:
                hand += [scenes[k] for k in rng.permutation(len(scenes))]
            else:
                story.append(hand.pop(fitting))
        stories.append(tuple(story))
    return stories


def _first_fitting(
    hand: Sequence[Scene], story: Sequence[Scene]
) -> int | None:
    """Place of the first scene whose shape and colour are not told yet."""
    for place, scene in enumerate(hand):
        if all(
            scene.shape != other.shape and scene.colour != other.colour
            for other in story
        ):
            return place
    return None


def make_captions(story: Story, rng: np.random.Generator) -> list[Caption]:
    """Tell a story in different words: each scene twice, some pairs once.

    A caption of one scene states shape, colour, motion and background. In
    about a quarter of the stories one more caption tells two scenes that
    follow each other, without their backgrounds. Captions are lowercase and
    have no punctuation.
    """
    captions = []
    for place, scene in enumerate(story):
        for template in rng.permutation(len(_TEMPLATES))[:2]:
            text = _word(_TEMPLATES[template], scene, rng)
            captions.append(Caption(text, place, place))
    if rng.random() < 1 / 4:
        first = int(rng.integers(len(story) - 1))
        one, other = (_word(_PART, story[first + k], rng) for k in (0, 1))
        text = rng.choice(_LINKS).format(first=one, second=other)
        captions.append(Caption(text, first, first + 1))
    return captions


def _word(template: str, scene: Scene, rng: np.random.Generator) -> str:
    text = template.format(
        shape=rng.choice(SHAPES[scene.shape]),
        colour=rng.choice(COLOURS[scene.colour]),
        motion=rng.choice(MOTIONS[scene.motion]),
        background=rng.choice(BACKGROUNDS[scene.background]),
    )
    return text.replace('a orange', 'an orange')


def story_vocabulary() -> list[str]:
    """List the words of story captions, sorted, for ``WordTokenizer``."""
    phrases = [*_TEMPLATES, _PART, *_LINKS, 'an']
    for attribute in (SHAPES, COLOURS, MOTIONS, BACKGROUNDS):
        for synonyms in attribute.values():
            phrases += synonyms
    words = {word for phrase in phrases for word in phrase.split()}
    return sorted(word for word in words if not word.startswith('{'))


def order_blind_ceiling(
    stories: Sequence[Story],
    queries: Sequence[tuple[int, Caption]],
    top_k: int,
) -> float:
    """Best expected recall of a model blind to the order of frames.

    Such a model sees, at best, which scenes a video has, without the
    direction of their motion and without their order. With ``g`` videos that
    fit a caption, the right one is equally likely at each of ``g`` ranks.

    Args:
        stories (Sequence[Story]): Stories of the gallery.
        queries (Sequence[tuple[int, Caption]]): Story and caption of each
            query.
        top_k (int): The K of R@K, at least 1.

    Returns:
        float: Percent.

    Raises:
        ValueError: If there is no query, or ``top_k`` is below 1.
    """
    _check(queries, top_k)

    def blind(scene: Scene, told_alone: bool) -> tuple[str, ...]:
        motion = min(scene.motion, scene.reversed.motion)
        seen = (scene.shape, scene.colour, motion)
        return (*seen, scene.background) if told_alone else seen

    galleries = {
        alone: [{blind(scene, alone) for scene in story} for story in stories]
        for alone in (True, False)
    }
    found = 0.0
    for target, caption in queries:
        alone = caption.first == caption.last
        told = {
            blind(scene, alone)
            for scene in stories[target][caption.first : caption.last + 1]
        }
        fitting = sum(told <= seen for seen in galleries[alone])
        found += min(1.0, top_k / fitting)
    return 100 * found / len(queries)


def mean_of_scenes_ceiling(
    stories: Sequence[Story],
    queries: Sequence[tuple[int, Caption]],
    top_k: int,
) -> float:
    """Recall of an oracle that knows all scenes and averages them.

    A scene is a vector with one place for each shape, colour, motion and
    background; a video is the mean of its scenes, a caption that of the
    scenes it tells, and the cosine of the two is the score. This is the best
    a mean over frames can do if attributes have directions of their own.
    Equal scores are ranked at random.

    Args:
        stories (Sequence[Story]): Stories of the gallery.
        queries (Sequence[tuple[int, Caption]]): Story and caption of each
            query.
        top_k (int): The K of R@K, at least 1.

    Returns:
        float: Percent, expected over the order of ties.

    Raises:
        ValueError: If there is no query, or ``top_k`` is below 1.
    """
    _check(queries, top_k)
    places = {
        value: place
        for place, value in enumerate(
            [*SHAPES, *COLOURS, *MOTIONS, *BACKGROUNDS]
        )
    }

    def vector(scenes: Sequence[Scene], with_background: bool) -> np.ndarray:
        total = np.zeros(len(places))
        for scene in scenes:
            told = [scene.shape, scene.colour, scene.motion]
            if with_background:
                told.append(scene.background)
            total[[places[value] for value in told]] += 1
        return total / np.linalg.norm(total)

    videos = np.stack([vector(story, True) for story in stories])
    found = 0.0
    for target, caption in queries:
        told = stories[target][caption.first : caption.last + 1]
        scores = videos @ vector(told, len(told) == 1)
        better = int((scores > scores[target] + 1e-9).sum())
        tied = int((np.abs(scores - scores[target]) <= 1e-9).sum())
        found += float(np.clip((top_k - better) / tied, 0, 1))
    return 100 * found / len(queries)


def _check(queries: Sequence[tuple[int, Caption]], top_k: int) -> None:
    if not queries or top_k < 1:
        raise ValueError(
            'A ceiling needs at least one query and top_k >= 1, but got '
            f'{len(queries)} queries and top_k={top_k}.'
        )


def find_ambiguous(
    stories: Sequence[Story], queries: Sequence[tuple[int, Caption]]
) -> list[str]:
    """List the captions that tell more than one story of a gallery."""
    ambiguous = []
    for target, caption in queries:
        told = stories[target][caption.first : caption.last + 1]
        if len(told) == 1:
            fits = [told[0] in story for story in stories]
        else:
            pair = [(s.shape, s.colour, s.motion) for s in told]
            fits = [
                any(
                    [(s.shape, s.colour, s.motion) for s in both] == pair
                    for both in pairwise(story)
                )
                for story in stories
            ]
        if sum(fits) > 1:
            ambiguous.append(caption.text)
    return ambiguous

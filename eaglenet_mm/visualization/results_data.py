"""What a page of results shows, as plain data that JSON can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Names the files and their version; a reader refuses what it does not know.
FORMAT = 'eaglenet_mm results'
VERSION = 1

#: Results shown of a query.
TOP = 5

Points = list[list[float]]

_BASE64 = re.compile('[A-Za-z0-9+/]*=*')


@dataclass
class ShownResult:
    """One video in the answer to a query."""

    column: int  # of the video in the gallery
    rank: int  # from 1; ties count against the right one
    score: float | None  # of the head, raw; None if it was not kept
    # by name: a weight a frame, and shares of the texts of the pair
    frame_weights: dict[str, list[float]] = field(default_factory=dict)
    text_weights: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class ShownQuery:
    """A caption with its first answers, and the right one behind them."""

    row: int
    results: list[ShownResult]


@dataclass
class ShownVideo:
    """A video whose frames are shown."""

    column: int
    # frames of the model that are shown; padding from place num_images on
    slots: list[int] = field(default_factory=list)
    num_images: int = 0
    height: int = 0  # of the strip in pixels
    strip: str = ''  # JPEG in base64: frames side by side
    problem: str = ''  # why there is no strip


@dataclass
class Projection:
    """Embeddings of texts and their videos in the plane."""

    title: str
    text_name: str
    rows: list[int]  # caption of each pair
    texts: Points
    videos: Points
    explained: float  # share of the variance that the plane holds
    own_cosine: float  # mean over the pairs
    centred: bool = False  # the mean of each side is taken off


@dataclass
class Confusion:
    """Two videos of which one is returned for captions of the other."""

    row: int  # the caption for which it happened most clearly
    column: int  # the wrong video
    count: int  # captions of the one that got the other, both ways
    margin: float  # score of the wrong video minus that of the right one
    other_row: int  # nearest caption of the wrong video, -1: it has none
    caption_cosine: float


@dataclass
class ConfusionMatrix:
    """Scores among the n videos that are confused most."""

    columns: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # a caption of each
    # n x n: mean score of the captions of a video with a video, and how many
    # of these captions rank that video first
    scores: Points = field(default_factory=list)
    firsts: list[list[int]] = field(default_factory=list)


@dataclass
class Curves:
    """Curves of the training: points of iteration and value, by name."""

    losses: dict[str, Points] = field(default_factory=dict)
    recalls: dict[str, Points] = field(default_factory=dict)  # R@1, percent
    note: str = ''  # where they are from, or why there are none


@dataclass
class RetrievalResults:
    """Results of one evaluation, as pages and their JSON file hold them.

    Args:
        about (dict[str, str]): Facts to state, by name: method, config,
            checkpoint, dataset and so on.
        num_frames (int): Frames of a video, padding included.
        metrics (dict[str, float]): Of the evaluation.
        captions (list[str]): All captions of the set, in order.
        video_ids (list[str]): All videos of the gallery, in order.
        targets (list[int]): Column of each caption's video.
        ranks (list[int]): Text-to-video rank of each caption.
        video_ranks (list[int]): Video-to-text rank of each video that has
            captions.
        top_columns (list): The first videos of each caption.
        top_scores (list): Their scores.
        selection (str): Which queries are shown.
        queries (list[ShownQuery]): Those.
        videos (list[ShownVideo]): All videos that they show.
        projections (list[Projection]): Maps, before and after.
        confusions (list[Confusion]): Most frequent first.
        matrix (ConfusionMatrix): Of the confused videos.
        curves (Curves): Of the training.
        right (list, optional): Columns of all right videos of each caption,
            where a caption has several or none; None otherwise. A caption
            without one has the rank 0 and, in ``targets``, -1. Default: None.

    Example:
        >>> results = read_results('results/eaglenet')  # doctest: +SKIP
        >>> results.ranks.count(1)  # doctest: +SKIP
        468
    """

    about: dict[str, str]
    num_frames: int
    metrics: dict[str, float]
    captions: list[str]
    video_ids: list[str]
    targets: list[int]
    ranks: list[int]
    video_ranks: list[int]
    top_columns: list[list[int]]
    top_scores: Points
    selection: str
    queries: list[ShownQuery]
    videos: list[ShownVideo]
    projections: list[Projection]
    confusions: list[Confusion]
    matrix: ConfusionMatrix
    curves: Curves
    right: list[list[int]] | None = None

    def right_of(self, row: int) -> list[int]:
        """List the columns of the right videos of a caption."""
        return [self.targets[row]] if self.right is None else self.right[row]

    def answerable_ranks(self) -> list[int]:
        """List the ranks of the captions that have a right video."""
        return [rank for rank in self.ranks if rank]

    def to_dict(self) -> dict[str, Any]:
        """Turn into what JSON can hold, with format and version."""
        data = {'format': FORMAT, 'version': VERSION, **asdict(self)}
        if self.right is None:
            del data['right']
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RetrievalResults:
        """Read what :meth:`to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: If something is missing, of
                another kind or does not fit the rest.
        """
        parts = {
            key: data[key]
            for key in cls.__dataclass_fields__
            if key != 'right' or key in data
        }
        parts['queries'] = [
            ShownQuery(
                query['row'],
                [ShownResult(**result) for result in query['results']],
            )
            for query in parts['queries']
        ]
        for name, kind in (
            ('videos', ShownVideo),
            ('projections', Projection),
            ('confusions', Confusion),
        ):
            parts[name] = [kind(**item) for item in parts[name]]
        parts['matrix'] = ConfusionMatrix(**parts['matrix'])
        parts['curves'] = Curves(**parts['curves'])
        results = cls(**parts)
        results.check()
        return results

    def check(self) -> None:
        """Refuse lengths that differ and places that lie outside."""
        num_texts, num_videos = len(self.captions), len(self.video_ids)
        names = ['targets', 'ranks', 'top_columns', 'top_scores']
        for name in names + ['right'] * (self.right is not None):
            if len(getattr(self, name)) != num_texts:
                raise ValueError(
                    f"'{name}' has {len(getattr(self, name))} entries for "
                    f'{num_texts} captions.'
                )
        for value in [*self.metrics.values(), *self.ranks]:
            if not isinstance(value, int | float):
                raise TypeError(f'{value!r} should be a number.')
        for text in [*self.captions, *self.video_ids, *self.about.values()]:
            if not isinstance(text, str):
                raise TypeError(f'{text!r} should be a text.')
        for video in self.videos:
            if not _BASE64.fullmatch(video.strip):
                raise ValueError(f'Strip {video.column} is no base64.')
        right = [self.targets] if self.right is None else self.right
        columns = [
            *(column for own in [*right, *self.top_columns] for column in own),
            *(video.column for video in self.videos),
            *(item.column for query in self.queries for item in query.results),
        ]
        rows = [query.row for query in self.queries]
        for places, bound, kind in (
            (rows, num_texts, 'captions'),
            (columns, num_videos, 'videos'),
        ):
            if places and not 0 <= min(places) <= max(places) < bound:
                raise ValueError(f'It names {kind} that it does not hold.')

"""Content of a results page, as JSON-compatible data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Identifier and version of the files; others are refused.
FORMAT = 'eaglenet_mm results'
VERSION = 1

#: Number of results shown per query.
TOP = 5

Points = list[list[float]]

_BASE64 = re.compile('[A-Za-z0-9+/]*=*')


@dataclass
class ShownResult:
    """A video in the answer to a query."""

    column: int  # of the video in the gallery
    rank: int  # from 1; ties count against the right one
    score: float | None  # raw score of the head; None if not stored
    # by name: one weight per frame, and shares of the candidate texts
    frame_weights: dict[str, list[float]] = field(default_factory=dict)
    text_weights: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class ShownQuery:
    """A caption with its top videos, and the right one after them."""

    row: int
    results: list[ShownResult]


@dataclass
class ShownVideo:
    """A video shown with frames."""

    column: int
    # positions of the shown frames; padding from index num_images on
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
    explained: float  # share of the variance explained by the plane
    own_cosine: float  # mean over the pairs
    centred: bool = False  # whether each side's mean was subtracted


@dataclass
class Confusion:
    """A pair of videos, one returned for captions of the other."""

    row: int  # caption with the largest margin
    column: int  # the wrong video
    count: int  # number of such captions, in both directions
    margin: float  # score of the wrong video minus that of the right one
    other_row: int  # nearest caption of the wrong video; -1 if it has none
    caption_cosine: float


@dataclass
class ConfusionMatrix:
    """Scores among the n most confused videos."""

    columns: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # one caption of each
    # n x n: mean score of a video's captions with each video, and number of
    # these captions that rank it first
    scores: Points = field(default_factory=list)
    firsts: list[list[int]] = field(default_factory=list)


@dataclass
class Curves:
    """Training curves by name, as points of iteration and value."""

    losses: dict[str, Points] = field(default_factory=dict)
    recalls: dict[str, Points] = field(default_factory=dict)  # R@1, percent
    note: str = ''  # their source, or why there are none


@dataclass
class RetrievalResults:
    """Results of one evaluation, as shown on pages and stored as JSON.

    Args:
        about (dict[str, str]): Facts by name: method, config, checkpoint,
            dataset and so on.
        num_frames (int): Frames per video, including padding.
        metrics (dict[str, float]): Metrics of the evaluation.
        captions (list[str]): All captions of the set, in order.
        video_ids (list[str]): All videos of the gallery, in order.
        targets (list[int]): Column of each caption's video.
        ranks (list[int]): Text-to-video rank of each caption.
        video_ranks (list[int]): Video-to-text rank of each video with
            captions.
        top_columns (list): Top videos of each caption.
        top_scores (list): Their scores.
        selection (str): How the shown queries were chosen.
        queries (list[ShownQuery]): The shown queries.
        videos (list[ShownVideo]): The videos of these queries.
        projections (list[Projection]): Maps before and after the head.
        confusions (list[Confusion]): Confused videos, most frequent first.
        matrix (ConfusionMatrix): Scores among confused videos.
        curves (Curves): Training curves.
        right (list, optional): Columns of all right videos of each caption,
            if any caption has several or none. A caption without right video
            has rank 0 and target -1. Default: None.

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
        """Convert to JSON-compatible data, with format and version."""
        data = {'format': FORMAT, 'version': VERSION, **asdict(self)}
        if self.right is None:
            del data['right']
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RetrievalResults:
        """Load the output of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: If an entry is missing, invalid
                or inconsistent with the others.
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
        """Check that lengths agree and indices are in range."""
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
                raise TypeError(f'{text!r} should be a string.')
        for video in self.videos:
            if not _BASE64.fullmatch(video.strip):
                raise ValueError(f'Strip {video.column} is not base64.')
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
                raise ValueError(f'It refers to {kind} that do not exist.')

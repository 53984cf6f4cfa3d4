"""Two stages over an index, with a head whose scores are known."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.search.records import Moments
from eaglenet_mm.search.searching import VideoSearcher
from eaglenet_mm.search.shortlisters import build_shortlister
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.structures import TextFeatures
from tests.search.index_parts import (
    FRAMES,
    MODEL,
    WIDTH,
    make_file,
    make_moments,
)


class OneScore:
    """Gives every pair the same score."""

    def shortlist_text(self, text: TextFeatures) -> Tensor:
        return F.normalize(text.embeds, dim=-1)

    def prepare_text(self, text: TextFeatures) -> Any:
        return text

    def chunk_scorer(self) -> None:
        return None

    def score_chunked(self, text: Any, state: Any, _: None) -> Tensor:
        return torch.full((len(text), len(state)), 0.5)


class Searcher(VideoSearcher):
    """States are their frames alone."""

    def _state_template(self) -> Any:
        return TextFeatures(torch.zeros(1, WIDTH))


def make_searcher(moments: list[Moments]) -> Searcher:
    index = VideoIndex(MODEL)
    for number, own in enumerate(moments):
        own.state = {'embeds': own.vectors}
        index.add(make_file(number), own)
    shortlister = build_shortlister(
        'torch', embed_dim=WIDTH, num_rows=len(index)
    )
    return Searcher(OneScore(), index, shortlister)


def test_of_equal_scores_the_earlier_row_comes_first() -> None:
    """Whatever the first stage thinks of them."""
    searcher = make_searcher([make_moments(number) for number in range(9)])
    text = TextFeatures(torch.randn(1, WIDTH))
    similarities, row_ids = searcher.shortlist(text, 5)
    assert row_ids.tolist() != sorted(row_ids.tolist())
    hits = searcher.search(text, 5, 5)
    assert [hit.entry.row_id for hit in hits] == sorted(row_ids.tolist())
    by_row = dict(zip(row_ids.tolist(), similarities.tolist(), strict=True))
    for hit in hits:
        assert hit.score == 0.5
        assert hit.similarity == by_row[hit.entry.row_id]


def test_the_best_moment_is_never_padding() -> None:
    """All real frames point away from the query; padding is nearer."""
    query = torch.eye(WIDTH)[:1]
    moments = make_moments(1)
    moments.frames = -query.expand(1, FRAMES, WIDTH).clone()
    moments.frames[:, -1] = 0
    moments.frame_times[:, -1] = torch.nan
    hits = make_searcher([moments]).search(TextFeatures(query), 1, 0)
    assert hits[0].best_time == 0.0


def test_an_empty_index() -> None:
    searcher = make_searcher([])
    assert searcher.search(TextFeatures(torch.randn(1, WIDTH)), 3, 0) == []


def test_the_best_moment_lies_in_its_segment() -> None:
    """Times are float32, which is not always above a start in float64."""
    moments = make_moments(1)
    moments.spans = torch.tensor([[2.0999999999, 2.5]], dtype=torch.float64)
    moments.frame_times[:] = 2.0999999999
    (hit,) = make_searcher([moments]).search(
        TextFeatures(torch.randn(1, WIDTH)), 1, 0
    )
    assert hit.best_time == hit.entry.start == 2.0999999999

"""Two stages over an index, with heads whose scores are known."""

from __future__ import annotations

import contextlib
import sqlite3
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.search.errors import DamagedIndexError, OtherModelError
from eaglenet_mm.search.records import MomentFilter, Moments
from eaglenet_mm.search.searching import Page, SearchAnswer, VideoSearcher
from eaglenet_mm.search.shortlisters import build_shortlister
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.structures import EmbedsState, TextFeatures, VideoFeatures
from tests.search.index_rows import (
    FRAMES,
    WIDTH,
    make_file,
    make_index,
    make_moments,
)


class FirstFrameHead(BasePairHead):
    """Scores the first frame, which the first stage does not look at."""

    def __init__(self) -> None:
        super().__init__(numbers_per_pair=(1, 1))

    def prepare_text(self, text: TextFeatures) -> EmbedsState:
        return EmbedsState(F.normalize(text.embeds, dim=-1))

    def prepare_video(self, video: VideoFeatures) -> EmbedsState:
        return EmbedsState(F.normalize(video.frames[:, 0], dim=-1))

    def score(self, text: Any, video: Any) -> Tensor:
        return text.embeds @ video.embeds.T


class OneScoreHead(FirstFrameHead):
    """Gives every pair the same score."""

    def score(self, text: Any, video: Any) -> Tensor:
        return torch.full((len(text), len(video)), 0.5)


def make_searcher(
    moments: list[Moments], head: BasePairHead | None = None, **file: Any
) -> VideoSearcher:
    index = make_index()
    for number, own in enumerate(moments):
        index.add(make_file(number, **file), own)
    return over(index, head)


def over(index: VideoIndex, head: BasePairHead | None = None) -> VideoSearcher:
    return VideoSearcher(
        head or OneScoreHead(), 'x', index, build_shortlister('torch', index)
    )


def text(seed: int = 0, count: int = 1) -> TextFeatures:
    generator = torch.Generator().manual_seed(seed)
    return TextFeatures(torch.randn(count, WIDTH, generator=generator))


def ids(answer: SearchAnswer) -> list[int]:
    return [hit.moment_id for hit in answer]


def test_of_equal_scores_the_earlier_row_comes_first() -> None:
    """Whatever the first stage thinks of them."""
    searcher = make_searcher([make_moments(number) for number in range(9)])
    similarities, found = searcher.shortlist(text(), 5)[0]
    assert found.tolist() != sorted(found.tolist())
    (answer,) = searcher.search(text(), Page(5, shortlist=5))
    assert ids(answer) == sorted(found.tolist())
    by_row = dict(zip(found.tolist(), similarities.tolist(), strict=True))
    for hit in answer:
        assert hit.score == 0.5
        assert hit.similarity == pytest.approx(by_row[hit.moment_id])


def test_the_best_moment_is_never_padding() -> None:
    """All real frames point away from the query; padding is nearer."""
    query = torch.eye(WIDTH)[:1]
    moments = make_moments(1)
    frames = -query.expand(1, FRAMES, WIDTH).clone()
    frames[:, -1] = 0
    moments.features['frames'] = frames
    moments.times[:, -1] = torch.nan
    (answer,) = make_searcher([moments]).search(
        TextFeatures(query), Page(1, shortlist=0)
    )
    assert answer[0].best_time == 0.0


def test_the_best_moment_lies_in_its_segment() -> None:
    """Times are float32, which is not always above a start in float64."""
    moments = make_moments(1)
    moments.spans = torch.tensor([[2.0999999999, 2.5]], dtype=torch.float64)
    moments.times[:] = 2.0999999999
    (answer,) = make_searcher([moments]).search(text(), Page(1, shortlist=0))
    assert answer[0].best_time == answer[0].start == 2.0999999999


@pytest.mark.parametrize('shortlist', [0, 3])
def test_an_empty_index(shortlist: int) -> None:
    searcher = make_searcher([])
    answers = searcher.search(text(count=2), Page(3, shortlist=shortlist))
    assert [len(answer) for answer in answers] == [0, 0]
    assert not answers[0].has_more
    video = VideoFeatures(
        torch.randn(1, FRAMES, WIDTH), torch.ones(1, FRAMES).bool()
    )
    assert len(searcher.search_video(video, Page(3))) == 0


@pytest.mark.parametrize('shortlist', [0, 4, 100])
def test_pages_follow_each_other(shortlist: int) -> None:
    """In blocks of the shortlist, each in the order of the head."""
    head = FirstFrameHead()
    searcher = make_searcher([make_moments(n) for n in range(11)], head)
    pages = [
        searcher.search(text(), Page(2, shortlist=shortlist, offset=offset))[0]
        for offset in range(0, 12, 2)
    ]
    found = [number for page in pages for number in ids(page)]
    assert sorted(found) == searcher.index.ids.tolist()
    assert [page.has_more for page in pages] == [True] * 5 + [False]
    near = searcher.shortlist(text(), 11)[0][1].tolist()
    scores = {hit.moment_id: hit.score for page in pages for hit in page}
    size = shortlist or 11
    for first in range(0, 11, size):
        block = sorted(near[first : first + size], key=lambda x: -scores[x])
        assert found[first : first + size] == block
    assert {page.top_score for page in pages} == {scores[found[0]]}


def test_several_texts_are_searched_as_one_by_one() -> None:
    searcher = make_searcher(
        [make_moments(n, 3) for n in range(20)], FirstFrameHead()
    )
    for shortlist in (0, 7):
        together = searcher.search(text(count=5), Page(3, shortlist=shortlist))
        for place, one in enumerate(text(count=5).split(1)):
            (alone,) = searcher.search(one, Page(3, shortlist=shortlist))
            assert ids(together[place]) == ids(alone)


def test_hits_of_one_video() -> None:
    """Its best moment stands for it, with the others behind."""
    searcher = make_searcher(
        [make_moments(n, 4) for n in range(5)], FirstFrameHead()
    )
    (flat,) = searcher.search(text(), Page(20, shortlist=0))
    (grouped,) = searcher.search(text(), Page(20, shortlist=0, per_video=1))
    assert len(grouped) == 5
    assert len({hit.path for hit in grouped}) == 5
    for hit in grouped:
        own = [x.moment_id for x in flat if x.path == hit.path]
        assert [hit.moment_id, *(x.moment_id for x in hit.others)] == own
    # also where the shortlist has to grow for it
    pages = [
        hit.path
        for offset in range(0, 6, 2)
        for hit in searcher.search(
            text(), Page(2, shortlist=3, offset=offset, per_video=1)
        )[0]
    ]
    assert len(pages) == len(set(pages)) == 5
    (two,) = searcher.search(text(), Page(20, shortlist=0, per_video=2))
    assert len(two) == 10


def test_overlapping_moments_are_one() -> None:
    moments = make_moments(1, 3)
    moments.spans = torch.tensor([[0, 10], [5, 15], [10, 20]]).double()
    (answer,) = make_searcher([moments]).search(
        text(), Page(9, shortlist=0, per_video=1)
    )
    (hit,) = answer
    # all scores are equal: the first stands, the second overlaps it
    assert (hit.start, [x.start for x in hit.others]) == (0.0, [10.0])


def test_a_filter_limits_both_stages() -> None:
    index = make_index()
    for number in range(12):
        index.add(
            make_file(number, duration=number, changed=number * 10**9),
            make_moments(number),
        )
    searcher = over(index, FirstFrameHead())
    where = MomentFilter(min_duration=3, before=9.0)
    for shortlist in (0, 2, 50):
        (answer,) = searcher.search(
            text(), Page(99, shortlist=shortlist, where=where)
        )
        assert {hit.duration for hit in answer} == {3, 4, 5, 6, 7, 8}
        assert answer.total == 6
    (none,) = searcher.search(
        text(), Page(9, shortlist=4, where=MomentFilter(path='/nowhere'))
    )
    assert (len(none), none.total) == (0, 0)


def test_what_is_committed_meanwhile_is_found(tmp_path: Any) -> None:
    """A reader keeps up with a writer, also while it looks at its rows."""
    writer = make_index(tmp_path / 'index')
    writer.add(make_file(0), make_moments(0))
    reader = VideoIndex.load(tmp_path / 'index')
    searcher = over(reader, FirstFrameHead())
    assert len(searcher.search(text(), Page(9, shortlist=0))[0]) == 1
    writer.add(make_file(1), make_moments(1))
    assert len(searcher.search(text(), Page(9, shortlist=0))[0]) == 2
    read, replaced = reader.read, []

    def race(wanted: Tensor) -> Any:
        if not replaced:
            replaced.append(True)
            writer.add(make_file(0, changed=2), make_moments(5))
        return read(wanted)

    reader.read = race  # type: ignore[method-assign]
    (answer,) = searcher.search(text(), Page(9, shortlist=0))
    assert sorted(ids(answer)) == [2, 3]
    writer.remove(['/videos/0.mp4', '/videos/1.mp4'])
    assert len(searcher.search(text(), Page(9, shortlist=0))[0]) == 0


def test_a_head_that_needs_what_is_not_kept() -> None:
    head = FirstFrameHead()
    head.needs_patches = True
    with pytest.raises(OtherModelError, match='needs patches'):
        make_searcher([make_moments(0)], head)


def test_a_writer_that_never_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, changed = make_index(tmp_path / 'index'), count(1)

    def write() -> None:
        for number in range(3):
            file = make_file(number, changed=next(changed))
            writer.add(file, make_moments(number))

    write()
    with VideoIndex.load(tmp_path / 'index') as index:
        take = index.store.take

        def read(*args: Any, **options: Any) -> Any:
            write()
            return take(*args, **options)

        monkeypatch.setattr(index.store, 'take', read)
        for shortlist in (0, 2):
            (answer,) = over(index).search(
                text(), Page(1, shortlist=shortlist)
            )
            assert len(answer) == 1


def test_a_row_that_is_listed_and_missing(tmp_path: Path) -> None:
    with make_index(tmp_path / 'index') as index:
        index.add(make_file(1), make_moments(1))
    with contextlib.closing(sqlite3.connect(tmp_path / 'index')) as file:
        file.execute('DELETE FROM features')
        file.commit()
    with (
        VideoIndex.load(tmp_path / 'index') as index,
        pytest.raises(DamagedIndexError, match='--repair'),
    ):
        over(index).search(text(), Page(1, shortlist=0))

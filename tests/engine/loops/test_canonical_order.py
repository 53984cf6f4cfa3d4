"""Rows and columns do not depend on who finds what, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eaglenet_mm.datasets.joined_parts import Part
from eaglenet_mm.engine.loops.retrieval_evaluation import CanonicalOrder, Found
from eaglenet_mm.structures import RetrievalDataSample

#: Two parts of which the first two videos are the same files.
PARTS = [
    Part(name, SimpleNamespace(metainfo=dict(num_videos=4, num_captions=9)))
    for name in 'ab'
]


def samples() -> list[RetrievalDataSample]:
    found = []
    for part in (0, 1):
        start = 0
        for index in range(4):
            count = (index + 2 * part) % 3
            video_id = f'{index}' if index < 2 else f'{part}-{index}'
            found.append(
                RetrievalDataSample(
                    metainfo=dict(
                        part=part,
                        video_index=index,
                        video_id=video_id,
                        video=f'/{video_id}.mp4',
                        caption_indices=list(range(start, start + count)),
                        positives=[
                            [[video_id], ['0', '1'], []][(start + c) % 3]
                            for c in range(count)
                        ],
                    )
                )
            )
            start += count
    return found


def order_of(dealt: list[list[RetrievalDataSample]]) -> Any:
    videos, captions = [], []
    for own in dealt:
        found = Found()
        for sample in own:
            found.add(sample)
        videos += found.videos
        captions += found.captions
    return CanonicalOrder(videos, captions, PARTS)


def described(order: CanonicalOrder) -> tuple:
    rows = [order.row(place) for place in range(len(order.captions))]
    return order.videos, order.video_ids, rows, order.announcement()


@settings(deadline=None, max_examples=60)
@given(data=st.data(), processes=st.integers(1, 5))
def test_any_number_of_processes_in_any_order(data, processes):
    expected = order_of([samples()])
    # every sample at least once, and some again
    again = data.draw(st.lists(st.sampled_from(range(8)), max_size=6))
    places = data.draw(st.permutations([*range(8), *again]))
    dealt: list[list] = [[] for _ in range(processes)]
    every = samples()
    for place in places:
        dealt[data.draw(st.integers(0, processes - 1))].append(every[place])
    found = order_of(dealt)
    assert described(found) == described(expected)


def test_what_it_says():
    order = order_of([samples()])
    assert order.video_ids == ['0', '1', '0-2', '0-3', '1-2', '1-3']
    assert order.videos == [0, 1, 2, 3, 6, 7]
    assert order.captions == [0, 1, 2, 9, 10, 11, 12, 13]
    both = [0, 1]
    assert order.positives == [[1], both, [], [0], both, [], [5], both]
    assert order.columns == [1, 0, -1, 0, 0, -1, 5, 0]
    announced = order.announcement()
    assert announced['num_repeated'] == 2
    assert [part['columns'] for part in announced['parts']] == [
        [0, 1, 2, 3], [0, 1, 4, 5],
    ]  # fmt: skip
    assert [part['rows'] for part in announced['parts']] == [(0, 3), (3, 8)]


def test_nothing_found():
    with pytest.raises(ValueError, match='0 videos and 0 captions'):
        CanonicalOrder([], [])


def test_equal_ids_of_other_files_are_not_duplicates():
    """Of a data set that joins others without telling."""
    videos = [((0, 0), 'x', (f'/{name}/x.mp4', None, None)) for name in 'ab']
    with pytest.raises(ValueError, match=r"'/a/x.mp4' and '/b/x.mp4'"):
        CanonicalOrder(videos, [((0, 0), 0, None)])


def test_a_file_that_stands_twice_is_one_candidate():
    """Also where a wrapper hides the parts: it would tie with itself."""
    file = ('/x.mp4', None, None)
    videos = [((0, 0), 'x', file), ((0, 1), 'y', None), ((0, 2), 'x', file)]
    captions = [((0, n), n, None) for n in range(3)]
    order = CanonicalOrder(videos, captions)
    assert order.video_ids == ['x', 'y']
    assert order.columns == [0, 1, 0]
    assert order.announcement() == dict(num_repeated=1)


def test_a_path_may_be_a_list():
    """Of frames, in data sets of one's own."""
    found = Found()
    sample = RetrievalDataSample(
        metainfo=dict(
            video_index=0, video_id='x', video=['1.jpg'], caption_indices=[0]
        )
    )
    assert found.add(sample) == (True, [0])
    assert found.add(sample) == (False, [])

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.evaluation.metrics.score_rows import assemble_rows, check_row


def row(caption: int, video: int, **more: object) -> dict:
    return dict(
        caption_index=caption,
        video_index=video,
        scores=torch.tensor([caption, video, 0.0]),
        **more,
    )


def test_a_row_is_reduced_to_what_ranking_needs():
    found = check_row(row(4, 1, video_id='clip1'))
    assert found.keys() == {'caption_index', 'column', 'scores'}
    assert found['column'] == 1
    assert check_row(row(4, 9, column=2))['column'] == 2


@pytest.mark.parametrize('key', ['caption_index', 'video_index', 'scores'])
def test_a_key_is_missing(key):
    broken = row(0, 0)
    del broken[key]
    with pytest.raises(KeyError, match=f"one without '{key}'"):
        check_row(broken)


def test_rows_are_ordered_and_the_first_of_duplicates_stays():
    rows = [check_row(row(c, v)) for c, v in [(7, 0), (2, 1), (7, 2)]]
    scores, columns = assemble_rows(rows, {})
    assert scores.tolist() == [[2, 1, 0], [7, 0, 0]]
    assert columns.tolist() == [1, 0]


def test_rows_that_do_not_fit():
    rows = [check_row(row(caption, 0)) for caption in range(3)]
    with pytest.raises(ValueError, match='rows of 4 captions, but got 3'):
        assemble_rows(rows, dict(num_captions=4))
    with pytest.raises(ValueError, match=r'the 2 videos, .* lengths \[3\]'):
        assemble_rows(rows, dict(num_videos=2))
    with pytest.raises(ValueError, match='but got 0'):
        assemble_rows([], {})
    rows[1]['scores'][2] = torch.inf
    with pytest.raises(ValueError, match='inf in row 1, column 2'):
        assemble_rows(rows, {})

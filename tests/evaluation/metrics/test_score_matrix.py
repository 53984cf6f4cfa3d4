from __future__ import annotations

import pytest
import torch

from eaglenet_mm.evaluation.metrics.retrieval_rank_metric import (
    assemble_rows,
    pack_rows,
)


def row(caption: int, video: int, **more: object) -> dict:
    return dict(
        caption_index=caption,
        video_index=video,
        scores=torch.tensor([caption, video, 0.0]),
        **more,
    )


def test_rows_are_packed_into_few_tensors():
    (block,) = pack_rows([row(4, 1, video_id='clip1'), row(2, 9, column=2)])
    assert block['caption_index'].tolist() == [4, 2]
    assert block['column'].tolist() == [1, 2]
    assert block['scores'].tolist() == [[4, 1, 0], [2, 9, 0]]
    assert block.keys() == {'caption_index', 'column', 'scores'}
    assert pack_rows([]) == []


@pytest.mark.parametrize('key', ['caption_index', 'video_index', 'scores'])
def test_a_key_is_missing(key):
    broken = row(0, 0)
    del broken[key]
    with pytest.raises(KeyError, match=f"one without '{key}'"):
        pack_rows([broken])


def test_rows_are_ordered_and_the_first_of_duplicates_stays():
    rows = [row(c, v) for c, v in [(7, 0), (2, 1), (7, 2), (2, 0), (9, 1)]]
    for cut in range(6):  # duplicates within a block and across blocks
        blocks = pack_rows(rows[:cut]) + pack_rows(rows[cut:])
        scores, columns = assemble_rows(blocks, {})
        assert scores.tolist() == [[2, 1, 0], [7, 0, 0], [9, 1, 0]]
        assert columns.tolist() == [1, 0, 1]


def test_the_widest_type_is_kept():
    double = row(1, 0)
    double['scores'] = torch.full((3,), 0.1, dtype=torch.double)
    blocks = pack_rows([row(0, 0)]) + pack_rows([double])
    scores, _ = assemble_rows(blocks, {})
    assert scores.dtype == torch.double
    assert scores[1, 0].item() == 0.1


def test_rows_that_do_not_fit():
    rows = [row(caption, 0) for caption in range(3)]
    with pytest.raises(ValueError, match='rows of 4 captions, but got 3'):
        assemble_rows(pack_rows(rows), dict(num_captions=4))
    with pytest.raises(ValueError, match=r'the 2 videos, .* lengths \[3\]'):
        assemble_rows(pack_rows(rows), dict(num_videos=2))
    with pytest.raises(ValueError, match='but got 0'):
        assemble_rows([], {})
    rows[1]['scores'][2] = torch.inf
    with pytest.raises(ValueError, match='inf in row 1, column 2'):
        assemble_rows(pack_rows(rows), {})

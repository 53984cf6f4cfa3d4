"""An evaluation on the device gives the ranks of the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from eaglenet_mm.engine.loops.retrieval_evaluation import RetrievalEvaluation
from eaglenet_mm.evaluation.functional import (
    dual_softmax,
    off_shortlist_scores,
    on_shortlist,
    query_bank_normalisation,
    text_to_video_ranks,
    video_to_text_ranks,
)
from eaglenet_mm.structures import RetrievalDataSample
from tests.models.tiny import tiny_inputs, tiny_retriever

pytestmark = pytest.mark.gpu

VIDEOS = 6


def batch() -> dict[str, Any]:
    """Videos with one to three captions each, as a loader gives them."""
    generator = torch.Generator().manual_seed(3)
    counts = [1 + index % 3 for index in range(VIDEOS)]
    ids = tiny_inputs(sum(counts))['token_ids'].split(counts)
    samples, start = [], 0
    for index, count in enumerate(counts):
        samples.append(
            RetrievalDataSample(
                metainfo=dict(
                    video_id=f'clip{index}',
                    video_index=index,
                    caption_indices=list(range(start, start + count)),
                )
            )
        )
        start += count
    frames = [
        torch.randint(256, (2 + index % 2, 3, 12, 12), generator=generator)
        for index in range(VIDEOS)
    ]
    return dict(
        inputs=dict(
            frames=[video.to(torch.uint8) for video in frames],
            token_ids=list(ids),
        ),
        data_samples=samples,
    )


@torch.no_grad()
def scores_of(device: torch.device, shortlist: int) -> Tensor:
    torch.manual_seed(0)
    model = tiny_retriever().to(device).eval()
    evaluation = RetrievalEvaluation(model, video_batch=4, shortlist=shortlist)
    evaluation.add_batch(batch())
    evaluation.gather()
    assert evaluation.videos.frames.device.type == device.type
    blocks = evaluation.score(model.head, evaluation.encode_texts())
    return torch.stack([row['scores'] for rows in blocks for row in rows])


@pytest.mark.parametrize('shortlist', [0, 2])
def test_scores_of_a_whole_evaluation(
    shortlist: int, device: torch.device
) -> None:
    expected = scores_of(torch.device('cpu'), shortlist)
    got = scores_of(device, shortlist)
    assert got.device.type == 'cpu'
    scored = on_shortlist(expected)
    assert scored.sum() == len(expected) * (shortlist or VIDEOS)
    assert torch.equal(on_shortlist(got), scored)
    torch.testing.assert_close(
        got[scored], expected[scored], rtol=1e-5, atol=1e-5
    )


def test_functions_of_a_matrix(device: torch.device) -> None:
    cheap = torch.rand(90, 40) * 2 - 1
    assert torch.equal(
        off_shortlist_scores(cheap.to(device)).cpu(),
        off_shortlist_scores(cheap),
    )
    scores = (cheap * 8).round() / 8  # with ties
    owners = torch.arange(90) % 40
    for ranks in (text_to_video_ranks, video_to_text_ranks):
        expected = ranks(scores, owners)
        got = ranks(scores.to(device), owners.to(device))
        assert torch.equal(got.ranks.cpu(), expected.ranks)
        assert torch.equal(got.ties.cpu(), expected.ties)
    there = cheap.to(device)
    for got, expected in (
        (dual_softmax(there), dual_softmax(cheap)),
        (
            query_bank_normalisation(there, there),
            query_bank_normalisation(cheap, cheap),
        ),
    ):
        torch.testing.assert_close(got.cpu(), expected, rtol=1e-9, atol=0)

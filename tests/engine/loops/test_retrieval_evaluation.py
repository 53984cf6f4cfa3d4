from __future__ import annotations

import pytest
import torch

from eaglenet_mm.engine.loops.retrieval_evaluation import (
    RetrievalEvaluation,
    check_videos,
)
from eaglenet_mm.structures import VideoFeatures
from tests.engine.loops.tiny_retrieval import (
    TinyRetriever,
    TinyVideos,
    collate,
)


def evaluation_of(
    items: list[dict], **model: object
) -> tuple[RetrievalEvaluation, TinyRetriever]:
    retriever = TinyRetriever(**model).eval()
    evaluation = RetrievalEvaluation(retriever)
    with torch.no_grad():
        if items:
            evaluation.add_batch(collate(items))
    return evaluation, retriever


def test_non_finite_video_features_name_the_videos():
    evaluation, _ = evaluation_of(TinyVideos(3).items, broken_video=True)
    with pytest.raises(
        ValueError,
        match=r"3 of 3 videos .* in 'frames': \['clip0', 'clip1', 'clip2'\]",
    ):
        evaluation.gather()


@torch.no_grad()
def test_non_finite_text_features_name_the_captions():
    evaluation, _ = evaluation_of(TinyVideos(3).items, broken_text=True)
    evaluation.gather()
    with pytest.raises(ValueError, match=r'sentences \[1\].*1 of 3 in this'):
        list(evaluation.encode_texts())


@pytest.mark.parametrize('name', ['frames', 'patches'])
def test_broken_videos_are_named(name):
    videos = VideoFeatures(
        torch.zeros(8, 2, 3), torch.ones(8, 2).bool(), torch.zeros(8, 2, 4, 3)
    )
    check_videos(videos, list('abcdefgh'))
    getattr(videos, name)[2:, 1] = -torch.inf
    with pytest.raises(
        ValueError,
        match=rf"6 of 8 videos .* '{name}': \['c', 'd', 'e', 'f', 'g'\]\.",
    ):
        check_videos(videos, list('abcdefgh'))


def test_no_video():
    evaluation, _ = evaluation_of([])
    with pytest.raises(ValueError, match='0 videos and 0 captions'):
        evaluation.gather()


def test_captions_without_tokens():
    items = TinyVideos(2).items
    items[1]['data_samples'].set_metainfo(dict(caption_indices=[1, 2]))
    with pytest.raises(
        ValueError, match="'clip1' has 2 caption_indices, but 1 rows"
    ):
        evaluation_of(items)


@torch.no_grad()
def test_token_rows_of_different_lengths():
    retriever = TinyRetriever().eval()
    evaluation = RetrievalEvaluation(retriever)
    for item in TinyVideos(2, uneven=True).items:
        evaluation.add_batch(collate([item]))
    with pytest.raises(ValueError, match=r'lengths \[6, 7\]'):
        evaluation.gather()

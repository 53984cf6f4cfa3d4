"""The retriever's modes and its checks."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.models import TextVideoRetriever
from eaglenet_mm.models.retrievers.text_video_retriever import number_videos
from eaglenet_mm.structures import RetrievalDataSample
from tests.models.tiny import (
    FRAMES,
    TEXT_ENCODER,
    VIDEO_ENCODER,
    WIDTH,
    eaglenet_head,
    tiny_inputs,
    tiny_retriever,
)


def test_modes() -> None:
    model = tiny_retriever().eval()
    inputs = tiny_inputs(3)
    text, video = model(inputs)
    assert text.embeds.shape == (3, WIDTH)
    assert video.frames.shape == (3, FRAMES, WIDTH)
    losses = model(inputs, mode='loss')
    assert 'loss_match' in losses
    samples = model(inputs, [RetrievalDataSample() for _ in range(3)],
                    mode='predict')  # fmt: skip
    scores = torch.cat([sample.scores for sample in samples])
    torch.testing.assert_close(scores, model.head(text, video).detach())


def test_predict_gives_each_video_its_captions() -> None:
    model = tiny_retriever().eval()
    inputs = tiny_inputs(4)
    inputs['pixels'] = inputs['pixels'][:2]
    inputs['frame_mask'] = inputs['frame_mask'][:2]
    inputs['caption_counts'] = torch.tensor([1, 3])
    samples = model(inputs, mode='predict')
    assert [tuple(s.scores.shape) for s in samples] == [(1, 2), (3, 2)]


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="but is 'train'"):
        tiny_retriever()(tiny_inputs(2), mode='train')


@pytest.mark.parametrize(
    ('head', 'frames', 'message'),
    [
        (eaglenet_head(embed_dim=32), FRAMES, 'embed_dim=16, but head has'),
        (
            eaglenet_head(),
            FRAMES + 1,
            'num_frames=4, but head has num_frames=3',
        ),
    ],
)
def test_parts_must_agree(head: dict, frames: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextVideoRetriever(
            TEXT_ENCODER,
            VIDEO_ENCODER,
            head,
            dict(type='RetrievalDataPreprocessor', num_frames=frames),
        )


RESNET = dict(type='timm.resnet18', num_stages=4)  # as mmaction's has it


@pytest.mark.parametrize(
    ('part', 'change', 'place', 'option'),
    [
        ('head', dict(type='MeanPoolingHead'), 'head', 'num_candidates'),
        (
            'head',
            dict(loss_match=dict(type='InfoNCELoss', margin=1)),
            'head.loss_match',
            'margin',
        ),
        (
            'video_encoder',
            dict(type='RegisteredEncoder', backbone=RESNET),
            'video_encoder',
            'arch',
        ),
        (
            'text_encoder',
            dict(depth=1),
            'text_encoder',
            'depth',
        ),
    ],
)
def test_options_of_the_part_before(
    part: str, change: dict, place: str, option: str
) -> None:
    """As the command line leaves them when it exchanges only the type."""
    parts = dict(
        text_encoder=TEXT_ENCODER,
        video_encoder=VIDEO_ENCODER,
        head=eaglenet_head(),
    )
    parts[part] = {**parts[part], **change}
    place = f'model.{place}'
    with pytest.raises(
        TypeError, match=rf'{place}\.{option}.* {place}\._delete_=True'
    ):
        TextVideoRetriever(**parts)


def test_options_of_the_backbone_before() -> None:
    encoder = dict(type='RegisteredEncoder', backbone=RESNET, image_size=32)
    with pytest.raises(TypeError, match='num_stages') as info:
        TextVideoRetriever(TEXT_ENCODER, encoder, eaglenet_head())
    assert 'model.video_encoder.backbone._delete_=True' in str(info.value)


def test_non_finite_features_end_the_step() -> None:
    model = tiny_retriever().train()
    inputs = tiny_inputs(3)
    inputs['pixels'][1] = float('inf')
    with pytest.raises(ValueError, match='video features of 1 of 3 items'):
        model(inputs, mode='loss')


@pytest.mark.parametrize('size', [0, -3, 2.0, '4', True])
def test_unusable_micro_batches(size: object) -> None:
    with pytest.raises(ValueError, match=f'at least 1.*but got {size!r}'):
        TextVideoRetriever(
            TEXT_ENCODER,
            VIDEO_ENCODER,
            eaglenet_head(),
            encoder_micro_batch=size,
        )


def test_micro_batches_are_for_the_loss() -> None:
    model = TextVideoRetriever(
        TEXT_ENCODER,
        VIDEO_ENCODER,
        dict(type='MeanPoolingHead', loss_match=dict(type='InfoNCELoss')),
        encoder_micro_batch=2,
    ).train()
    sizes: list[int] = []
    for encoder in (model.text_encoder, model.video_encoder):
        encoder.register_forward_pre_hook(
            lambda _, inputs: sizes.append(len(inputs[0]))
        )
    inputs = tiny_inputs(5)
    for mode, expected in (
        ('loss', [2, 2, 1, 2, 2, 1]),
        ('tensor', [5, 5]),
        ('predict', [5, 5]),
    ):
        sizes.clear()
        model(inputs, mode=mode)
        assert sizes == expected, mode


def test_batch_norm_ends_the_step() -> None:
    model = tiny_retriever().train()
    model.encoder_micro_batch = 2
    model.video_encoder.tower.ln_post = torch.nn.BatchNorm1d(WIDTH)
    with pytest.raises(ValueError, match=r"'video_encoder\.tower\.ln_post'"):
        model(tiny_inputs(2), mode='loss')


def sample(**metainfo: object) -> RetrievalDataSample:
    return RetrievalDataSample(metainfo=metainfo)


def test_numbers_of_videos_are_the_same_in_every_process() -> None:
    samples = [
        sample(video_id='video0', video='msvd/0.mp4', captions=['a']),
        sample(video_id='video1', video='msvd/0.mp4'),
        sample(video_id='video0', video='msvd/0.mp4', captions=['b']),
        sample(video_id='video0', video='vatex/0.mp4'),  # of another set
        sample(video_id='video0'),
        sample(video_id=0),
    ]
    numbers = number_videos(samples)
    assert numbers.dtype is torch.int64
    assert numbers[0] == numbers[2]
    assert len(numbers.unique()) == 5
    # not Python's own hash, which differs from process to process
    assert int(numbers[0]) == 7034406672562737885
    assert number_videos([]) is None
    assert number_videos([*samples, sample(video='msvd/1.mp4')]) is None


@pytest.mark.parametrize('micro_batch', [None, 2])
def test_the_loss_learns_of_the_same_video(micro_batch: int | None) -> None:
    """As if the head had been given the matrix of positives."""
    loss = dict(type='InfoNCELoss', same_video='positive')
    model = tiny_retriever(dict(type='MeanPoolingHead', loss_match=loss))
    model.encoder_micro_batch = micro_batch
    inputs = tiny_inputs(4)
    names = ('cat', 'dog', 'cat', 'cat')
    samples = [sample(video_id=name) for name in names]
    losses = model(inputs, samples, mode='loss')
    assert float(losses['same_video_pairs']) == 3
    positives = torch.tensor([[a == b for a in names] for b in names])
    scores = model.head(*model(inputs))
    expected = model.head.loss_match(scores, positives)
    torch.testing.assert_close(losses['loss_match'], expected)
    with pytest.raises(ValueError, match="same_video='positive' needs to"):
        model(inputs, mode='loss')
    with pytest.raises(ValueError, match=r'shape \(4,\), but are .* \(3,\)'):
        model(inputs, samples[:3], mode='loss')

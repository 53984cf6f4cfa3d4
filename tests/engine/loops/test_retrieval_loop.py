from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
import torch
from mmengine import runner as mmengine_runner
from mmengine.hooks import Hook

from eaglenet_mm.engine.loops import RetrievalTestLoop, RetrievalValLoop
from eaglenet_mm.engine.loops import retrieval_evaluation as evaluation_module
from eaglenet_mm.models.heads import TMASSHead
from eaglenet_mm.registry import MODELS
from tests.engine.loops.tiny_retrieval import (
    FRAMES,
    WIDTH,
    build_runner,
    loader_config,
)

DATASET = dict(num_videos=7, max_captions=3)
NUM_CAPTIONS = 1 + 2 + 3 + 1 + 2 + 3 + 1


def dumped(tmp_path: Path, name: str, **options: object) -> list[dict]:
    """Rows of an evaluation, as DumpResults writes them."""
    path = tmp_path / f'{name}.pkl'
    runner = build_runner(
        str(tmp_path),
        evaluator=[
            dict(type='RetrievalRankMetric'),
            dict(type='DumpResults', out_file_path=str(path)),
        ],
        **options,
    )
    runner.test()
    with path.open('rb') as file:
        rows = pickle.load(file)
    return sorted(rows, key=lambda row: row['caption_index'])


def test_metrics_equal_those_of_the_full_matrix(tmp_path):
    runner = build_runner(str(tmp_path), dataset=DATASET)
    metrics = runner.test()
    items = runner.test_dataloader.dataset.items
    model = runner.model
    with torch.no_grad():
        pixels = torch.stack([i['inputs']['frames'] for i in items]) / 255
        videos = model.visual(pixels.flatten(2)).mean(1)
        tokens = torch.cat([i['inputs']['token_ids'] for i in items])
        texts = model.words(tokens).mean(1)
        scores = torch.nn.functional.cosine_similarity(
            texts[:, None], videos[None], dim=-1
        )
    owner = [
        item['data_samples'].video_index
        for item in items
        for _ in item['inputs']['token_ids']
    ]
    ranks = [
        sum(float(s) >= float(row[right]) for s in row)
        for row, right in zip(scores, owner, strict=True)
    ]
    assert metrics['t2v/R1'] == pytest.approx(
        100 * sum(rank == 1 for rank in ranks) / NUM_CAPTIONS
    )
    assert metrics['t2v/MnR'] == pytest.approx(sum(ranks) / NUM_CAPTIONS)
    by_video = []
    for video in range(7):
        best = [
            max(
                float(scores[row, video])
                for row in range(NUM_CAPTIONS)
                if owner[row] == group
            )
            for group in range(7)
        ]
        by_video.append(sum(score >= best[video] for score in best))
    assert metrics['v2t/MnR'] == pytest.approx(sum(by_video) / 7)
    assert set(metrics) == {
        f'{direction}/{name}'
        for direction in ('t2v', 'v2t')
        for name in ('R1', 'R5', 'R10', 'R50', 'MdR', 'MnR', 'ties')
    } | {'Rsum'}


def test_each_side_is_encoded_once(tmp_path):
    runner = build_runner(str(tmp_path), dataset=DATASET, batch_size=3)
    runner.val()
    calls = runner.model.calls
    assert calls.count(('video', 1)) == 7
    assert [call for call in calls if call[0] == 'text'] == [
        ('text', NUM_CAPTIONS)
    ]
    assert len(calls) == 8


def test_scores_are_bitwise_equal_for_every_batch_size(tmp_path):
    reference = dumped(tmp_path, 'one', dataset=DATASET, batch_size=1)
    assert len(reference) == NUM_CAPTIONS
    for batch_size in (3, 7):
        rows = dumped(
            tmp_path, str(batch_size), dataset=DATASET, batch_size=batch_size
        )
        for row, expected in zip(rows, reference, strict=True):
            assert torch.equal(row['scores'], expected['scores'])


def test_dumped_rows_name_their_video(tmp_path):
    rows = dumped(tmp_path, 'rows', dataset=DATASET)
    assert [row['caption_index'] for row in rows] == list(range(NUM_CAPTIONS))
    assert [row['video_index'] for row in rows[:6]] == [0, 1, 1, 2, 2, 2]
    assert rows[3]['video_id'] == 'clip2'
    assert rows[0]['scores'].shape == (7,)
    # no row may carry the storage of its whole block
    assert rows[0]['scores'].untyped_storage().nbytes() == 7 * 4


def test_many_blocks_of_texts(tmp_path, monkeypatch):
    whole = dumped(tmp_path, 'whole', dataset=DATASET)
    monkeypatch.setattr(evaluation_module, 'TEXT_BLOCK', 5)
    parts = dumped(tmp_path, 'parts', dataset=DATASET)
    for row, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(row['scores'], expected['scores'])


def test_video_batches_have_one_shape(tmp_path):
    runner = build_runner(
        str(tmp_path), dataset=DATASET, loop=dict(video_batch=4)
    )
    metrics = runner.test()
    assert [c for c in runner.model.calls if c[0] == 'video'] == [
        ('video', 4),
        ('video', 4),
    ]
    assert metrics == pytest.approx(
        build_runner(str(tmp_path), dataset=DATASET).test()
    )


def test_expanded_pairs_are_joined_by_id(tmp_path):
    """One item for each caption gives the same numbers."""
    expected = build_runner(str(tmp_path), dataset=DATASET).test()
    runner = build_runner(
        str(tmp_path), dataset=dict(**DATASET, expand=True), batch_size=4
    )
    assert runner.test() == expected
    assert runner.model.calls.count(('video', 1)) == 7


def test_items_that_come_twice_count_once(tmp_path):
    once = dumped(tmp_path, 'once', dataset=dict(**DATASET, keep=[2, 0, 1]))
    twice = dumped(
        tmp_path, 'twice', dataset=dict(**DATASET, keep=[2, 0, 2, 1, 0])
    )
    assert len(once) == len(twice) == 6
    for row, expected in zip(twice, once, strict=True):
        assert row['caption_index'] == expected['caption_index']
        assert torch.equal(row['scores'], expected['scores'])


def test_a_subset_keeps_canonical_numbers(tmp_path, capsys):
    """Gaps in the indices are closed; the result line says what is lost."""
    rows = dumped(
        tmp_path, 'part', dataset=dict(**DATASET, keep=[6, 1, 4]), batch_size=1
    )
    assert [row['caption_index'] for row in rows] == [1, 2, 7, 8, 12]
    assert [row['video_index'] for row in rows] == [1, 1, 4, 4, 6]
    assert [row['column'] for row in rows] == [0, 0, 1, 1, 2]
    whole = dumped(tmp_path, 'whole', dataset=DATASET)
    torch.testing.assert_close(
        rows[3]['scores'], whole[8]['scores'][[1, 4, 6]]
    )
    shown = capsys.readouterr().out
    assert 'texts: found 5 of 13, videos: found 3 of 7' in shown
    assert shown.count('NOT the complete set') == 1


class Recorder(Hook):
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def __getattribute__(self, name: str):
        for stage in ('val', 'test'):
            if name in (
                f'before_{stage}',
                f'after_{stage}',
                f'before_{stage}_epoch',
                f'after_{stage}_epoch',
                f'before_{stage}_iter',
                f'after_{stage}_iter',
            ):
                return lambda runner, **kwargs: self.calls.append(
                    (name, kwargs)
                )
        return super().__getattribute__(name)


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_hooks_are_called_as_by_mmengine(tmp_path, stage):
    recorder = Recorder()
    runner = build_runner(
        str(tmp_path), dataset=dict(num_videos=3), custom_hooks=[recorder]
    )
    metrics = getattr(runner, stage)()
    assert [name for name, _ in recorder.calls] == [
        f'before_{stage}',
        f'before_{stage}_epoch',
        *[f'before_{stage}_iter', f'after_{stage}_iter'] * 2,
        f'after_{stage}_epoch',
        f'after_{stage}',
    ]
    kwargs = [kwargs for _, kwargs in recorder.calls]
    assert [k['batch_idx'] for k in kwargs[2:6]] == [0, 0, 1, 1]
    assert kwargs[3]['outputs'][1].video_id == 'clip1'
    assert kwargs[6]['metrics'] == metrics
    assert isinstance(runner.val_loop, mmengine_runner.ValLoop)
    assert isinstance(runner.test_loop, mmengine_runner.TestLoop)


def test_training_with_ema_and_best_checkpoint(tmp_path):
    runner = build_runner(
        str(tmp_path),
        train_dataloader=loader_config(2, num_videos=4),
        train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='BertAdam', lr=1e-2)),
        param_scheduler=dict(
            type='WarmupCosineLR', convert_to_iter_based=True, by_epoch=True
        ),
        custom_hooks=[dict(type='EMAHook')],
    )
    runner.register_hook(
        dict(type='CheckpointHook', save_best='t2v/R1', rule='greater')
    )
    runner.train()
    assert list(tmp_path.glob('best_t2v_R1_epoch_*.pth'))
    assert runner.model.training is False  # validation came last


def test_fp16_encodes_in_half_and_scores_in_float(tmp_path):
    exact = dumped(tmp_path, 'exact', dataset=DATASET)
    half = dumped(tmp_path, 'half', dataset=DATASET, loop=dict(fp16=True))
    assert half[0]['scores'].dtype == torch.float32
    assert not torch.equal(half[0]['scores'], exact[0]['scores'])
    torch.testing.assert_close(
        half[0]['scores'], exact[0]['scores'], atol=0.05, rtol=0
    )


def test_noise_seeds_report_mean_and_spread(tmp_path):
    runner = build_runner(
        str(tmp_path),
        dataset=DATASET,
        model=dict(noise=0.5),
        loop=dict(noise_seeds=3),
    )
    metrics = runner.test()
    model = runner.model
    assert not model.head.noise_table.any()  # the checkpoint's own survives
    assert model.calls.count(('video', 1)) == 7
    plain = build_runner(
        str(tmp_path), dataset=DATASET, model=dict(noise=0.5)
    ).test()
    assert {key: metrics[key] for key in plain} == plain
    values = []
    for seed in range(3):
        single = build_runner(
            str(tmp_path), dataset=DATASET, model=dict(noise=0.5)
        )
        single.model.head.reseed(seed)
        values.append(single.test()['t2v/MnR'])
    mean = sum(values) / 3
    assert metrics['t2v/MnR_mean'] == pytest.approx(mean)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / 2)
    assert spread > 0
    assert metrics['t2v/MnR_std'] == pytest.approx(spread)
    assert 't2v/R1_std' in metrics
    assert 't2v/ties_std' not in metrics


def test_progress_bar_is_drawn(tmp_path, capsys):
    build_runner(str(tmp_path), dataset=DATASET).test()
    shown = capsys.readouterr().out
    assert 'video batches' in shown
    assert '4 of 4' in shown
    assert f'{NUM_CAPTIONS} of {NUM_CAPTIONS}' in shown


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(noise_seeds=1), "'noise_seeds' must be 0 .* but got 1"),
        (dict(video_batch=0), "'video_batch' must be at least 1, but got 0"),
    ],
)
@pytest.mark.parametrize('loop', [RetrievalValLoop, RetrievalTestLoop])
def test_bad_options(loop, options, message):
    with pytest.raises(ValueError, match=message):
        loop(None, None, None, **options)


@MODELS.register_module()
class TinyMassHead(TMASSHead):
    """T-MASS on the features of the tiny retriever."""

    def __init__(self, evaluation: str = 'pairwise') -> None:
        super().__init__(WIDTH, FRAMES, num_trials=3, evaluation=evaluation)
        torch.manual_seed(4)
        torch.nn.init.normal_(self.stochastic_text.radius.weight)


@pytest.mark.filterwarnings('ignore:TMASSHead')
def test_the_published_protocol_sees_the_own_captions(tmp_path):
    """It is named, and exists for one caption a video."""
    one_each = dict(num_videos=5)
    head = dict(type='TinyMassHead')
    rows = {}
    for evaluation in ('pairwise', 'published'):
        rows[evaluation] = dumped(
            tmp_path,
            evaluation,
            dataset=one_each,
            model=dict(head=dict(**head, evaluation=evaluation)),
        )
    for place, (sound, leaking) in enumerate(
        zip(rows['pairwise'], rows['published'], strict=True)
    ):
        same = torch.isclose(sound['scores'], leaking['scores'], atol=1e-6)
        # only the own video is scored as it should be
        assert same.nonzero().flatten().tolist() == [sound['column']], place
    for dataset in (DATASET, dict(num_videos=5, no_captions=[4])):
        with pytest.raises(ValueError, match='exists for one caption a video'):
            dumped(
                tmp_path,
                'several',
                dataset=dataset,
                model=dict(head=dict(**head, evaluation='published')),
            )

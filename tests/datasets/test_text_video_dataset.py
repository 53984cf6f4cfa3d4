from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from eaglenet_mm.datasets import TextVideoDataset, VideoReadError
from eaglenet_mm.registry import DATASETS


@pytest.fixture
def dataset(
    ann_file: str, clips: None, pipeline: list[dict[str, Any]]
) -> TextVideoDataset:
    return TextVideoDataset(
        ann_file,
        data_prefix=dict(video=str(Path(ann_file).parent)),
        pipeline=pipeline,
    )


def test_items_before_the_pipeline(ann_file: str) -> None:
    dataset = TextVideoDataset(
        Path(ann_file).name,
        data_root=str(Path(ann_file).parent),
        data_prefix=dict(video='videos'),
    )
    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [item['captions'] for item in items] == [
        ['one', 'two', 'three'],
        ['four'],
        ['five', 'six'],
    ]
    assert [item['caption_indices'] for item in items] == [
        [0, 1, 2],
        [3],
        [4, 5],
    ]
    assert [item['video_index'] for item in items] == [0, 1, 2]
    assert [(item['start'], item['end']) for item in items] == [
        (None, None),
        (0, 2),
        (None, None),
    ]
    folder = Path(ann_file).parent
    assert Path(items[2]['video']) == folder / 'videos/sub/c.mp4'
    assert dataset.metainfo['num_captions'] == 6
    assert dataset.metainfo['protocol'] == 'all'
    assert dataset.count_captions(2) == 2


def test_the_config_goes_before_the_header(ann_file: str) -> None:
    dataset = TextVideoDataset(ann_file, metainfo=dict(protocol='mine'))
    assert dataset.metainfo['protocol'] == 'mine'
    assert dataset.metainfo['split'] == 'test'


def test_items_after_the_pipeline(
    dataset: TextVideoDataset, frame_numbers: Callable
) -> None:
    first = dataset[0]
    assert first['inputs']['frames'].shape == (3, 3, 32, 32)
    assert first['inputs']['frames'].dtype == torch.uint8
    assert frame_numbers(first['inputs']['frames']) == [0, 10, 20]
    assert first['inputs']['token_ids'].shape == (3, 8)
    sample = first['data_samples']
    assert sample.video_id == 'a'
    assert sample.captions == ['one', 'two', 'three']
    assert sample.caption_indices == [0, 1, 2]
    assert sample.frame_indices == [0, 10, 20]
    assert sample.num_frames_found == 3


def test_a_video_of_one_frame(
    dataset: TextVideoDataset, frame_numbers: Callable
) -> None:
    frames = dataset[1]['inputs']['frames']
    assert frame_numbers(frames) == [0]


@pytest.mark.parametrize('scope', ['mmengine', 'eaglenet_mm'])
def test_built_under_any_default_scope(
    ann_file: str, pipeline: list[dict[str, Any]], scope: str
) -> None:
    init_default_scope(scope)
    dataset = DATASETS.build(
        dict(
            type='eaglenet_mm.TextVideoDataset',
            ann_file=ann_file,
            pipeline=pipeline,
        )
    )
    assert len(dataset) == 3


@pytest.mark.parametrize('num_workers', [0, 2])
def test_the_loader_gives_the_same_items(
    dataset: TextVideoDataset, num_workers: int
) -> None:
    loader = DataLoader(
        dataset,
        batch_size=2,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
        # the parent has decoded before: readers must not cross the fork
        persistent_workers=num_workers > 0,
    )
    expected = [dataset[index] for index in range(3)]
    for _ in range(2):
        frames, samples = [], []
        for batch in loader:
            frames += batch['inputs']['frames']
            samples += batch['data_samples']
        assert [sample.video_id for sample in samples] == ['a', 'b', 'c']
        for got, item in zip(frames, expected, strict=True):
            assert torch.equal(got, item['inputs']['frames'])


def test_missing_video_when_read(
    ann_file: str, pipeline: list[dict[str, Any]]
) -> None:
    dataset = TextVideoDataset(ann_file, pipeline=pipeline)
    with pytest.raises(FileNotFoundError, match=r"'b'.*'b\.mp4' does not"):
        dataset[1]


def test_missing_videos_when_built(ann_file: str, clips: None) -> None:
    folder = str(Path(ann_file).parent)
    (Path(folder) / 'b.mp4').unlink()
    prefix = dict(video=folder)
    with pytest.raises(
        FileNotFoundError, match=r'1 of 3 videos.*b \(.*b\.mp4'
    ):
        TextVideoDataset(ann_file, data_prefix=prefix, check_files=True)


def test_all_missing_videos_are_counted_but_not_all_named(
    tmp_path: Path, metainfo: dict[str, Any]
) -> None:
    from eaglenet_mm.datasets import write_annotation

    write_annotation(
        tmp_path / 'many.json',
        metainfo,
        [
            dict(video_id=f'v{number}', video='no.mp4', captions=['one'])
            for number in range(12)
        ],
    )
    with pytest.raises(FileNotFoundError, match=r'12 of 12.*v9') as caught:
        TextVideoDataset(str(tmp_path / 'many.json'), check_files=True)
    assert 'v10' not in str(caught.value)


def test_missing_annotation(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'none\.json'):
        TextVideoDataset(str(tmp_path / 'none.json'))


@pytest.mark.parametrize('num_workers', [0, 1])
def test_undecodable_video_names_id_and_file(
    dataset: TextVideoDataset, num_workers: int
) -> None:
    Path(dataset.get_data_info(2)['video']).write_bytes(b'no video' * 100)
    loader = DataLoader(
        dataset, num_workers=num_workers, collate_fn=pseudo_collate
    )
    with pytest.raises(VideoReadError, match=r"'c'.*c\.mp4"):
        list(loader)


@pytest.fixture
def skipping(
    ann_file: str, clips: None, pipeline: list[dict[str, Any]]
) -> TextVideoDataset:
    return TextVideoDataset(
        ann_file,
        data_prefix=dict(video=str(Path(ann_file).parent)),
        pipeline=pipeline,
        on_missing='skip',
    )


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(
        'eaglenet_mm.datasets.text_video_dataset.print_log',
        lambda message, logger, level: messages.append(message),
    )
    return messages


@pytest.mark.parametrize('damage', ['missing', 'empty', 'folder'])
def test_lost_videos_are_skipped_if_asked_for(
    skipping: TextVideoDataset, logged: list[str], damage: str
) -> None:
    path = Path(skipping.get_data_info(1)['video'])
    path.unlink()
    if damage == 'empty':
        path.touch()
    elif damage == 'folder':
        path.mkdir()
    for _ in range(3):
        assert skipping[1]['data_samples'].video_id in ('a', 'c')
    assert skipping.lost_videos.indices() == [1]
    assert len(logged) == 1
    assert "Video 'b' is skipped (1 of 3 so far)" in logged[0]
    assert str(path) in logged[0]


@pytest.mark.parametrize(
    'context', ['fork', pytest.param('spawn', marks=pytest.mark.nightly)]
)
def test_workers_share_what_is_lost(
    skipping: TextVideoDataset, context: str
) -> None:
    Path(skipping.get_data_info(1)['video']).unlink()
    loader = DataLoader(
        skipping,
        num_workers=2,
        collate_fn=pseudo_collate,
        multiprocessing_context=context,
    )
    ids = [batch['data_samples'][0].video_id for batch in loader]
    assert ids[0] == 'a'
    assert ids[1] in ('a', 'c')
    assert ids[2] == 'c'
    assert skipping.lost_videos.indices() == [1]


def test_subsets_count_their_own_lost_videos(
    skipping: TextVideoDataset,
) -> None:
    Path(skipping.get_data_info(1)['video']).unlink()
    assert skipping[1] is not None
    subset = skipping.get_subset([2, 0])
    assert subset[1]['data_samples'].video_id == 'a'
    assert len(subset.lost_videos) == 0
    skipping.get_subset_([1, 2])
    assert len(skipping.lost_videos) == 0
    assert skipping[0]['data_samples'].video_id == 'c'
    assert skipping.lost_videos.indices() == [0]


def test_what_cannot_be_sampled_is_lost(
    ann_file: str, clips: None, pipeline: list[dict[str, Any]]
) -> None:
    pipeline[1]['fps'] = 11  # the clips have 10
    options = dict(
        data_prefix=dict(video=str(Path(ann_file).parent)), pipeline=pipeline
    )
    with pytest.raises(ValueError, match=r"Video 'a' .*a\.mp4"):
        TextVideoDataset(ann_file, **options)[0]
    dataset = TextVideoDataset(ann_file, on_missing='skip', **options)
    with pytest.raises(RuntimeError, match='gave nothing for item 0'):
        dataset[0]
    assert dataset.lost_videos.indices() == [0, 1, 2]


def test_unknown_choice(ann_file: str) -> None:
    with pytest.raises(ValueError, match="'raise' or 'skip', but got 'zero'"):
        TextVideoDataset(ann_file, on_missing='zero')


@pytest.mark.parametrize(
    'prefix', [dict(), dict(img=''), dict(video='', x='')]
)
def test_wrong_prefix(ann_file: str, prefix: dict[str, str]) -> None:
    with pytest.raises(KeyError, match="must have the key 'video'"):
        TextVideoDataset(ann_file, data_prefix=prefix)

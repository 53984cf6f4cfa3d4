"""Wrappers and readers around data sets that are none of ours."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from torch.utils.data import ConcatDataset as TorchConcatDataset
from torch.utils.data import DataLoader

from eaglenet_mm.apis.retriever_encoding import _pipeline_of
from eaglenet_mm.config.datasets import load_datasets
from eaglenet_mm.datasets import (
    CaptionExpansion,
    ParagraphDataset,
    RandomCaption,
    TextVideoDataset,
    VideoSubset,
)
from eaglenet_mm.datasets.fetching import ITEM_KEYS
from eaglenet_mm.datasets.joined_parts import mark_parts
from eaglenet_mm.datasets.shared_records import inner_datasets
from eaglenet_mm.datasets.video_checks import check_videos
from eaglenet_mm.engine.hooks import LostVideosHook
from eaglenet_mm.registry import DATASETS
from eaglenet_mm.visualization.set_catalogue import SetCatalogue
from tests.datasets.own_videos import OwnVideos


def infos(dataset: Any, key: str) -> list[Any]:
    return [dataset.get_data_info(index)[key] for index in range(len(dataset))]


def test_each_wrapper_around_an_own_data_set() -> None:
    own = OwnVideos([2, 1, 3])
    pairs = CaptionExpansion(own)
    assert infos(pairs, 'captions') == [
        ['v0-0'],
        ['v0-1'],
        ['v1-0'],
        ['v2-0'],
        ['v2-1'],
        ['v2-2'],
    ]
    assert infos(pairs, 'caption_indices') == [[n] for n in range(6)]
    assert pairs.video_ids() == ['v0', 'v0', 'v1', 'v2', 'v2', 'v2']
    assert pairs[3]['data_samples'].captions == ['v2-0']
    assert (pairs.metainfo['num_videos'], pairs.metainfo['num_captions']) == (
        3,
        6,
    )
    assert pairs.max_refetch == 1000
    drawn = RandomCaption(own)
    drawn.set_epoch(0)
    assert [x[0].split('-')[0] for x in infos(drawn, 'captions')] == [
        'v0',
        'v1',
        'v2',
    ]
    paragraphs = ParagraphDataset(own)
    assert infos(paragraphs, 'captions')[2] == ['v2-0 v2-1 v2-2']
    subset = VideoSubset(own, [2, 0])
    assert infos(subset, 'caption_indices') == [[0, 1, 2], [3, 4]]
    # what the wrappers change is a copy
    assert infos(own, 'captions')[0] == ['v0-0', 'v0-1']
    assert list(inner_datasets(pairs)) == [own]


def test_items_without_a_copy_stay_as_they_are() -> None:
    items = OwnVideos([2, 2]).load_data_list()

    class Plain:
        pipeline = staticmethod(lambda item: item['captions'])

        def __len__(self) -> int:
            return 2

        def get_data_info(self, index: int) -> dict[str, Any]:
            return items[index]

    pairs = CaptionExpansion(Plain())
    assert [pairs[n] for n in range(4)] == [
        ['v0-0'],
        ['v0-1'],
        ['v1-0'],
        ['v1-1'],
    ]
    assert items[0]['captions'] == ['v0-0', 'v0-1']


@pytest.mark.parametrize('key', ITEM_KEYS)
def test_a_key_that_items_lack_is_named(key: str) -> None:
    with pytest.raises(KeyError, match=f"OwnVideos has no '{key}'"):
        RandomCaption(OwnVideos(leave_out=key))


@pytest.mark.parametrize(
    ('key', 'value', 'error', 'message'),
    [
        ('captions', 'a dog', TypeError, "'captions' must be a list.*got str"),
        ('caption_indices', 3, TypeError, "'caption_indices' must be a list"),
        ('caption_indices', [1], ValueError, 'got 10 and 1'),
        ('video_index', 'v1', TypeError, "'video_index' must be an int"),
    ],
)
def test_a_value_of_another_kind_is_named(
    key: str, value: Any, error: type[Exception], message: str
) -> None:
    class Odd(OwnVideos):
        def load_data_list(self) -> list[dict[str, Any]]:
            items = super().load_data_list()
            items[4][key] = value
            return items

    with pytest.raises(error, match=f'Item 4 of Odd.*{message}'):
        CaptionExpansion(Odd())


def test_what_cannot_be_wrapped_is_refused() -> None:
    class NoPipeline(list):
        get_data_info = list.index

    class Prepares(OwnVideos):
        def prepare_data(self, idx: int) -> Any:
            return super().prepare_data(idx)

    with pytest.raises(TypeError, match="got list, which has no 'get_data"):
        RandomCaption([])
    with pytest.raises(TypeError, match="NoPipeline, which has no 'pipeline'"):
        RandomCaption(NoPipeline())
    with pytest.raises(TypeError, match="'prepare_data' of Prepares"):
        RandomCaption(Prepares())


@pytest.mark.parametrize('joined', [ConcatDataset, TorchConcatDataset])
def test_joined_sets_keep_their_pipelines_and_numbers(joined: type) -> None:
    parts = [
        OwnVideos([2, 1], pipeline=[lambda item: ('first', item)]),
        OwnVideos([1, 2], name='w', pipeline=[lambda item: ('second', item)]),
    ]
    both = joined(parts)
    pairs = CaptionExpansion(both)
    assert infos(pairs, 'captions') == [
        ['v0-0'],
        ['v0-1'],
        ['v1-0'],
        ['w0-0'],
        ['w1-0'],
        ['w1-1'],
    ]
    assert infos(pairs, 'caption_indices') == [[n] for n in range(6)]
    assert infos(pairs, 'video_index') == [0, 0, 1, 2, 3, 3]
    assert [pairs[n][0] for n in (0, 2, 3, 5)] == [
        'first',
        'first',
        'second',
        'second',
    ]
    assert pairs.metainfo['num_videos'] == 4
    assert pairs.metainfo['num_captions'] == 6
    paragraphs = ParagraphDataset(both)
    assert infos(paragraphs, 'caption_indices') == [[0], [1], [2], [3]]
    nested = CaptionExpansion(TorchConcatDataset([both, parts[0]]))
    assert infos(nested, 'video_index') == [0, 0, 1, 2, 3, 3, 4, 4, 5]
    assert [nested[n][0] for n in (0, 5, 8)] == ['first', 'second', 'first']


def test_ours_and_others_joined(
    ann_file: str, tmp_path: Path, clips: None
) -> None:
    ours = TextVideoDataset(
        ann_file,
        data_prefix=dict(video=str(tmp_path)),
        pipeline=[lambda item: item['video_id']],
    )
    pairs = CaptionExpansion(TorchConcatDataset([OwnVideos([1]), ours]))
    assert pairs.video_ids() == ['v0', *'aaabcc']
    assert [pairs[n] for n in (1, 4, 6)] == ['a', 'b', 'c']
    assert infos(pairs, 'video_index') == [0, 1, 1, 1, 2, 3, 3]


def test_repeated_items_are_no_whole_videos() -> None:
    twice = RepeatDataset(OwnVideos([2, 1]), times=2)
    pairs = CaptionExpansion(twice)
    assert pairs.video_ids() == ['v0', 'v0', 'v1'] * 2
    assert pairs[4]['data_samples'].captions == ['v0-1']
    with pytest.raises(TypeError, match='needs items that are whole videos'):
        VideoSubset(twice, 2)


def test_nested_configs_of_any_data_set() -> None:
    dataset = DATASETS.build(
        dict(
            type='CaptionExpansion',
            dataset=dict(
                type='ConcatDataset',
                datasets=[
                    dict(type='OwnVideos', counts=[1]),
                    dict(type='OwnVideos', counts=[2], name='w'),
                ],
            ),
        )
    )
    assert infos(dataset, 'captions') == [['v0-0'], ['w0-0'], ['w0-1']]


@pytest.mark.parametrize('workers', [0, 2])
def test_what_the_pipeline_drops_is_counted(
    workers: int, tmp_path: Path
) -> None:
    pairs = CaptionExpansion(OwnVideos([2] * 8, lost=[1, 3]))
    loader = DataLoader(
        pairs, batch_size=4, num_workers=workers, collate_fn=list
    )
    got = [item['data_samples'].video_id for batch in loader for item in batch]
    assert len(got) == 16
    assert not {'v1', 'v3'} & set(got)
    lines: list[str] = []
    LostVideosHook().after_train(
        SimpleNamespace(
            train_dataloader=loader,
            log_dir=str(tmp_path),
            logger=SimpleNamespace(warning=lines.append),
        )
    )
    assert lines[0].startswith('2 of 8 videos (train) were skipped')
    written = json.loads((tmp_path / 'lost_videos_train.json').read_text())
    assert written == {'v1': 'lost/v1.mp4', 'v3': 'lost/v3.mp4'}


def test_pages_of_results_read_an_own_data_set() -> None:
    catalogue = SetCatalogue(OwnVideos([1, 2]))
    assert catalogue.captions([2, 0]) == ['v1-1', 'v0-0']
    frames = catalogue.frames(1)
    assert frames.shape == (3, 5, 5, 3)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'config.py'
    path.write_text(
        'train_dataloader = dict(batch_size=2, dataset=dict('
        "type='RepeatDataset', times=2, dataset=dict("
        "type='OwnVideos', counts=[1, 2], ann_file='mine.json')))\n"
    )
    return path


def test_tools_load_an_own_data_set(config: Path) -> None:
    (dataset,) = load_datasets(str(config)).values()
    assert isinstance(dataset, OwnVideos)
    config.write_text(config.read_text().replace(", ann_file='mine.json'", ''))
    with pytest.raises(TypeError, match=r"OwnVideos.*'ann_file'"):
        load_datasets(str(config))


def test_videos_of_an_own_data_set_are_checked(
    records: list[dict], tmp_path: Path, clips: None
) -> None:
    class Real(OwnVideos):
        def load_data_list(self) -> list[dict[str, Any]]:
            return [
                dict(
                    record,
                    video=str(tmp_path / record['video']),
                    caption_indices=list(range(len(record['captions']))),
                    video_index=index,
                )
                for index, record in enumerate(records)
            ]

    (tmp_path / 'a.mp4').write_bytes(b'')
    dataset = Real(
        ann_file='mine.json',
        pipeline=[
            dict(type='OpenVideo'),
            dict(type='SampleFrames', num_frames=4),
            dict(type='DecodeFrames'),
        ],
    )
    report = check_videos(dataset, tmp_path / 'report.json', num_workers=1)
    assert {x['video_id']: x['status'] for x in report['checks']} == {
        'a': 'unreadable',
        'b': 'ok',
        'c': 'ok',
    }


def test_the_pipeline_of_joined_sets() -> None:
    def config(*pipelines: list[dict]) -> Config:
        parts = [dict(type='OwnVideos', pipeline=x) for x in pipelines]
        return Config(
            dict(
                test_dataloader=dict(
                    dataset=dict(type='ConcatDataset', datasets=parts)
                )
            )
        )

    one, other = [dict(type='OpenVideo')], [dict(type='DecodeFrames')]
    assert _pipeline_of(config(one, one)) == one
    with pytest.raises(ValueError, match='different pipelines'):
        _pipeline_of(config(one, other))


def test_a_video_without_captions_is_left_out_of_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        'eaglenet_mm.datasets.wrappers.print_log',
        lambda message, **_: logged.append(message),
    )
    own = OwnVideos([0, 2, 0, 1, 0])
    pairs = CaptionExpansion(own)
    assert infos(pairs, 'captions') == [['v1-0'], ['v1-1'], ['v3-0']]
    drawn = RandomCaption(own)
    drawn.set_epoch(0)
    assert infos(drawn, 'video_id') == ['v1', 'v3'] == drawn.video_ids()
    paragraphs = ParagraphDataset(own)
    assert infos(paragraphs, 'captions') == [['v1-0 v1-1'], ['v3-0']]
    for wrapper, line in zip((pairs, drawn, paragraphs), logged, strict=True):
        wrapper.full_init()  # as the runner does; says nothing again
        assert line.startswith(
            f'{type(wrapper).__name__} leaves out 3 of 5 items'
        )
    subset = VideoSubset(own, [0, 1])
    assert infos(subset, 'captions') == [[], ['v1-0', 'v1-1']]
    with pytest.raises(ValueError, match='none of the 2 items of OwnVideos'):
        RandomCaption(OwnVideos([0, 0]))


@pytest.mark.parametrize('wrap', [CaptionExpansion, ParagraphDataset])
def test_a_video_without_captions_stays_in_the_gallery(wrap: type) -> None:
    wrapper = wrap(OwnVideos([0, 2, 0, 1, 0], test_mode=True))
    videos = infos(wrapper, 'video_index')
    assert sorted(set(videos)) == [0, 1, 2, 3, 4]
    texts = [text for texts in infos(wrapper, 'captions') for text in texts]
    numbers = [x for own in infos(wrapper, 'caption_indices') for x in own]
    assert numbers == list(range(len(texts)))
    assert len(texts) == wrapper.metainfo['num_captions']
    assert wrapper.metainfo['num_videos'] == 5
    assert wrapper.count_captions(0) == 0


def test_one_caption_of_several_items_fits_all_of_them() -> None:
    """Also behind wrappers, which number captions anew."""

    class Shared(OwnVideos):
        def get_data_info(self, index: int) -> dict[str, Any]:
            return {**super().get_data_info(index), 'caption_indices': [0]}

    own = Shared([1, 1, 1])
    everyone = [['v0', 'v1', 'v2']]
    for wrapped in (VideoSubset(own, 3), ParagraphDataset(own)):
        assert infos(wrapped, 'positives') == [everyone] * 3
    assert 'positives' not in VideoSubset(OwnVideos([1]), 1).get_data_info(0)


def test_joined_sets_add_up_what_is_published() -> None:
    class Published(OwnVideos):
        METAINFO: ClassVar = dict(published_videos=5, published_captions=9)

    joined = ConcatDataset(
        [Published([1, 2]), OwnVideos([3])],
        ignore_keys=['published_videos', 'published_captions'],
    )
    metainfo = CaptionExpansion(joined).metainfo
    assert metainfo['num_videos'] == 3
    assert metainfo['published_videos'] == 5 + 1
    assert metainfo['published_captions'] == 9 + 3


def test_items_without_a_sample_are_not_marked() -> None:
    """They are packed by what wraps the join."""

    class Raw(list):
        pass

    join = TorchConcatDataset([Raw([{'a': 1}]), Raw([{'a': 2}])])
    assert len(mark_parts(join)) == 2
    assert [join[0], join[1]] == [{'a': 1}, {'a': 2}]

import json
import os

import numpy as np
import pytest

from eaglenet_mm.datasets.annotation import read_annotation
from eaglenet_mm.datasets.toy import (
    ToyCombination,
    render_video,
    write_toy_dataset,
    writing,
)
from eaglenet_mm.datasets.toy.writing import write_video
from eaglenet_mm.datasets.transforms import DecodeFrames, SampleFrames
from eaglenet_mm.datasets.video_readers import open_video

SMALL = dict(limit=10, renderings=2, workers=1)


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'toy'
    assert write_toy_dataset(folder, **SMALL)
    return folder


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_annotations_are_valid_and_name_the_videos(toy):
    ids = set()
    for split, count in (('train', 20), ('val', 10), ('test', 10)):
        header, records = read_annotation(toy / f'{split}.json')
        assert (header['dataset'], header['split']) == ('toy', split)
        assert len(records) == count
        assert all(len(record['captions']) == 4 for record in records)
        assert all(
            (toy / 'videos' / record['video']).is_file() for record in records
        )
        ids |= {record['video_id'] for record in records}
    assert len(ids) == 40 == len(list((toy / 'videos').iterdir()))


def test_splits_share_no_combination(toy):
    combinations = [
        {
            record['video_id'].rsplit('-', 1)[0]
            for record in read_annotation(toy / f'{split}.json')[1]
        }
        for split in ('train', 'val', 'test')
    ]
    assert [len(items) for items in combinations] == [10, 10, 10]
    assert len(set.union(*combinations)) == 30


@pytest.mark.parametrize('split', ['val', 'test'])
def test_a_caption_of_a_gallery_has_one_right_answer(toy, split):
    _, records = read_annotation(toy / f'{split}.json')
    captions = [one for record in records for one in record['captions']]
    assert len(captions) == len(set(captions))


def test_header_states_chance_and_ceiling(toy):
    header, _ = read_annotation(toy / 'test.json')
    # ten videos, one of each motion; 8 of them have their reverse
    assert header['chance_R1'] == pytest.approx(10)
    assert header['chance_R5'] == pytest.approx(50)
    assert header['chance_R10'] == pytest.approx(100)
    assert header['order_blind_ceiling_R1'] == pytest.approx(60)
    assert header['order_blind_ceiling_R10'] == pytest.approx(100)
    assert 'chance_R1' not in read_annotation(toy / 'train.json')[0]


@pytest.mark.parametrize('mode', ['release', 'clean'])
@pytest.mark.parametrize('backend', ['pyav', 'decord'])
def test_the_ordinary_pipeline_reads_the_motion_in_order(toy, mode, backend):
    _, records = read_annotation(toy / 'test.json')
    record = next(one for one in records if '-appear-' in one['video_id'])
    path = str(toy / 'videos' / record['video'])
    sampler = SampleFrames(num_frames=6, fps=4, mode=mode)
    results = dict(
        video_reader=open_video(path, backend=backend),
        video=path,
        start=None,
        end=None,
    )
    results = DecodeFrames().transform(sampler.transform(results))
    assert results['frame_indices'] == [0, 2, 4, 6, 8, 10]
    light = np.asarray(results['frames']).astype(float).mean(axis=(1, 2, 3))
    assert (np.diff(light) > 0.3).all()


def test_coding_does_not_tell_the_order(tmp_path):
    import av

    frames = render_video(
        ToyCombination('cross', 'red', 'right', 'navy'),
        np.random.default_rng(0),
    )
    decoded = []
    for name, order in (('forwards', 1), ('backwards', -1)):
        write_video(tmp_path / f'{name}.mp4', frames[::order])
        with av.open(str(tmp_path / f'{name}.mp4')) as container:
            decoded.append(
                [
                    frame.to_ndarray(format='rgb24')
                    for frame in container.decode(video=0)
                ]
            )
    assert len(decoded[0]) == 11
    np.testing.assert_array_equal(decoded[0], decoded[1][::-1])
    # what is read is what was drawn, but for noise and coding
    assert np.abs(decoded[0] - frames.astype(float)).mean() < 8


def test_complete_data_are_left_alone(toy, capsys):
    before = {path: path.stat().st_mtime_ns for path in toy.rglob('*')}
    assert not write_toy_dataset(toy, **SMALL)
    assert before == {p: p.stat().st_mtime_ns for p in toy.rglob('*')}


@pytest.mark.parametrize(
    'damage',
    [
        lambda folder: (folder / 'test.json').write_text('{}'),
        lambda folder: next((folder / 'videos').iterdir()).write_bytes(b''),
        lambda folder: (folder / 'stamp.json').write_text('[]'),
    ],
    ids=['annotation', 'empty video', 'stamp'],
)
def test_damaged_data_are_made_again(tmp_path, damage):
    options = dict(limit=1, renderings=1, workers=1)
    write_toy_dataset(tmp_path / 'toy', **options)
    before = snapshot(tmp_path / 'toy')
    damage(tmp_path / 'toy')
    assert write_toy_dataset(tmp_path / 'toy', **options)
    assert snapshot(tmp_path / 'toy') == before
    assert os.listdir(tmp_path) == ['toy']


def test_number_of_workers_changes_nothing(tmp_path):
    for workers in (1, 2):
        write_toy_dataset(
            tmp_path / str(workers), limit=2, renderings=1, workers=workers
        )
    assert snapshot(tmp_path / '1') == snapshot(tmp_path / '2')


def test_other_options_make_other_data(tmp_path):
    options = dict(limit=1, renderings=1, workers=1)
    write_toy_dataset(tmp_path / 'toy', **options)
    assert write_toy_dataset(tmp_path / 'toy', seed=1, **options)
    assert not write_toy_dataset(tmp_path / 'toy', seed=1, **options)
    stamp = json.loads((tmp_path / 'toy' / 'stamp.json').read_text())
    assert stamp['options']['seed'] == 1


def test_another_generator_makes_the_data_again(tmp_path, monkeypatch):
    options = dict(limit=1, renderings=1, workers=1)
    write_toy_dataset(tmp_path / 'toy', **options)
    monkeypatch.setattr(writing, '_code_hash', lambda: 'other code')
    assert write_toy_dataset(tmp_path / 'toy', **options)


def test_an_interrupted_run_changes_nothing(tmp_path, monkeypatch):
    options = dict(limit=1, renderings=1, workers=1)
    write_toy_dataset(tmp_path / 'toy', **options)
    before = snapshot(tmp_path / 'toy')

    def interrupt(path, frames):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, 'write_video', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_toy_dataset(tmp_path / 'toy', seed=1, **options)
    assert snapshot(tmp_path / 'toy') == before
    assert os.listdir(tmp_path) == ['toy']


def test_what_a_killed_run_left_is_no_obstacle(tmp_path):
    partial = tmp_path / '.toy.partial' / 'videos'
    partial.mkdir(parents=True)
    (partial / 'odd.mp4').write_bytes(b'half')
    write_toy_dataset(tmp_path / 'toy', limit=1, renderings=1, workers=1)
    assert os.listdir(tmp_path) == ['toy']
    assert not (tmp_path / 'toy' / 'videos' / 'odd.mp4').exists()


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / 'precious.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=r"no 'stamp\.json'"):
        write_toy_dataset(tmp_path, limit=1)
    assert (tmp_path / 'precious.txt').read_text() == 'mine'


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / 'toy').mkdir()
    assert write_toy_dataset(
        tmp_path / 'toy', limit=1, renderings=1, workers=1
    )


@pytest.mark.parametrize('name', ['renderings', 'limit', 'workers'])
def test_numbers_below_one_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"'{name}' must be .* got 0"):
        write_toy_dataset(tmp_path / 'toy', **{name: 0})
    assert not any(tmp_path.iterdir())


def test_odd_sizes_are_refused(tmp_path):
    frames = np.zeros((2, 32, 31, 3), np.uint8)
    with pytest.raises(ValueError, match='got frames of 31x32'):
        write_video(tmp_path / 'odd.mp4', frames)

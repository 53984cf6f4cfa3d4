import itertools
import json
import os

import numpy as np
import pytest

from eaglenet_mm.datasets.annotation import read_annotation
from eaglenet_mm.datasets.story import (
    Scene,
    render_scene,
    split_scenes,
    write_story_dataset,
    writing,
)
from eaglenet_mm.datasets.story.content import find_ambiguous
from eaglenet_mm.datasets.story.writing import write_video
from eaglenet_mm.datasets.transforms import DecodeFrames, SampleFrames
from eaglenet_mm.datasets.video_readers import open_video

SMALL = dict(limit=10, workers=1)


@pytest.fixture(scope='module')
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'story'
    assert write_story_dataset(folder, **SMALL)
    return folder


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_annotations_are_valid_and_name_the_videos(story):
    ids = set()
    for split in ('train', 'val', 'test'):
        header, records = read_annotation(story / f'{split}.json')
        assert (header['dataset'], header['split']) == ('story', split)
        assert len(records) == 10
        assert all(
            (story / 'videos' / record['video']).is_file()
            for record in records
        )
        ids |= {record['video_id'] for record in records}
    assert len(ids) == 30 == len(list((story / 'videos').rglob('*.mp4')))


def test_moments_are_the_seconds_of_the_scenes(story):
    scenes, joint = 0, 0
    for record in read_annotation(story / 'test.json')[1]:
        path = str(story / 'videos' / record['video'])
        timeline = open_video(path, backend='pyav').timeline
        length = float(timeline.end * timeline.time_base)
        spans = []
        for text, moments in zip(
            record['captions'], record['moments'], strict=True
        ):
            (((start, end),)) = moments
            if ' then ' in text:
                # two scenes that were told alone, without a gap
                joint += 1
                assert any(a == start for a, _ in spans)
                assert any(b == end for _, b in spans)
                assert (start, end) not in spans
            elif (start, end) not in spans:
                spans.append((start, end))
        scenes += len(spans)
        spans.sort()
        assert spans[0][0] == 0
        assert spans[-1][1] == pytest.approx(length)
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end == start
        assert all(1.75 <= end - start <= 3 for start, end in spans)
    assert scenes > 20
    assert joint


def test_what_is_told_is_shown_in_its_moment(story):
    for record in read_annotation(story / 'test.json')[1]:
        path = str(story / 'videos' / record['video'])
        for text, ((start, end),) in zip(
            record['captions'], record['moments'], strict=True
        ):
            sampler = SampleFrames(num_frames=4, fps=4, mode='clean')
            results = dict(
                video_reader=open_video(path, backend='pyav'),
                video=path,
                start=start,
                end=end,
            )
            results = DecodeFrames().transform(sampler.transform(results))
            # of four corners, a shape covers two at most
            pixels = np.asarray(results['frames'], float)
            corners = pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]]
            shade = np.median(corners, axis=1)  # (frames, RGB)
            if 'navy' in text and ' then ' not in text:
                assert (shade[:, 2] > shade[:, 0] + 40).all()
            if 'brown' in text and ' then ' not in text:
                assert (shade[:, 0] > shade[:, 2] + 40).all()


def test_a_frame_is_shown_when_a_scene_starts(story):
    """Also where frames were left out: a moment has no frame of another."""
    for split in ('train', 'val', 'test'):
        for record in read_annotation(story / f'{split}.json')[1]:
            path = str(story / 'videos' / record['video'])
            timeline = open_video(path, backend='pyav').timeline
            shown = {timeline.seconds(k) for k in range(len(timeline))}
            assert {start for ((start, _),) in record['moments']} <= shown


def test_some_videos_have_a_variable_rate(story):
    variable = 0
    for path in (story / 'videos').rglob('*.mp4'):
        ticks = open_video(str(path), backend='pyav').timeline.ticks
        variable += len(set(np.diff(ticks))) > 1
    assert 3 <= variable <= 20


@pytest.mark.parametrize('split', ['val', 'test'])
def test_a_caption_of_a_gallery_has_one_right_answer(story, split):
    _, records = read_annotation(story / f'{split}.json')
    captions = [one for record in records for one in record['captions']]
    assert len(captions) == len(set(captions))


def test_header_states_chance_and_ceilings(story):
    header, _ = read_annotation(story / 'test.json')
    assert header['chance_R1'] == pytest.approx(10)
    assert header['chance_R5'] == pytest.approx(50)
    assert header['chance_R10'] == pytest.approx(100)
    for name in ('order_blind_ceiling', 'mean_of_scenes_ceiling'):
        assert 50 < header[f'{name}_R1'] <= 100
        assert header[f'{name}_R10'] == pytest.approx(100)
    assert 'chance_R1' not in read_annotation(story / 'train.json')[0]


@pytest.mark.slow
def test_the_whole_test_split_has_one_answer_a_caption():
    items = writing._make_items('test', split_scenes(7)['test'], 7)
    queries = writing._queries(items)
    assert len(items) == 180
    assert find_ambiguous([item.story for item in items], queries) == []


def test_coding_does_not_tell_the_order(tmp_path):
    import av

    frames = render_scene(
        Scene('cross', 'red', 'right', 'navy'), 11, np.random.default_rng(0)
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


def test_complete_data_are_left_alone(story, capsys):
    before = {path: path.stat().st_mtime_ns for path in story.rglob('*')}
    assert not write_story_dataset(story, **SMALL)
    assert before == {p: p.stat().st_mtime_ns for p in story.rglob('*')}


@pytest.mark.parametrize(
    'damage',
    [
        lambda folder: (folder / 'test.json').write_text('{}'),
        lambda folder: next(folder.rglob('*.mp4')).write_bytes(b''),
        lambda folder: (folder / 'stamp.json').write_text('[]'),
    ],
    ids=['annotation', 'empty video', 'stamp'],
)
def test_damaged_data_are_made_again(tmp_path, damage):
    options = dict(limit=1, workers=1)
    write_story_dataset(tmp_path / 'story', **options)
    before = snapshot(tmp_path / 'story')
    damage(tmp_path / 'story')
    assert write_story_dataset(tmp_path / 'story', **options)
    assert snapshot(tmp_path / 'story') == before
    assert os.listdir(tmp_path) == ['story']


def test_number_of_workers_changes_nothing(tmp_path):
    for workers in (1, 2):
        write_story_dataset(tmp_path / str(workers), limit=2, workers=workers)
    assert snapshot(tmp_path / '1') == snapshot(tmp_path / '2')


def test_other_options_make_other_data(tmp_path):
    options = dict(limit=1, workers=1)
    write_story_dataset(tmp_path / 'story', **options)
    assert write_story_dataset(tmp_path / 'story', seed=1, **options)
    assert not write_story_dataset(tmp_path / 'story', seed=1, **options)
    stamp = json.loads((tmp_path / 'story' / 'stamp.json').read_text())
    assert stamp['options']['seed'] == 1


def test_another_generator_makes_the_data_again(tmp_path, monkeypatch):
    options = dict(limit=1, workers=1)
    write_story_dataset(tmp_path / 'story', **options)
    monkeypatch.setattr(writing, '_code_hash', lambda: 'other code')
    assert write_story_dataset(tmp_path / 'story', **options)


def test_an_interrupted_run_changes_nothing(tmp_path, monkeypatch):
    options = dict(limit=1, workers=1)
    write_story_dataset(tmp_path / 'story', **options)
    before = snapshot(tmp_path / 'story')

    def interrupt(path, frames, times):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, 'write_video', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_story_dataset(tmp_path / 'story', seed=1, **options)
    assert snapshot(tmp_path / 'story') == before
    assert os.listdir(tmp_path) == ['story']


def test_what_a_killed_run_left_is_no_obstacle(tmp_path):
    partial = tmp_path / '.story.partial' / 'videos'
    partial.mkdir(parents=True)
    (partial / 'odd.mp4').write_bytes(b'half')
    write_story_dataset(tmp_path / 'story', limit=1, workers=1)
    assert os.listdir(tmp_path) == ['story']
    assert not (tmp_path / 'story' / 'videos' / 'odd.mp4').exists()


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / 'precious.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=r"no 'stamp\.json'"):
        write_story_dataset(tmp_path, limit=1)
    assert (tmp_path / 'precious.txt').read_text() == 'mine'


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / 'story').mkdir()
    assert write_story_dataset(tmp_path / 'story', limit=1, workers=1)


@pytest.mark.parametrize('name', ['limit', 'workers'])
def test_numbers_below_one_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"'{name}' must be .* got 0"):
        write_story_dataset(tmp_path / 'story', **{name: 0})
    assert not any(tmp_path.iterdir())


def test_odd_sizes_are_refused(tmp_path):
    frames = np.zeros((2, 32, 31, 3), np.uint8)
    with pytest.raises(ValueError, match='got frames of 31x32'):
        write_video(tmp_path / 'odd.mp4', frames)

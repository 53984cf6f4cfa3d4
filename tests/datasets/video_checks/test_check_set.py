"""Checking all videos of a set, on whole, odd and damaged clips."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from eaglenet_mm.datasets import (
    TextVideoDataset,
    read_annotation,
    write_annotation,
)
from eaglenet_mm.datasets.video_checks import (
    CheckReport,
    VideoCheck,
    check_videos,
    clean_annotation,
    report_lines,
)
from eaglenet_mm.datasets.video_readers import PyAVReader

PIPELINE = (
    dict(type='OpenVideo'),
    dict(type='SampleFrames', num_frames=4),
    dict(type='DecodeFrames'),
)


def misbehave(results: dict[str, Any]) -> dict[str, Any]:
    """Stand for a decoder that hangs or brings its process down."""
    if results['video_id'] == 'hang':
        time.sleep(60)
    if results['video_id'] == 'crash':
        os.kill(os.getpid(), signal.SIGKILL)
    return results


def write_sound(path: Path) -> None:
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=8000, layout='mono')
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format='fltp', layout='mono'
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def promise_more(path: Path, num_frames: int) -> None:
    """Write another number of frames into the header of an AVI file."""
    content = bytearray(path.read_bytes())
    for chunk, place in ((b'avih', 16), (b'strh', 32)):
        begin = content.index(chunk) + 8 + place
        content[begin : begin + 4] = num_frames.to_bytes(4, 'little')
    path.write_bytes(content)


@pytest.fixture
def make_set(tmp_path: Path) -> Callable[..., TextVideoDataset]:
    def make(
        names: dict[str, str], before: tuple = (), pipeline: Any = PIPELINE
    ) -> TextVideoDataset:
        write_annotation(
            tmp_path / 'set.json',
            dict(dataset='made-up', split='train', protocol='all'),
            [
                dict(video_id=key, video=name, captions=['a', 'b'])
                for key, name in names.items()
            ],
        )
        return TextVideoDataset(
            str(tmp_path / 'set.json'),
            data_prefix=dict(video=str(tmp_path)),
            pipeline=[*before, *map(dict, pipeline)],
        )

    return make


@pytest.fixture
def damaged(write_clip: Callable[..., Path], tmp_path: Path) -> dict[str, str]:
    """A whole clip and the ways in which others are not."""
    whole = write_clip('whole.mp4')
    (tmp_path / 'empty.mp4').touch()
    (tmp_path / 'cut.mp4').write_bytes(whole.read_bytes()[:-2000])
    (tmp_path / 'text.mp4').write_text('this is a text ' * 99)
    write_sound(tmp_path / 'sound.mp4')
    (tmp_path / 'folder.mp4').mkdir()
    (tmp_path / 'loop.mp4').symlink_to('loop.mp4')
    damages = ['missing', 'empty', 'cut', 'text', 'sound', 'folder', 'loop']
    return {name: f'{name}.mp4' for name in ['whole', *damages]}


def test_every_damage_is_found(
    make_set: Callable[..., TextVideoDataset],
    damaged: dict[str, str],
    tmp_path: Path,
) -> None:
    dataset = make_set(
        {**damaged, 'hang': 'whole.mp4', 'crash': 'whole.mp4'},
        before=(misbehave,),
    )
    report = check_videos(dataset, tmp_path / 'report.json', time_limit=1)
    found = {x['video_id']: x['status'] for x in report['checks']}
    assert found == {
        'whole': 'ok',
        'missing': 'missing',
        'empty': 'unreadable',
        'cut': 'unreadable',
        'text': 'unreadable',
        'sound': 'unreadable',
        'folder': 'unreadable',
        'loop': 'unreadable',
        'hang': 'hang',
        'crash': 'crash',
    }
    assert report['safe'] is False
    assert report['statuses']['unreadable'] == 6
    for check in report['checks']:
        if check['status'] != 'ok':
            assert check['video'] in check['error']
    text = '\n'.join(report_lines(report, num_named=2))
    assert 'ok: 1 of 10' in text
    assert 'hang: 1 (reading it does not end; training would stop)' in text
    assert 'stood still for 2 seconds' in text
    assert 'its process died (SIGKILL) while reading' in text
    assert 'and 4 more' in text
    assert json.loads((tmp_path / 'report.json').read_text()) == report
    assert not (tmp_path / 'report.json.part').exists()


def test_what_does_not_stop_training_is_noted(
    make_set: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    set_matrix: Callable[..., None],
    tmp_path: Path,
) -> None:
    write_clip('whole.mp4', fps=10)
    set_matrix(write_clip('mirrored.mp4'), 0, 1, 1, 0)
    set_matrix(write_clip('tilted.mp4'), 0.98, 0.17, -0.17, 0.98)
    promise_more(write_clip('cut.avi', num_frames=20), 60)
    with av.open(str(tmp_path / 'uneven.mp4'), 'w') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = 'yuv420p'
        for time_stamp in (0, 1, 2, 5, 9, 10, 14, 20, 25, 30, 31, 35):
            frame = av.VideoFrame(32, 32, 'yuv420p')
            frame.pts = time_stamp
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    dataset = make_set(
        {
            name.split('.')[0]: name
            for name in (
                *('whole.mp4', 'cut.avi', 'uneven.mp4'),
                *('mirrored.mp4', 'tilted.mp4'),
            )
        }
    )
    report = check_videos(dataset, tmp_path / 'report.json')
    whole, cut_check, uneven, mirrored, tilted = report['checks']
    assert report['safe'] is True
    assert whole['notes'] == []
    assert whole['frames_decoded'] == whole['frames_promised'] == 30
    assert (whole['width'], whole['height'], whole['fps']) == (64, 48, 10.0)
    assert whole['duration'] == pytest.approx(3.0)
    assert whole['frames_read'] == 3
    assert cut_check['notes'] == ['truncated']
    assert cut_check['frames_promised'] == 60
    assert cut_check['frames_decoded'] == 20
    assert uneven['notes'] == ['variable frame rate']
    assert mirrored['notes'] == ['rotated', 'mirrored']
    assert mirrored['rotation'] == 90
    assert tilted['notes'] == []
    assert set(report['notes'].values()) == {1}


def test_the_real_clips(
    shared_dir: Path, make_set: Callable[..., TextVideoDataset], tmp_path: Path
) -> None:
    folder = shared_dir / 'data' / 'videos'
    if not folder.is_dir():
        pytest.skip('the real clips are not on this machine')
    paths = [path for path in sorted(folder.glob('*/*')) if path.is_file()]
    dataset = make_set(
        {path.relative_to(folder).as_posix(): str(path) for path in paths}
    )
    report = check_videos(dataset, tmp_path / 'report.json', time_limit=60)
    checks = {x['video_id']: x for x in report['checks']}
    bad = {name for name, x in checks.items() if x['status'] != 'ok'}
    assert bad == {
        'broken/Panasonic_AG_HMC_151.MTS',
        'broken/corrupted.mp4',
        'broken/first_vid.mp4',
        'broken/matrix_ping_pong.wmv',
        'broken/mpeg4.mp4',
        'broken/pentax_320x240.mov',
        'derived/empty.mp4',
        'derived/video7011_truncated.mp4',
    }
    for name in ('breakdance.flv', 'corrupted.mp4', 'pentax_320x240.mov'):
        assert 'truncated' in checks[f'broken/{name}']['notes']
    assert checks['broken/pentax_320x240.mov']['status'] == 'no frames'
    assert checks['broken/breakdance.flv']['frames_decoded'] == 44
    for name in ('video_90', 'video_270'):
        assert 'rotated' in checks[f'formats/{name}.mov']['notes']
    assert (
        'variable frame rate'
        in checks['formats/goldeneye-vfr-drop3.mp4']['notes']
    )
    assert checks['msrvtt/video7011.mp4']['notes'] == []


class StopTestError(Exception):
    pass


def test_an_interrupted_check_goes_on(
    make_set: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in 'abcdef':
        write_clip(f'{name}.mp4')
    (tmp_path / 'g.mp4').touch()
    dataset = make_set({name: f'{name}.mp4' for name in 'gabcdef'})
    path = tmp_path / 'report.json'
    checked: list[str] = []
    add = CheckReport.add

    def stop_after_four(self: CheckReport, check: VideoCheck) -> None:
        add(self, check)
        checked.append(check.video_id)
        if len(checked) == 4:
            raise StopTestError

    monkeypatch.setattr(CheckReport, 'add', stop_after_four)
    with pytest.raises(StopTestError):
        check_videos(dataset, path, num_workers=1)
    assert checked == ['g', 'a', 'b', 'c']
    part = path.with_name('report.json.part')
    with open(part, 'a') as file:
        file.write('{"video_id": "d", "vid')  # stopped while writing
    write_clip('b.mp4', num_frames=20)  # changed meanwhile
    report = check_videos(dataset, path, num_workers=1)
    assert checked[4:] == ['b', 'd', 'e', 'f']
    assert [x['video_id'] for x in report['checks']] == list('gabcdef')
    assert report['checks'][2]['frames_decoded'] == 20
    # a finished check looks again at errors, and at nothing else
    check_videos(dataset, path)
    assert checked[8:] == ['g']
    # other settings: all again
    check_videos(dataset, path, time_limit=99)
    assert sorted(checked[9:]) == list('abcdefg')


@pytest.mark.parametrize('content', ['', '{"settings": 3}', '[]', '\x00'])
def test_a_report_of_something_else_is_ignored(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / 'report.json'
    path.write_text(content)
    path.with_name('report.json.part').write_text(content)
    items = [dict(video_id='v', video='v.mp4')]

    def known(setting: int, items: list[dict[str, str]]) -> int:
        report = CheckReport(path, dict(a=setting))
        report.load(items)
        return len(report.checks)

    assert known(1, items) == 0
    CheckReport(path, dict(a=1)).add(VideoCheck.of_item(items[0]))
    assert known(1, items) == 1
    part = path.with_name('report.json.part')
    with open(part, 'a') as file:
        file.write('{"video_id": "w", "video": "w.mp4", "file": [1]}\n')
    assert known(1, items) == 1
    assert known(1, [dict(video_id='v', video='w.mp4')]) == 0
    assert known(1, [dict(video_id='v', video='v.mp4', start=2.0)]) == 0
    assert known(2, items) == 0


def test_another_annotation_is_checked_anew(
    make_set: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    tmp_path: Path,
) -> None:
    write_clip('a.mp4')
    path = tmp_path / 'report.json'
    assert check_videos(make_set(dict(v='a.mp4')), path)['safe']
    assert not check_videos(make_set(dict(v='none.mp4')), path)['safe']


def fail(results: dict[str, Any]) -> dict[str, Any]:
    raise KeyError('no such thing')


def test_a_transform_that_fails(
    make_set: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    tmp_path: Path,
) -> None:
    write_clip('a.mp4')
    dataset = make_set(dict(v='a.mp4'), before=(fail,))
    report = check_videos(dataset, tmp_path / 'report.json')
    assert report['statuses']['failure'] == 1
    (check,) = report['checks']
    assert "a.mp4: KeyError: 'no such thing'" in check['error']


@pytest.mark.parametrize('limit', [float('nan'), float('inf'), -1.0])
def test_impossible_limits(
    make_set: Callable[..., TextVideoDataset], tmp_path: Path, limit: float
) -> None:
    with pytest.raises(ValueError, match='finite time limit'):
        check_videos(
            make_set(dict(v='a.mp4')), tmp_path / 'r.json', time_limit=limit
        )


def test_a_reduced_annotation(
    make_set: Callable[..., TextVideoDataset],
    damaged: dict[str, str],
    tmp_path: Path,
) -> None:
    dataset = make_set(damaged)
    report = check_videos(dataset, tmp_path / 'report.json')
    path = clean_annotation(dataset.ann_file, report)
    assert path == tmp_path / 'set_clean.json'
    header, records = read_annotation(path)
    assert [record['video_id'] for record in records] == ['whole']
    assert header['num_videos'] == 1
    assert header['published_videos'] == 8
    assert header['published_captions'] == 16
    assert header['missing_videos'] == [
        'missing', 'empty', 'cut', 'text', 'sound', 'folder', 'loop'
    ]  # fmt: skip
    clean = TextVideoDataset(
        str(path),
        data_prefix=dict(video=str(tmp_path)),
        pipeline=[dict(transform) for transform in PIPELINE],
    )
    assert clean[0]['frames'].shape == (3, 48, 64, 3)
    (tmp_path / 'whole.mp4').unlink()
    report = check_videos(clean, tmp_path / 'report.json')
    with pytest.raises(ValueError, match='none of its 8 videos'):
        clean_annotation(
            dataset.ann_file,
            check_videos(dataset, tmp_path / 'report.json'),
        )


def test_a_pipeline_without_frames(
    make_set: Callable[..., TextVideoDataset], tmp_path: Path
) -> None:
    dataset = make_set(dict(a='a.mp4'), pipeline=PIPELINE[:1])
    with pytest.raises(ValueError, match='pipeline with DecodeFrames'):
        check_videos(dataset, tmp_path / 'report.json')


def test_an_odd_file_does_not_end_the_check(
    make_set: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: PyAVReader) -> None:
        raise ZeroDivisionError('no time base')

    write_clip('a.mp4')
    monkeypatch.setattr(PyAVReader, 'decode', fail)
    dataset = make_set(dict(v='a.mp4'))
    (check,) = check_videos(dataset, tmp_path / 'report.json')['checks']
    assert check['status'] == 'ok'
    assert 'cut by an error' in check['notes']
    for word in ('a.mp4', "'pyav'", 'ZeroDivisionError: no time base'):
        assert word in check['error']


def test_a_resize_that_fails_is_no_fault_of_the_file(
    make_set: Callable[..., TextVideoDataset],
    write_clip: Callable[..., Path],
    tmp_path: Path,
) -> None:
    write_clip('a.mp4')
    dataset = make_set(dict(v='a.mp4'))
    dataset.pipeline.transforms[2].resize = fail
    (check,) = check_videos(dataset, tmp_path / 'report.json')['checks']
    assert check['status'] == 'failure'
    assert "a.mp4: KeyError: 'no such thing'" in check['error']

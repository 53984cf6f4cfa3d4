from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from eaglenet_mm.datasets import TextVideoDataset, VideoReadError
from eaglenet_mm.datasets.transforms import SampleFrames
from eaglenet_mm.datasets.video_readers import (
    DecordReader,
    OpenCVReader,
    PyAVReader,
    check_backend,
    open_video,
    opening,
)


@pytest.mark.parametrize(
    ('backend', 'reader_type'),
    [
        ('auto', PyAVReader),
        ('decord', DecordReader),
        ('pyav', PyAVReader),
        ('opencv', OpenCVReader),
    ],
)
def test_reader_by_name(
    write_clip: Callable[..., Path], backend: str, reader_type: type
) -> None:
    path = str(write_clip())
    for time_limit in (0, 9):
        with open_video(path, backend=backend, time_limit=time_limit) as guard:
            assert type(guard.reader) is reader_type


def test_auto_without_pyav(
    write_clip: Callable[..., Path],
    frame_numbers: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = str(write_clip())
    for module in ('opening', 'opencv_reader'):
        monkeypatch.setattr(
            f'eaglenet_mm.datasets.video_readers.{module}.find_spec',
            lambda name: None,
        )
    with open_video(path) as reader:
        assert type(reader.reader) is OpenCVReader
        assert frame_numbers(reader.get_batch([3, 17])) == [3, 17]


def test_decord_refuses_what_it_reads_wrongly(
    write_clip: Callable[..., Path],
) -> None:
    wrong = [
        write_clip('a.avi'),
        write_clip('a.ts', fps=25),
        write_clip('b.mp4', pixel_format='yuv420p10le'),
        write_clip('c.mp4', options={'x264-params': 'open-gop=1:keyint=9'}),
        write_clip('d.mp4', options={'x264-params': 'interlaced=1'}),
        write_clip('e.mp4', codec='libx265'),
        write_two_streams(write_clip().with_name('two.mp4')),
    ]
    for path in wrong:
        with pytest.raises(VideoReadError, match=r"wrong frames.*'auto'"):
            open_video(str(path), backend='decord')


def test_decord_refuses_a_file_that_lists_no_key_frames(
    write_clip: Callable[..., Path], frame_numbers: Callable
) -> None:
    path = write_clip(num_frames=40, options={'g': '12', 'bf': '0'})
    with open_video(str(path), backend='decord') as reader:
        assert frame_numbers(reader.get_batch([30])) == [30]
    # without its table each frame counts as one
    path.write_bytes(path.read_bytes().replace(b'stss', b'free'))
    with pytest.raises(VideoReadError, match='wrong frames'):
        open_video(str(path), backend='decord')
    with open_video(str(path)) as reader:
        assert frame_numbers(reader.get_batch([30, 17])) == [30, 17]


def write_two_streams(path: Path) -> Path:
    """Write a small and a large video into one file."""
    with av.open(str(path), 'w') as container:
        streams = [container.add_stream('libx264', rate=10) for _ in range(2)]
        for stream, size in zip(streams, (64, 128), strict=True):
            stream.width = stream.height = size
            stream.pix_fmt = 'yuv420p'
        for _ in range(8):
            for stream in streams:
                frame = av.VideoFrame(stream.width, stream.height, 'yuv420p')
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize('backend', ['auto', 'pyav', 'opencv'])
def test_the_first_of_two_streams_is_read(
    tmp_path: Path, backend: str
) -> None:
    path = write_two_streams(tmp_path / 'two.mp4')
    with open_video(str(path), backend=backend) as reader:
        assert reader.get_batch([7]).shape == (1, 64, 64, 3)


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / 'song.mp4'
    with av.open(str(path), 'w') as container:
        sound = container.add_stream('aac', rate=44100)
        cover = container.add_stream('mjpeg', rate=1)
        cover.width = cover.height = 32
        cover.pix_fmt = 'yuvj420p'
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame(32, 32, 'yuvj420p')))
        container.mux(cover.encode())
        container.mux(sound.encode())
    with pytest.raises(VideoReadError, match='no video stream'):
        open_video(str(path))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.mp4' does not exist"):
        open_video(str(tmp_path / 'none.mp4'))
    (tmp_path / 'file').touch()
    with pytest.raises(FileNotFoundError, match='does not exist'):
        open_video(str(tmp_path / 'file' / 'clip.mp4'))


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(VideoReadError, match='it is a folder'):
        open_video(str(tmp_path))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe.mp4')
    with pytest.raises(VideoReadError, match='it is not a regular file'):
        open_video(str(tmp_path / 'pipe.mp4'))


def test_links_in_a_loop(tmp_path: Path) -> None:
    (tmp_path / 'a.mp4').symlink_to('b.mp4')
    (tmp_path / 'b.mp4').symlink_to('a.mp4')
    with pytest.raises(VideoReadError, match=r'a\.mp4.*cannot be reached'):
        open_video(str(tmp_path / 'a.mp4'))


def test_a_zero_character_in_the_name() -> None:
    with pytest.raises(VideoReadError, match='cannot be reached'):
        open_video('clip\0.mp4')


def test_a_file_that_may_not_be_read(
    write_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the super-user may read everything, so the answer is made up
    monkeypatch.setattr(opening.os, 'access', lambda path, mode: False)
    with pytest.raises(VideoReadError, match='no permission'):
        open_video(str(write_clip()))


@pytest.mark.parametrize('backend', ['auto', 'decord', 'opencv'])
@pytest.mark.parametrize(
    'name',
    [
        'with spaces and (brackets).mp4',
        '-dash.mp4',
        'Grüße 视频 \u05e9\u05dc\u05d5\u05dd.mp4',
        'http:not-an-address.mp4',
        'percent%03d.mp4',
        "quote'.mp4",
        'no_extension',
    ],
)
def test_odd_names(
    write_clip: Callable[..., Path],
    frame_numbers: Callable,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    name: str,
) -> None:
    path = write_clip('plain.mp4')
    path.rename(path.with_name(name))
    for given in (str(path.with_name(name)), name):
        monkeypatch.chdir(path.parent)
        with open_video(given, backend=backend) as reader:
            assert frame_numbers(reader.get_batch([0, 17])) == [0, 17]


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"'auto', 'decord'.*got 'ffmpeg'"):
        check_backend('ffmpeg')


def test_real_clips_are_sampled_as_by_the_release(video_dir: Path) -> None:
    """Frames at 1 fps and the 12 kept, as the release chose them."""
    file = video_dir / 'reference_sampling_1fps.json'
    clips = json.loads(file.read_text(encoding='utf-8'))['clips']
    sampler = SampleFrames(12)
    checked = 0
    for name, expected in clips.items():
        if name.split('/')[0] not in ('msrvtt', 'msvd', 'vatex'):
            continue
        with open_video(str(video_dir / name)) as reader:
            assert float(reader.fps) == pytest.approx(
                expected['fps'], abs=1e-3
            )
            assert reader.num_frames_reported == expected['frame_count_header']
            frames = sampler.sample(
                reader.fps,
                reader.num_frames_reported,
                decodable=reader.num_frames,
            )
        assert frames == expected['selected_12'], name
        checked += 1
    assert checked == 8


def test_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / 'a.mp4').symlink_to('gone.mp4')
    with pytest.raises(FileNotFoundError, match=r"a link to 'gone\.mp4'"):
        open_video(str(tmp_path / 'a.mp4'))


def test_only_a_data_set_speaks_of_its_root(
    ann_file: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_video(str(tmp_path / 'a.mp4'))
    assert 'config' not in str(caught.value)
    dataset = TextVideoDataset(
        ann_file,
        data_prefix=dict(video=str(tmp_path)),
        pipeline=[dict(type='OpenVideo')],
    )
    with pytest.raises(FileNotFoundError, match=r"exist.*check 'data_root'"):
        dataset[0]

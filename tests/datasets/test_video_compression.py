import errno
import json
import os
import re
import signal
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from eaglenet_mm.datasets.isolated_workers import Outcome
from eaglenet_mm.datasets.video_compression import (
    compress_folder,
    compress_video,
    copies,
    encoding,
)
from eaglenet_mm.datasets.video_readers import VideoReadError, open_video
from tests.datasets.video_readers.backends import few
from tests.started import start

STAMP = copies.STAMP_NAME
# FFmpeg's filter that writes a turn into an H.264 stream
TURN = 'h264_metadata=display_orientation=insert:rotate=90'


def read(path):
    """Read all frames with the reader of the pipelines, and its rate."""
    with open_video(str(path)) as reader:
        frames = reader.get_batch(range(reader.num_frames))
        return frames, reader.fps


def write_images(path, images, times=None, rate=10, **options):
    """Write images at given times in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = options.pop('pix_fmt', 'yuv420p')
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {'bf': '0', **options}
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            frame.time_base = Fraction(1, 1000)
            frame.pts = times[number] if times else 1000 * number // rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def grey(level, size=(64, 48)):
    return np.full((size[1], size[0], 3), level, dtype=np.uint8)


def files_below(folder):
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob('*')
        if not path.is_dir()
    )


def times_below(folder):
    return {
        name: (folder / name).stat().st_mtime_ns
        for name in files_below(folder)
        if name != STAMP
    }


@pytest.fixture
def videos(tmp_path, write_clip):
    """A folder of two short clips."""
    write_clip('videos/a.mp4', num_frames=10)
    write_clip('videos/sub/b.avi', num_frames=20, codec='mpeg4')
    return tmp_path / 'videos'


def test_frames_size_rate_and_format(tmp_path, write_clip, frame_numbers):
    # a source of key frames alone does not make a copy of them
    source = write_clip('a.mp4', 30, size=(90, 64), options={'g': '1'})
    target = tmp_path / 'deep' / 'copy'
    assert compress_video(source, target, short_side=32) == 9
    frames, fps = read(target)
    assert frames.shape == (9, 32, 44, 3)  # 45 is odd
    assert fps == 3
    assert frame_numbers(frames) == [0, 3, 6, 10, 13, 16, 20, 23, 26]
    with av.open(str(target)) as container:
        assert 'mp4' in container.format.name.split(',')
        [stream] = container.streams
        assert stream.codec_context.name == 'h264'
        assert stream.codec_context.pix_fmt == 'yuv420p'
        decoded = list(container.decode(stream))
    assert sum(frame.key_frame for frame in decoded) == 1
    times = [frame.time for frame in decoded]
    assert times == pytest.approx([number / 3 for number in range(9)])
    assert files_below(target.parent) == ['copy']


@pytest.mark.parametrize('fps', [5, 2.5, Fraction(30000, 1001)])
def test_rates(tmp_path, write_clip, frame_numbers, fps):
    compress_video(write_clip('a.mp4'), tmp_path / 'copy', fps=fps)
    frames, found = read(tmp_path / 'copy')
    assert found == Fraction(fps)
    expected = [int(10 * n / fps) for n in range(100) if n / fps < 3]
    assert frame_numbers(frames) == expected


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        ((64, 48), (64, 48)),  # smaller videos are not enlarged
        ((120, 300), (100, 250)),
        ((101, 203), (100, 200)),  # 2.4 pixels wide pieces stay even
        ((51, 33), (50, 32)),
        ((2, 400), (2, 400)),
    ],
)
def test_sizes(tmp_path, size, expected):
    images = [grey(90, size)] * 4
    write_images(tmp_path / 'a.mp4', images, pix_fmt='yuv444p')
    compress_video(tmp_path / 'a.mp4', tmp_path / 'copy', short_side=100)
    frames, _ = read(tmp_path / 'copy')
    assert frames.shape[2:0:-1] == expected
    assert abs(frames.mean() - 90) < 2


@pytest.mark.parametrize('ending', ['mkv', 'mp4'])
def test_variable_rate_and_late_start(tmp_path, ending):
    times = [1000, 1100, 1200, 1900, 3000]
    levels = [20, 60, 100, 140, 180]
    images = [grey(level) for level in levels]
    write_images(tmp_path / f'a.{ending}', images, times)
    compress_video(tmp_path / f'a.{ending}', tmp_path / 'copy')
    frames, fps = read(tmp_path / 'copy')
    assert fps == 3
    found = [round(frame.mean() / 20) * 20 for frame in frames]
    assert found[:6] == [20, 100, 100, 140, 140, 140]
    assert set(found[6:]) == {180}
    # annotated seconds fit the copy as they fit its source
    with av.open(str(tmp_path / 'copy')) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    expected = [1 + number / 3 for number in range(len(found))]
    assert shown == pytest.approx(expected, abs=1e-3)


def test_a_clock_that_jumps(tmp_path, write_clip, frame_numbers):
    # MPEG-TS may be joined of parts, each of which has a clock of its own
    pieces = []
    for number, shift in enumerate([0, 600, -300]):
        path = tmp_path / f'{number}.ts'
        clip = write_clip(f'{number}.mp4', 20, options={'bf': '0'})
        with (
            av.open(str(clip)) as container,
            av.open(str(path), 'w', options={'mpegts_copyts': '1'}) as output,
        ):
            stream = output.add_stream_from_template(
                container.streams.video[0]
            )
            for packet in container.demux(video=0):
                if packet.dts is not None:
                    packet.pts += round((shift + 400) / packet.time_base)
                    packet.dts = packet.pts
                    packet.stream = stream
                    output.mux(packet)
        pieces.append(path.read_bytes())
    (tmp_path / 'a.ts').write_bytes(b''.join(pieces))
    assert compress_video(tmp_path / 'a.ts', tmp_path / 'copy') == 18
    frames, _ = read(tmp_path / 'copy')
    assert frame_numbers(frames) == [0, 3, 6, 10, 13, 16] * 3


def test_slow_and_short_videos(tmp_path, write_clip, frame_numbers):
    source = write_clip('slow.mp4', num_frames=3, fps=1)
    assert compress_video(source, tmp_path / 'copy') == 9
    frames, _ = read(tmp_path / 'copy')
    assert frame_numbers(frames) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    source = write_clip('short.mp4', num_frames=2, fps=30)
    assert compress_video(source, tmp_path / 'copy') == 1
    assert frame_numbers(read(tmp_path / 'copy')[0]) == [0]


@pytest.mark.parametrize('mirror', [1, -1])
@pytest.mark.parametrize('turns', few([1, 0, 2, 3], 1))
def test_orientation(tmp_path, set_matrix, turns, mirror):
    path = tmp_path / 'a.mp4'
    write_images(path, [four_levels()] * 3)
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns]
    set_matrix(path, cosine * mirror, sine * mirror, -sine, cosine)
    compress_video(path, tmp_path / 'copy', short_side=32)
    [frame] = read(tmp_path / 'copy')[0]
    # the matrix turns clockwise
    expected = np.rot90(four_levels()[:, ::mirror], -turns)[1::2, 1::2]
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 4
    with av.open(str(tmp_path / 'copy')) as container:
        assert next(container.decode(video=0)).rotation == 0


def test_orientation_of_the_first_frame_is_that_of_all(tmp_path):
    # FFmpeg marks only the frames in which the stream says it
    write_images(tmp_path / 'a.mp4', [four_levels()] * 3, rate=3)
    path = tmp_path / 'turned.mp4'
    with (
        av.open(str(tmp_path / 'a.mp4')) as container,
        av.open(str(path), 'w') as output,
    ):
        stream = container.streams.video[0]
        target = output.add_stream_from_template(stream)
        turn = av.BitStreamFilterContext(TURN, stream)
        for packet in container.demux(stream):
            for turned in turn.filter(packet if packet.size else None):
                turned.stream = target
                output.mux(turned)
    with av.open(str(path)) as container:
        marks = [frame.rotation for frame in container.decode(video=0)]
    assert marks == [90, 0, 0]
    compress_video(path, tmp_path / 'copy')
    frames, _ = read(tmp_path / 'copy')
    expected = np.rot90(four_levels()).astype(int)
    assert frames.shape == (3, *expected.shape)
    assert np.abs(frames - expected).mean() < 4


def four_levels():
    image = grey(0, (128, 64))
    image[:32, :64] = 80
    image[32:, :64] = 150
    image[32:, 64:] = 220
    return image


@pytest.mark.parametrize('kind', ['mp4', 'mkv', 'ts', 'turned'])
def test_pixels_keep_their_shape(tmp_path, set_matrix, kind):
    path = tmp_path / f'a.{"mp4" if kind == "turned" else kind}'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=3)
        stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        frame = av.VideoFrame.from_ndarray(grey(90, (96, 64)), format='rgb24')
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    size, aspect = (48, 32), Fraction(16, 11)
    if kind == 'turned':
        set_matrix(path, 0, 1, -1, 0)
        size, aspect = size[::-1], 1 / aspect
    compress_video(path, tmp_path / 'copy', short_side=32)
    with av.open(str(tmp_path / 'copy')) as container:
        stream = container.streams.video[0]
        assert stream.sample_aspect_ratio == aspect
        assert (stream.width, stream.height) == size


# BT.2020 with the curves of PQ and HLG; BT.709; BT.470 BG
@pytest.mark.parametrize(
    ('primaries', 'transfer', 'matrix'),
    [(9, 16, 9), (9, 18, 9), (1, 1, 1), (5, 5, 5)],
)
def test_colours_keep_their_meaning(tmp_path, primaries, transfer, matrix):
    path = tmp_path / 'a.mp4'
    levels = np.uint16([[200, 450, 700, 900]]).repeat(48, axis=0)
    luma = levels.repeat(16, axis=1)
    planes = [luma, np.full((24, 32), 300), np.full((24, 32), 700)]
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=3)
        stream.width, stream.height = 64, 48
        stream.pix_fmt, stream.options = 'yuv420p10le', {'crf': '1'}
        context = stream.codec_context
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace, context.color_range = matrix, 1
        frame = av.VideoFrame(64, 48, 'yuv420p10le')
        for plane, values in zip(frame.planes, planes, strict=True):
            rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
            rows[:, : plane.width] = values
            plane.update(rows.tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    compress_video(path, tmp_path / 'copy', crf=1)
    with av.open(str(tmp_path / 'copy')) as container:
        [frame] = container.decode(video=0)
        context = container.streams.video[0].codec_context
        assert context.color_primaries == primaries
        assert context.color_trc == transfer
        assert (int(frame.colorspace), int(frame.color_range)) == (matrix, 1)
        found = frame.to_ndarray(format='yuv420p')
    assert np.abs(found[:48] - luma / 4).max() <= 2
    assert abs(found[48:60].mean() - 75) <= 1
    assert abs(found[60:].mean() - 175) <= 1


@pytest.mark.parametrize('matrix', [1, 5])
@pytest.mark.parametrize('color_range', [1, 2])
def test_colours(tmp_path, matrix, color_range):
    path = tmp_path / 'a.mp4'
    colours = [(200, 30, 30), (20, 180, 40), (30, 60, 220), (250, 250, 250)]
    image = np.repeat(np.uint8([colours]), 48, axis=0).repeat(16, axis=1)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=3)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        stream.options = {'crf': '1'}
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = color_range
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        frame = frame.reformat(
            format='yuv420p',
            dst_colorspace=matrix,
            dst_color_range=color_range,
        )
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    compress_video(path, tmp_path / 'copy', crf=1)
    places = np.s_[0, 24, 8::16]
    original = read(path)[0][places].astype(int)
    assert np.abs(read(tmp_path / 'copy')[0][places] - original).max() <= 3


@pytest.mark.parametrize(
    ('name', 'num_frames', 'begin', 'aspect', 'corners'),
    [
        ('plain.mp4', 12, 0, 1, 'RGBW'),
        ('matrix_hflip.mp4', 12, 0, 1, 'GRWB'),
        ('matrix_vflip.mp4', 12, 0, 1, 'BWRG'),
        ('deg_10.mp4', 12, 0, 1, 'RGBW'),
        ('sei90.mp4', 12, 0, 1, 'GWRB'),
        ('sar2.mp4', 12, 0, 2, 'RGBW'),
        ('mb_sar_2x1.mp4', 15, 0, 2, None),
        ('latevideo.mp4', 120, 30, 1, 'RGBW'),
        ('dur_short.mkv', 120, 0, 1, 'RGBW'),
        ('joined_back.ts', 60, 0, 1, 'RGBW'),
        ('vfr_fast_then_slow.hevc.mp4', 120, 0, 1, 'RGBW'),
        ('vfr_slow_then_fast.vp8.webm', 120, 0, 1, 'RGBW'),
    ],
)
def test_shared_clips(
    shared_dir, tmp_path, name, num_frames, begin, aspect, corners
):
    path = shared_dir / 'data' / 'videos_time' / name
    if not path.is_file():
        pytest.skip('the clip is not on this machine')
    assert compress_video(path, tmp_path / 'copy') == num_frames
    with av.open(str(tmp_path / 'copy')) as container:
        stream = container.streams.video[0]
        assert stream.sample_aspect_ratio == aspect
        frames = list(container.decode(stream))
    shown = [frame.time for frame in frames]
    assert shown == pytest.approx(begin + np.arange(num_frames) / 3, abs=1e-3)
    if corners is not None:
        names = {4: 'R', 2: 'G', 1: 'B', 7: 'W'}
        for frame in (frames[0], frames[-1]):
            image = frame.to_ndarray(format='rgb24')
            places = [image[y, x] for y in (6, -6) for x in (6, -6)]
            found = [names[int((p > 127) @ [4, 2, 1])] for p in places]
            assert ''.join(found) == corners


def test_sound_and_cover_are_left_out(tmp_path, frame_numbers, write_clip):
    clip = write_clip('clip.mp4', num_frames=10)
    path = tmp_path / 'a.mp4'
    with av.open(str(path), 'w') as output, av.open(str(clip)) as container:
        sound = output.add_stream('aac', rate=8000, layout='mono')
        pictures = output.add_stream_from_template(container.streams.video[0])
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format='fltp', layout='mono'
        )
        samples.sample_rate = 8000
        output.mux(sound.encode(samples))
        output.mux(sound.encode())
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                output.mux(packet)
    compress_video(path, tmp_path / 'copy')
    with av.open(str(tmp_path / 'copy')) as container:
        assert [stream.type for stream in container.streams] == ['video']
    assert frame_numbers(read(tmp_path / 'copy')[0]) == [0, 3, 6]


def test_a_size_that_changes(tmp_path, write_clip):
    # parts of a stream of MPEG may be of any size
    first = write_clip('a.m2v', 10, 25, (64, 48), codec='mpeg2video')
    second = write_clip('b.m2v', 10, 25, (96, 64), codec='mpeg2video')
    path = tmp_path / 'c.m2v'
    path.write_bytes(first.read_bytes() + second.read_bytes())
    compress_video(path, tmp_path / 'copy', fps=25, short_side=32)
    frames, _ = read(tmp_path / 'copy')
    assert frames.shape == (20, 32, 42, 3)
    assert frames[:10].mean() == pytest.approx(frames[10:].mean(), abs=2)


def test_a_copy_grows_on_the_disk(tmp_path, monkeypatch):
    # that of a video of hours would fill the memory
    noise = np.random.default_rng(0).integers(0, 255, (99, 48, 64, 3))
    write_images(tmp_path / 'a.mp4', list(noise.astype(np.uint8)), crf='0')
    sizes, sample = [], encoding.sample_by_time

    def watch(*args):
        for item in sample(*args):
            [part] = tmp_path.glob('.*.part')
            sizes.append(part.stat().st_size)
            yield item

    monkeypatch.setattr(encoding, 'sample_by_time', watch)
    options = dict(fps=10, crf=0)
    compress_video(tmp_path / 'a.mp4', tmp_path / 'copy', **options)
    assert sizes[-1] > (tmp_path / 'copy').stat().st_size / 4


def test_copies_are_reproducible(tmp_path, write_clip):
    source, contents = write_clip(), set()
    for _ in range(2):
        compress_video(source, tmp_path / 'copy', crf=27)
        contents.add((tmp_path / 'copy').read_bytes())
    [content] = contents
    # libx264 writes its options down; mbtree=1 differs with few clips alone
    for option in (b' mbtree=0 ', b' threads=1 ', b' crf=27.0 '):
        assert option in content


def write_no_video(tmp_path, kind, clip):
    path = tmp_path / 'no.mp4'
    if kind == 'text':
        path.write_text('This is a text.\n' * 40)
    elif kind == 'empty':
        path.touch()
    elif kind == 'cut':
        path.write_bytes(clip.read_bytes()[:-200])  # its index is at the end
    elif kind == 'damaged':
        noise = np.random.default_rng(0).integers(0, 255, (9, 48, 64, 3))
        write_images(path, list(noise.astype(np.uint8)))
        content = bytearray(path.read_bytes())
        begin, end = content.index(b'mdat') + 9000, content.rindex(b'moov') - 4
        content[begin:end] = b'\xff' * (end - begin)
        path.write_bytes(content)
    elif kind == 'picture':
        with av.open(str(path), 'w', format='image2') as container:
            stream = container.add_stream('png', rate=1)
            stream.width, stream.height, stream.pix_fmt = 64, 48, 'rgb24'
            frame = av.VideoFrame.from_ndarray(grey(1), format='rgb24')
            container.mux(stream.encode(frame))
    elif kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('text', 'expected a video'),
        ('empty', 'expected a video'),
        ('cut', 'expected a video'),
        ('damaged', 'decoding failed'),
        ('picture', 'it is an image'),
        ('pipe', 'expected a file'),
        ('folder', 'expected a file'),
        ('missing', 'expected a file'),
    ],
)
def test_what_is_no_video(tmp_path, write_clip, kind, message):
    path = write_no_video(tmp_path, kind, write_clip())
    target = tmp_path / 'out' / 'no.mp4'
    with pytest.raises(VideoReadError, match=message) as caught:
        compress_video(path, target)
    assert str(caught.value).startswith(f'{path}: ')
    assert files_below(target.parent) == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'fps': 0}, 'fps must'),
        ({'fps': float('nan')}, 'fps must'),
        ({'fps': 1000}, 'fps must'),
        ({'short_side': 225}, 'short_side must be an even'),
        ({'short_side': 0}, 'short_side must'),
        ({'crf': 52}, 'crf must'),
        ({'workers': 0}, 'workers must'),
    ],
)
def test_wrong_options(tmp_path, videos, options, message):
    with pytest.raises(ValueError, match=message):
        compress_folder(videos, tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()


def test_folder_keeps_odd_names(tmp_path, write_clip, frame_numbers, capsys):
    names = ['a.mp4', 'b', 'c.', 'd.null', 'e e:f\nü.avi', '-g.mp4', 'h' * 255]
    names = [*names, 'sub/deeper/i.mkv', b'j\xff.mp4'.decode(*FILE_SYSTEM)]
    clip = write_clip(num_frames=10)
    source, target = tmp_path / 'videos', tmp_path / 'copies'
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(clip.read_bytes())
    report = compress_folder(source, target, short_side=32)
    assert report.failures == {}
    assert (report.num_made, report.num_kept) == (len(names), 0)
    assert files_below(target) == sorted([*names, STAMP])
    for name in names:
        with av.open((target / name).open('rb')) as container:
            assert 'mp4' in container.format.name
            frames = [
                frame.to_ndarray(format='rgb24')
                for frame in container.decode(video=0)
            ]
        assert frames[0].shape == (32, 42, 3)
        assert frame_numbers(frames) == [0, 3, 6]
    assert f'{len(names)} of {len(names)}' in capsys.readouterr().out
    before = times_below(target)
    again = compress_folder(source, target, short_side=32)
    assert (again.num_made, again.num_kept) == (0, len(names))
    assert times_below(target) == before


FILE_SYSTEM = sys.getfilesystemencoding(), 'surrogateescape'


def test_failures_are_named_and_the_rest_is_made(tmp_path, videos):
    (videos / 'note.txt').write_text('no video')
    (videos / 'sub' / 'ann.json').write_text('{}')
    (videos / 'lost.mp4').symlink_to(videos / 'nowhere.mp4')
    (videos / 'self.mp4').symlink_to(videos / 'self.mp4')
    (videos / '.hidden.mp4').write_text('')
    (videos / '.folder').mkdir()
    report = compress_folder(videos, tmp_path / 'out')
    assert (report.num_made, report.num_kept) == (2, 0)
    assert report.hidden == ['.folder', '.hidden.mp4']
    assert list(report.failures) == [
        *('lost.mp4', 'note.txt', 'self.mp4', 'sub/ann.json')
    ]
    assert report.failures['note.txt'].startswith('expected a video')
    assert report.failures['lost.mp4'].startswith('expected a file')
    assert files_below(tmp_path / 'out') == [STAMP, 'a.mp4', 'sub/b.avi']
    again = compress_folder(videos, tmp_path / 'out')
    assert again.failures == report.failures
    assert (again.num_made, again.num_kept) == (0, 2)


def test_what_else_fails_is_named_with_its_kind(tmp_path, videos, monkeypatch):
    def fail(*args):
        raise ValueError('odd')

    monkeypatch.setattr(copies, 'encode_copy', fail)
    report = compress_folder(videos, tmp_path / 'out')
    assert set(report.failures.values()) == {'ValueError: odd'}


def test_links(tmp_path, videos):
    (videos / 'sub' / 'loop').symlink_to(videos)
    (videos / 'again').symlink_to(videos / 'sub')
    (videos / 'copies').symlink_to(tmp_path / 'out')
    (videos / 'c.mp4').symlink_to(videos / 'a.mp4')
    for num_made in (4, 0):  # the second time, there are copies to lead to
        report = compress_folder(videos, tmp_path / 'out')
        assert report.failures == {}
        assert report.num_made == num_made
    assert files_below(tmp_path / 'out') == [
        *(STAMP, 'a.mp4', 'again/b.avi', 'c.mp4', 'sub/b.avi')
    ]
    assert not (tmp_path / 'out' / 'c.mp4').is_symlink()


def test_makes_what_is_missing_or_changed(tmp_path, videos, write_clip):
    target = tmp_path / 'out'
    write_clip('videos/c.mp4', num_frames=10)
    compress_folder(videos, target)
    before = times_below(target)
    (target / 'a.mp4').unlink()
    write_clip('videos/c.mp4', num_frames=20)
    report = compress_folder(videos, target)
    assert (report.num_made, report.num_kept) == (2, 1)
    after = times_below(target)
    assert after.keys() == before.keys()
    assert after['sub/b.avi'] == before['sub/b.avi']
    assert len(read(target / 'c.mp4')[0]) == 6
    # the same size at another time is a change as well
    os.utime(videos / 'a.mp4', ns=(0, 1))
    assert compress_folder(videos, target).num_made == 1


def test_other_settings_are_refused(tmp_path, videos):
    target = tmp_path / 'out'
    compress_folder(videos, target, fps=2.5)
    before = times_below(target)
    with pytest.raises(ValueError, match='same options') as caught:
        compress_folder(videos, target, fps=3, short_side=128)
    assert 'fps 5/2, short side 224, crf 23' in str(caught.value)
    assert 'fps 3, short side 128, crf 23' in str(caught.value)
    assert times_below(target) == before


def test_folders_that_do_not_fit(tmp_path, videos):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'precious.txt').write_text('')
    (tmp_path / 'link').symlink_to(videos)
    for source, target, message in [
        (videos, videos, 'must not lie'),
        (videos, tmp_path / 'link', 'must not lie'),
        (videos, videos / 'copies', 'must not lie'),
        (videos, tmp_path, 'must not lie'),
        (videos, tmp_path / 'mine', f'no {STAMP!r}'),
        (videos, tmp_path / 'mine' / 'precious.txt', 'is a file'),
        (tmp_path / 'absent', tmp_path / 'out', 'folder of videos'),
        (videos / 'a.mp4', tmp_path / 'out', 'folder of videos'),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            compress_folder(source, target)
    assert files_below(videos) == ['a.mp4', 'sub/b.avi']
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'content', ['', '{', '[]', '{"settings": {}, "copies": {}}']
)
def test_damaged_stamp(tmp_path, videos, content):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / STAMP).write_text(content)
    with pytest.raises(ValueError, match='record of an earlier run'):
        compress_folder(videos, tmp_path / 'out')


def test_full_disk_ends_the_run(tmp_path, videos, monkeypatch):
    tried = []

    def in_this_process(function, items, **_):
        for index, item in enumerate(items):
            yield Outcome(index, 'done', function(item))

    def fill_disk(source, part, settings):
        tried.append(part)
        if len(tried) == 2:
            raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(copies, 'run_isolated', in_this_process)
    monkeypatch.setattr(copies, 'encode_copy', fill_disk)
    with pytest.raises(OSError, match=r'The disk of .* is full') as caught:
        compress_folder(videos, tmp_path / 'out')
    assert caught.value.errno == errno.ENOSPC
    assert len(tried) == 2
    assert files_below(tmp_path / 'out') == [STAMP, 'a.mp4']
    stamp = json.loads((tmp_path / 'out' / STAMP).read_text())
    assert list(stamp['copies']) == ['a.mp4']


def compress_and_save_each(videos, target):
    copies._SECONDS_BETWEEN_SAVES = 0
    compress_folder(videos, target, fps=200)


def test_resumes_after_a_kill(tmp_path, videos, write_clip):
    # two frames an hour apart: quick to write, long to encode
    images, target = [grey(20), grey(200)], tmp_path / 'out'
    write_images(videos / 'slow.mp4', images, [0, 3_500_000])
    run = start(compress_and_save_each, videos, target)
    try:
        wait_until(lambda: count_copies(target) == 2)
        run.kill()
        run.join()
        # its processes end by themselves and leave what they were writing
        wait_until(lambda: not group_exists(run.pid))
    finally:
        if group_exists(run.pid):
            os.killpg(run.pid, signal.SIGKILL)
    assert 'slow.mp4' not in files_below(target)
    (target / f'.slow.mp4.{"0" * 32}.part').touch()
    (target / '.of_others.mp4.part').touch()
    before = times_below(target)
    write_clip('videos/slow.mp4', num_frames=5)
    report = compress_folder(videos, target, fps=200)
    assert (report.num_made, report.num_kept) == (1, 2)
    assert report.failures == {}
    after = times_below(target)
    others = '.of_others.mp4.part'
    assert sorted(after) == [others, 'a.mp4', 'slow.mp4', 'sub/b.avi']
    assert after.items() >= {(x, before[x]) for x in ('a.mp4', 'sub/b.avi')}


def count_copies(folder):
    try:
        return len(json.loads((folder / STAMP).read_text())['copies'])
    except FileNotFoundError:
        return 0


def group_exists(pid):
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)

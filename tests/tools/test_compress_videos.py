import os
import signal
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.started import Script


def write_clip(path, times=range(10)):
    """Write grey frames of 64 x 48 pixels at given tenths of a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for number, moment in enumerate(times):
            image = np.full((48, 64, 3), 20 + 5 * number, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            frame.pts, frame.time_base = moment, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def call(call_tool, capsys):
    def call(*arguments):
        code = 0
        try:
            call_tool('compress_videos.py', *arguments)
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr()

    return call


def test_copies_resumes_and_tells_failures(call, tmp_path):
    source, target = tmp_path / 'videos', tmp_path / 'out'
    write_clip(source / 'sub' / 'a.avi')
    options = ['--fps', 5, '--short-side', 32, '--crf', 20, '--workers', 1]
    code, output = call(source, target, *options)
    assert code == 0
    assert '1 copies made, 0 were there, 0 failed' in output.out
    with av.open(str(target / 'sub' / 'a.avi')) as container:
        frames = list(container.decode(video=0))
    # a second, begun one frame late, as FFmpeg writes B frames into AVI
    assert len(frames) == 6
    assert (frames[0].width, frames[0].height) == (42, 32)
    odd = os.fsdecode(b'\xff.txt')
    (source / odd).write_text('no video')
    (source / '.hidden').touch()
    code, output = call(source, target, *options)
    assert code == 1
    assert 'FAILED \\udcff.txt: expected a video' in output.out
    assert '0 copies made, 1 were there, 1 failed, 1 hidden' in output.out


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--short-side', '31'], 'short_side must be an even number'),
        (['--fps', 'fast'], 'argument --fps: invalid float value'),
        (['--workers', '0'], 'workers must be at least 1'),
    ],
)
def test_wrong_use(call, tmp_path, options, message):
    write_clip(tmp_path / 'videos' / 'a.mp4')
    code, output = call(tmp_path / 'videos', tmp_path / 'out', *options)
    assert code == 2
    assert message in output.err
    assert not (tmp_path / 'out').exists()


def test_nested_folders_and_other_settings(call, tmp_path):
    source, target = tmp_path / 'videos', tmp_path / 'out'
    write_clip(source / 'a.mp4')
    code, output = call(source, source / 'copies')
    assert code == 2
    assert 'must not lie in the folder of videos' in output.err
    assert call(source, target)[0] == 0
    code, output = call(source, target, '--crf', 30)
    assert code == 2
    assert 'crf 23, but asked for' in output.err


def test_stops_on_interrupt(repository, tmp_path):
    source, target = tmp_path / 'videos', tmp_path / 'out'
    write_clip(source / 'a.mp4')
    # two frames an hour apart: quick to write, long to encode
    write_clip(source / 'slow.mp4', [0, 35_000])
    run = Script(
        # one worker: it begins the second when the first is noted
        *(repository / 'tools' / 'compress_videos.py', source, target),
        *('--fps', '200', '--workers', '1'),
        folder=tmp_path,
        output=tmp_path / 'told',
    )
    try:
        end = time.monotonic() + 60
        while not (
            (target / 'a.mp4').exists() and list(target.glob('.*.part'))
        ):
            assert time.monotonic() < end
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 130
    finally:
        run.kill()
    output = run.output.read_text()
    assert output.endswith('interrupted; the same command goes on.\n')
    assert 'Traceback' not in output
    assert sorted(path.name for path in target.iterdir()) == [
        *('.compression.json', 'a.mp4')
    ]
    assert '"a.mp4": [' in (target / '.compression.json').read_text()

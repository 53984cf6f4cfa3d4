from fractions import Fraction
from types import SimpleNamespace

import av
import pytest

from eaglenet_mm.datasets.display_times import (
    decode_in_order,
    sample_by_time,
)

MILLISECOND = Fraction(1, 1000)


def sample(times, fps=3, duration=0, step=1):
    """Sample frames that are numbers; return them, each as often as kept."""
    frames = [
        SimpleNamespace(
            number=number, pts=time, time_base=MILLISECOND, duration=duration
        )
        for number, time in enumerate(times)
    ]
    pairs = sample_by_time(frames, Fraction(fps), Fraction(step))
    return [frame.number for frame, count in pairs for _ in range(count)]


def test_takes_the_frame_on_display_at_each_time():
    # ten a second; seconds 0, 1/3, 2/3, 1, ...
    times = range(0, 2000, 100)
    assert sample(times, duration=100) == [0, 3, 6, 10, 13, 16]


def test_rounded_times_do_not_shift_the_choice():
    times = [round(number * 1000 / 30) for number in range(60)]
    assert sample(times, duration=33) == [0, 10, 20, 30, 40, 50]


def test_variable_rate():
    assert sample([0, 100, 200, 900, 2000], duration=300) == [
        *(0, 2, 2, 3, 3, 3),  # at 2/3 s frame 2, at 1 s frame 3
        4,
    ]


def test_slow_video_repeats_and_keeps_its_duration():
    assert sample([0, 1000], duration=1000) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize('duration', [0, 33])
def test_short_video_gives_one_frame(duration):
    assert sample([0], duration=duration) == [0]
    assert sample([0, 33, 67], duration=duration) == [0]


def test_no_frame_gives_none():
    assert sample([]) == []


def test_last_frame_of_unknown_duration_lasts_as_long_as_the_one_before():
    assert sample([0, 1000]) == sample([0, 1000], duration=1000)


def test_time_counts_from_the_first_frame():
    times = range(0, 2000, 100)
    late = [time + 5321 for time in times]
    assert sample(late, duration=100) == sample(times, duration=100)


def test_missing_times_are_a_nominal_step_apart():
    assert sample([None] * 20, step=Fraction(1, 10)) == [0, 3, 6, 10, 13, 16]


@pytest.mark.parametrize('jump', [-1500, 3_700_000])
def test_a_jump_is_a_nominal_step(jump):
    first = list(range(0, 1000, 100))
    times = first + [1000 + jump + time for time in first]
    kept = sample(times, step=Fraction(1, 10))
    assert kept == [0, 3, 6, 10, 13, 16]


@pytest.mark.parametrize('codec', ['mpeg4', 'libx264'])
@pytest.mark.parametrize('ending', ['avi', 'mp4'])
def test_times_of_b_frames(write_clip, frame_numbers, codec, ending):
    options = {'bf': '3', 'b_strategy': '0', 'x264-params': 'b-adapt=0'}
    options['qmax'] = '2'  # or the numbers cannot be read off
    path = write_clip(f'a.{ending}', 30, codec=codec, options=options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(decode_in_order(container, stream))
    assert 3 in {int(frame.pict_type) for frame in frames}  # FFmpeg's B
    times = [frame.time - frames[0].time for frame in frames]
    assert times == pytest.approx([number / 10 for number in range(30)])
    images = [frame.to_ndarray(format='rgb24') for frame in frames]
    assert frame_numbers(images) == list(range(30))


def test_packets_without_a_frame_do_not_put_off_the_times_for_long():
    def packet(time, has_frame):
        frame = SimpleNamespace(pts=None)
        return SimpleNamespace(pts=time, decode=lambda: [frame] * has_frame)

    packets = [packet(time, time == 0 or time > 500) for time in range(600)]
    container = SimpleNamespace(
        format=SimpleNamespace(name='avi'), demux=lambda stream: packets
    )
    times = [frame.pts for frame in decode_in_order(container, None)]
    assert len(times) == 100
    assert times[0] == 0
    assert times == sorted(times)
    assert all(0 <= 600 - 99 + i - times[i] < 20 for i in range(1, 100))

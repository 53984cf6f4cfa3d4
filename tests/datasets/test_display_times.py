from fractions import Fraction
from types import SimpleNamespace

import av
import pytest

from eaglenet_mm.datasets.video_compression.encoding import sample_by_time
from eaglenet_mm.datasets.video_readers.pyav_reader import decode_in_order
from eaglenet_mm.datasets.video_readers.timeline import Clock

MILLISECOND = Fraction(1, 1000)


def sample(times, **options):
    """Sample frames that are numbers; return them, each as often as kept."""
    return list(sample_numbers(times, **options).values())


def sample_numbers(times, fps=3, duration=0, step=1, may_jump=False, zero=0):
    """Sample frames that are numbers; return them by the number of a time."""
    frames = [
        SimpleNamespace(
            number=number, pts=time, time_base=MILLISECOND, duration=duration
        )
        for number, time in enumerate(times)
    ]
    clock = Clock(
        MILLISECOND, 1 / Fraction(step), zero=zero, may_jump=may_jump
    )
    pairs = list(sample_by_time(frames, Fraction(fps), clock))
    kept = [(number, frame.number) for frame, many in pairs for number in many]
    assert len(dict(kept)) == len(kept)
    return dict(kept)


def test_takes_the_frame_on_display_at_each_time():
    # ten a second; seconds 0, 1/3, 2/3, 1, ...
    times = range(0, 2000, 100)
    assert sample(times, duration=100) == [0, 3, 6, 10, 13, 16]


def test_rounded_times_do_not_shift_the_choice():
    times = [round(number * 1000 / 30) for number in range(60)]
    assert sample(times, duration=33) == [0, 10, 20, 30, 40, 50]


def test_rounded_times_do_not_shift_the_end():
    # 30 a second from second 39 on: the last step is 34 milliseconds
    times = [39_000 + round(number * 1000 / 30) for number in range(30)]
    assert max(sample_numbers(times)) == 119


def test_variable_rate():
    assert sample([0, 100, 200, 900, 2000], duration=300) == [
        *(0, 2, 2, 3, 3, 3),  # at 2/3 s frame 2, at 1 s frame 3
        4,
    ]


def test_slow_video_repeats_and_keeps_its_duration():
    assert sample([0, 1000], duration=1000) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize('duration', [0, 33])
def test_short_video_gives_one_frame(duration):
    step = Fraction(1, 30)
    assert sample([0], duration=duration, step=step) == [0]
    assert sample([0, 33, 67], duration=duration, step=step) == [0]


def test_no_frame_gives_none():
    assert sample([]) == []


def test_last_frame_of_unknown_duration_lasts_as_long_as_the_one_before():
    assert sample([0, 1000]) == sample([0, 1000], duration=1000)


def test_time_counts_from_the_start_of_the_presentation():
    times = range(0, 2000, 100)
    late = [time + 5400 for time in times]
    early = sample_numbers(times, duration=100)
    assert sample_numbers(late, duration=100, zero=5400) == early
    # frame 0 is on display at 5.4 s, which is between numbers 16 and 17
    kept = sample_numbers(late, duration=100)
    assert kept == {16: 0, 17: 2, 18: 6, 19: 9, 20: 12, 21: 16, 22: 19}


@pytest.mark.parametrize('begin', [0, 1, 333, 1000, 1001])
def test_a_late_frame_stands_for_the_time_before_it(begin):
    assert list(sample_numbers([begin], duration=20)) == [begin * 3 // 999]


def test_frames_before_zero_are_left_out():
    times = range(-1000, 1000, 100)
    assert sample(times, duration=100) == [10, 13, 16]
    assert sample([-1000, -900]) == [1]  # but one frame there is


@pytest.mark.parametrize('times', [[0], [0, 0], [0, None], [None]])
def test_a_last_frame_without_a_step_lasts_the_nominal_one(times):
    stated = sample(times, step=Fraction(2), duration=5_000_000)
    assert stated == sample(times, step=Fraction(2))
    assert len(stated) == (12 if times == [0, None] else 6)


@pytest.mark.parametrize('codec', ['mpeg4', 'libx264'])
@pytest.mark.parametrize('ending', ['avi', 'mp4'])
def test_times_of_b_frames(write_clip, frame_numbers, codec, ending):
    options = {'bf': '3', 'b_strategy': '0', 'x264-params': 'b-adapt=0'}
    options['qmax'] = '2'  # or the numbers cannot be read off
    path = write_clip(f'a.{ending}', 30, codec=codec, options=options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(
            decode_in_order(
                container, stream, has_decoding_times=ending == 'avi'
            )
        )
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
    container = SimpleNamespace(demux=lambda stream: packets)
    frames = decode_in_order(container, None, has_decoding_times=True)
    times = [frame.pts for frame in frames]
    assert len(times) == 100
    assert times[0] == 0
    assert times == sorted(times)
    assert all(0 <= 600 - 99 + i - times[i] < 20 for i in range(1, 100))

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import av.filter
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eaglenet_mm.datasets.video_readers.orientation import Orientation

#: Where a step to the right goes (x, y; y downwards), and one down.
EIGHT = [
    (a, b, c, d)
    for a, b, c, d in itertools.product((-1, 0, 1), repeat=4)
    if abs(a * d - b * c) == 1 and abs(a) + abs(b) == abs(c) + abs(d) == 1
]


def frame_with(*matrix: float) -> Any:
    values = [round(value * (1 << 16)) for value in matrix]
    a, b, c, d = values
    data = struct.pack('=9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return SimpleNamespace(side_data={'DISPLAYMATRIX': data})


def turn(degrees: float) -> tuple[float, float, float, float]:
    """Make the matrix of a turn against the clock."""
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    return cosine, -sine, sine, cosine


def moved(image: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    """Move each pixel to where the matrix says."""
    a, b, c, d = matrix
    places = {
        (a * x + c * y, b * x + d * y): image[y, x]
        for y, x in np.ndindex(*image.shape[:2])
    }
    left, top = (min(place[i] for place in places) for i in (0, 1))
    right, bottom = (max(place[i] for place in places) for i in (0, 1))
    return np.stack(
        [
            np.stack([places[x, y] for x in range(left, right + 1)])
            for y in range(top, bottom + 1)
        ]
    )


def write_video(path: Path, image: np.ndarray) -> Path:
    """Write a picture three times, losslessly."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264rgb', rate=10)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt, stream.options = 'rgb24', {'qp': '0'}
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decoded(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.fixture
def picture() -> np.ndarray:
    """Grey blocks, in an order that tells all eight orientations apart."""
    levels = np.uint8([[10, 60, 110], [160, 210, 250]])
    blocks = levels.repeat(32, axis=0).repeat(32, axis=1)
    return np.repeat(blocks[..., None], 3, axis=2)


@pytest.mark.parametrize('matrix', EIGHT)
def test_each_quarter_turn_and_mirror(
    tmp_path: Path,
    set_matrix: Callable[..., None],
    picture: np.ndarray,
    matrix: tuple[int, ...],
) -> None:
    path = write_video(tmp_path / 'a.mp4', picture)
    set_matrix(path, *matrix)
    frame = decoded(path)[0]
    raw = frame.to_ndarray(format='rgb24')
    expected = moved(raw, matrix)
    orientation = Orientation.of_frame(frame)
    np.testing.assert_array_equal(orientation.apply(raw), expected)
    assert orientation.swaps_sides == (expected.shape[0] == 96)

    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base,
        ),
        *(graph.add(*item) for item in orientation.filters),
        graph.add('format', 'rgb24'),
        graph.add('buffersink'),
    ).configure()
    graph.push(frame)
    filtered = graph.pull().to_ndarray(format='rgb24')
    np.testing.assert_array_equal(filtered, expected)


def test_the_eight_are_told_apart() -> None:
    assert len(EIGHT) == 8
    assert len({Orientation.of_frame(frame_with(*m)) for m in EIGHT}) == 8


@settings(deadline=None)
@given(
    st.sampled_from(EIGHT),
    st.floats(-44, 44),
    st.floats(0.25, 4),
    st.floats(0.25, 4),
)
def test_odd_angles_are_the_nearest_quarter(
    matrix: tuple[int, ...], degrees: float, width: float, height: float
) -> None:
    a, b, c, d = matrix
    e, f, g, h = turn(degrees)
    # first the scale of the picture's sides, then the matrix, then the turn
    odd = (
        (a * e + b * g) * width,
        (a * f + b * h) * width,
        (c * e + d * g) * height,
        (c * f + d * h) * height,
    )
    if width == height:
        found = Orientation.of_frame(frame_with(*odd))
        assert found == Orientation.of_frame(frame_with(*matrix))
    straight = [a * width, b * width, c * height, d * height]
    found = Orientation.of_frame(frame_with(*straight))
    assert found == Orientation.of_frame(frame_with(*matrix))


@pytest.mark.parametrize(
    ('degrees', 'turns', 'release'),
    [(10, 0, 0), (80, 1, 0), (-91, 3, 0), (90.4, 1, 1), (181, 2, 0)],
)
def test_turns_of_the_release(
    degrees: float, turns: int, release: int
) -> None:
    frame = frame_with(*turn(degrees))
    assert Orientation.of_frame(frame) == Orientation(turns)
    assert Orientation.of_release(frame) == Orientation(release)


@pytest.mark.parametrize('matrix', [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 1, 1)])
def test_a_matrix_that_leaves_no_picture(matrix: tuple[int, ...]) -> None:
    assert Orientation.of_frame(frame_with(*matrix)) == Orientation()


def test_no_matrix() -> None:
    frame = SimpleNamespace(side_data={})
    assert Orientation.of_frame(frame) == Orientation()
    assert Orientation.of_release(frame) == Orientation()


@pytest.mark.parametrize('matrix', [*EIGHT, turn(10), turn(89.6)])
def test_release_turns_as_opencv(
    tmp_path: Path,
    set_matrix: Callable[..., None],
    picture: np.ndarray,
    matrix: tuple[float, ...],
) -> None:
    path = write_video(tmp_path / 'a.mp4', picture)
    set_matrix(path, *matrix)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    expected = capture.read()[1]
    capture.release()
    frames = decoded(path)[:2]
    raw = frames[0].to_ndarray(format='bgr24')
    found = Orientation.of_release(*frames).apply(raw)
    np.testing.assert_array_equal(found, expected)


def test_release_does_not_heed_a_matrix_of_single_frames() -> None:
    frames = frame_with(*turn(90)), SimpleNamespace(side_data={})
    assert Orientation.of_frame(frames[0]) == Orientation(1)
    assert Orientation.of_release(*frames) == Orientation()

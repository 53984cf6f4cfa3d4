"""Frames of a video side by side, small enough to go into a page."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from PIL import Image

from eaglenet_mm.visualization.rankings import spread_evenly
from eaglenet_mm.visualization.results_data import ShownVideo
from eaglenet_mm.visualization.set_catalogue import SetCatalogue

#: Height of a frame in pixels, and the least that is still worth a look.
HEIGHT, LEAST_HEIGHT = 96, 48
#: Frames of a video that are shown; of more, evenly spread ones.
MAX_SLOTS = 12
#: Frames at full height; with more of them they shrink, to keep the page
#: below some 16 MiB.
_FRAMES_AT_FULL_HEIGHT = 4000
_QUALITY = 72
#: What a broken video may raise: readers, decoders, caches, files.
_READ_ERRORS = (OSError, ValueError, RuntimeError, KeyError, IndexError)


def choose_slots(num_frames: int) -> list[int]:
    """Places of the frames of a strip, ascending, 12 at most."""
    if num_frames <= MAX_SLOTS:
        return list(range(num_frames))
    half = num_frames // MAX_SLOTS // 2
    return [p + half for p in spread_evenly(num_frames, MAX_SLOTS)]


def strip_height(num_videos: int, num_frames: int) -> int:
    """Height of the frames of a page in pixels."""
    total = max(1, num_videos * len(choose_slots(num_frames)))
    share = math.sqrt(min(1.0, _FRAMES_AT_FULL_HEIGHT / total))
    return max(LEAST_HEIGHT, round(HEIGHT * share))


def join_frames(frames: np.ndarray, height: int) -> Image.Image:
    """Put frames ``(n, H, W, 3)`` side by side; small ones stay as small."""
    height = min(height, frames.shape[1])
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    strip = Image.new('RGB', (width * len(frames), height))
    for place, frame in enumerate(frames):
        image = Image.fromarray(np.ascontiguousarray(frame))
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        strip.paste(image, (place * width, 0))
    return strip


def encode_jpeg(picture: Image.Image) -> str:
    """JPEG in base64; small pictures keep their colours sharp."""
    small = picture.height < HEIGHT
    buffer = io.BytesIO()
    picture.save(
        buffer,
        'JPEG',
        quality=95 if small and picture.height < LEAST_HEIGHT else _QUALITY,
        subsampling=0 if small else 2,
        optimize=True,
    )
    return base64.b64encode(buffer.getvalue()).decode('ascii')


def shown_frames(
    catalogue: SetCatalogue, video_index: int, num_frames: int
) -> tuple[np.ndarray | None, list[int], str]:
    """Read the frames of a strip again, as RGB of shape ``(n, H, W, 3)``.

    Returns the places of all frames of the strip, too, of which the first n
    are real, and why there are none, else ''.
    """
    slots = choose_slots(num_frames)
    try:
        frames = catalogue.frames(video_index)
    except _READ_ERRORS as err:
        return None, slots, f'{type(err).__name__}: {err}'
    return frames[[place for place in slots if place < len(frames)]], slots, ''


def make_strip(
    catalogue: SetCatalogue,
    video_index: int,
    column: int,
    num_frames: int,
    height: int,
) -> ShownVideo:
    """Make the strip of a video, or tell why there is none."""
    frames, slots, problem = shown_frames(catalogue, video_index, num_frames)
    if frames is None or not len(frames):
        return ShownVideo(column, slots, problem=problem or 'no real frame')
    picture = join_frames(frames, height)
    return ShownVideo(
        column, slots, len(frames), picture.height, encode_jpeg(picture)
    )

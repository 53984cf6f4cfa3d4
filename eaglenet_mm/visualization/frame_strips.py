"""Strips of video frames, small enough to embed in a page."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from PIL import Image

from eaglenet_mm.visualization.rankings import spread_evenly
from eaglenet_mm.visualization.results_data import ShownVideo
from eaglenet_mm.visualization.set_catalogue import SetCatalogue

#: Normal and smallest useful height of a frame in pixels.
HEIGHT, LEAST_HEIGHT = 96, 48
#: Maximum number of frames per video; evenly spread if there are more.
MAX_SLOTS = 12
#: Number of frames on a page at full height; more frames are shrunk, to keep
#: the page below about 16 MiB.
_FRAMES_AT_FULL_HEIGHT = 4000
_QUALITY = 72
#: What reading a broken video may raise.
_READ_ERRORS = (OSError, ValueError, RuntimeError, KeyError, IndexError)


def choose_slots(num_frames: int) -> list[int]:
    """Positions of the frames of a strip, ascending, 12 at most."""
    if num_frames <= MAX_SLOTS:
        return list(range(num_frames))
    half = num_frames // MAX_SLOTS // 2
    return [p + half for p in spread_evenly(num_frames, MAX_SLOTS)]


def strip_height(num_videos: int, num_frames: int) -> int:
    """Height of the frames on a page in pixels."""
    total = max(1, num_videos * len(choose_slots(num_frames)))
    share = math.sqrt(min(1.0, _FRAMES_AT_FULL_HEIGHT / total))
    return max(LEAST_HEIGHT, round(HEIGHT * share))


def join_frames(frames: np.ndarray, height: int) -> Image.Image:
    """Join frames ``(n, H, W, 3)`` side by side, without enlarging them."""
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
    """Encode as base64 JPEG; small images keep full colour resolution."""
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

    Also returns the positions of all frames of the strip, of which the first n
    are real, and the reason if reading failed, else ''.
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
    """Make the strip of a video, or state why there is none."""
    frames, slots, problem = shown_frames(catalogue, video_index, num_frames)
    if frames is None or not len(frames):
        return ShownVideo(column, slots, problem=problem or 'no real frame')
    picture = join_frames(frames, height)
    return ShownVideo(
        column, slots, len(frames), picture.height, encode_jpeg(picture)
    )

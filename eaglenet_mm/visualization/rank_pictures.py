"""Small pictures of a validation, for TensorBoard and other loggers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eaglenet_mm.visualization.charts import chart_style, rank_figure
from eaglenet_mm.visualization.frame_strips import join_frames
from eaglenet_mm.visualization.rankings import spread_evenly

_GREEN, _RED, _INK, _SOFT = '#16803c', '#c8322b', '#1b2230', '#667085'
_PAPER, _LOST = '#ffffff', '#e3e7ee'
_FRAMES, _SIDE, _BORDER, _GAP = 4, 56, 4, 8
_CARD = _FRAMES * _SIDE + 2 * _BORDER


@dataclass
class Answer:
    """A video in the answer to a query."""

    video_id: str
    score: float
    right: bool
    frames: np.ndarray | None  # RGB, uint8, (n, H, W, 3); None if unreadable


@dataclass
class Answers:
    """A query and its top videos."""

    caption: str
    rank: int  # of the right video, from 1; 0 where none is right
    videos: list[Answer]


def draw_answers(queries: Sequence[Answers]) -> np.ndarray:
    """Draw one row per query, with frames of its top videos.

    Right videos have green borders, and those ranked above the first right
    one red borders. Returns RGB, uint8, shape ``(H, W, 3)``.
    """
    columns = max(len(query.videos) for query in queries)
    row = 22 + _SIDE + 2 * _BORDER + 20 + _GAP
    width = columns * (_CARD + _GAP) + _GAP
    picture = Image.new('RGB', (width, len(queries) * row + _GAP), _PAPER)
    draw = ImageDraw.Draw(picture)
    for number, query in enumerate(queries):
        y = _GAP + number * row
        color = _GREEN if query.rank == 1 else _RED
        rank = f'rank {query.rank}' if query.rank else 'none right'
        _write(draw, rank, _GAP, y, 70, color, 14)
        _write(draw, query.caption, 80, y, width - 80 - _GAP, _INK, 14)
        for place, answer in enumerate(query.videos):
            x = _GAP + place * (_CARD + _GAP)
            wrong = _RED if place + 1 < query.rank else _LOST
            color = _GREEN if answer.right else wrong
            _draw_answer(picture, draw, answer, color, x, y + 22)
    return np.asarray(picture)


def _draw_answer(
    picture: Image.Image, draw: Any, answer: Answer, color: str, x: int, y: int
) -> None:
    bottom = y + _SIDE + 2 * _BORDER
    draw.rectangle((x, y, x + _CARD - 1, bottom - 1), fill=color)
    inner = (x + _BORDER, y + _BORDER)
    if answer.frames is None or not len(answer.frames):
        corner = (x + _CARD - _BORDER - 1, bottom - _BORDER - 1)
        draw.rectangle((*inner, *corner), fill=_LOST)
        _write(
            draw, 'cannot be read', inner[0] + 8, y + 24, _CARD - 20, _SOFT, 12
        )
    else:
        places = spread_evenly(len(answer.frames), _FRAMES)
        strip = join_frames(answer.frames[places], len(answer.frames[0]))
        picture.paste(strip.resize((len(places) * _SIDE, _SIDE)), inner)
    text = f'{answer.score:.3f}' if abs(answer.score) < 1e6 else ''
    _write(draw, text, x, bottom + 2, 50, _INK, 12)
    _write(draw, answer.video_id, x + 50, bottom + 2, _CARD - 50, _SOFT, 12)


def draw_ranks(ranks: Sequence[int], title: str) -> np.ndarray:
    """Draw a histogram of ranks as RGB, uint8, shape ``(H, W, 3)``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with chart_style():
        figure = rank_figure({'text to video': ranks})
        figure.suptitle(title)
        figure.set_dpi(130)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _write(
    draw: Any, text: str, x: int, y: int, width: int, color: str, size: int
) -> None:
    """Write one line, truncated to a width."""
    font = _font(size)
    if isinstance(font, ImageFont.ImageFont):  # without FreeType: Latin only
        text = text.encode('latin-1', 'replace').decode('latin-1')
    text = ' '.join(text.split())[:width]  # letters are a pixel wide at least
    if draw.textlength(text, font=font) > width:
        while text and draw.textlength(text + '...', font=font) > width:
            text = text[:-1]
        text += '...'
    draw.text((x, y), text, fill=color, font=font)


def _font(size: int) -> Any:
    """Pillow's default font, scalable since Pillow 10.1."""
    try:
        return ImageFont.load_default(size)
    except TypeError:
        return ImageFont.load_default()

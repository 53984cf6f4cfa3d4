"""Small pictures of a validation, for TensorBoard and its like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .charts import rank_shares
from .frame_strips import join_frames
from .query_selection import spread_evenly

_GREEN, _RED, _INK, _SOFT = '#16803c', '#c8322b', '#1b2230', '#667085'
_BLUE, _PAPER, _LOST = '#2557d6', '#ffffff', '#e3e7ee'
_FRAMES, _SIDE, _BORDER, _GAP = 4, 56, 4, 8
_CARD = _FRAMES * _SIDE + 2 * _BORDER


@dataclass
class Answer:
    """One video in the answer to a query.

    Args:
        video_id (str): Its id.
        score (float): Of the head.
        right (bool): Whether it is the right one.
        frames (np.ndarray, optional): RGB, uint8, shape ``(n, H, W, 3)``;
            None if it cannot be read.
    """

    video_id: str
    score: float
    right: bool
    frames: np.ndarray | None


@dataclass
class Answers:
    """A query and its first videos.

    Args:
        caption (str): The query.
        rank (int): Of the right video, from 1; 0 where none is right.
        videos (list[Answer]): The first ones.
    """

    caption: str
    rank: int
    videos: list[Answer]


def draw_answers(queries: Sequence[Answers]) -> np.ndarray:
    """Draw queries with the frames of their first videos.

    Args:
        queries (Sequence[Answers]): One row each; borders are green around
            the right video and red around others.

    Returns:
        np.ndarray: RGB, uint8, shape ``(H, W, 3)``.
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
            _draw_answer(picture, draw, answer, x, y + 22)
    return np.asarray(picture)


def _draw_answer(
    picture: Image.Image, draw: Any, answer: Answer, x: int, y: int
) -> None:
    """Draw one video with its border, id and score."""
    color = _GREEN if answer.right else _RED
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
        width = _CARD - 2 * _BORDER if len(places) == _FRAMES else (
            len(places) * _SIDE
        )  # fmt: skip
        picture.paste(strip.resize((width, _SIDE)), inner)
    text = f'{answer.score:.3f}' if abs(answer.score) < 1e6 else ''
    _write(draw, text, x, bottom + 2, 50, _INK, 12)
    _write(draw, answer.video_id, x + 50, bottom + 2, _CARD - 50, _SOFT, 12)


def draw_ranks(ranks: Sequence[int], title: str) -> np.ndarray:
    """Draw a histogram of ranks.

    Args:
        ranks (Sequence[int]): From 1.
        title (str): Above it.

    Returns:
        np.ndarray: RGB, uint8, shape ``(H, W, 3)``.
    """
    shares = rank_shares(ranks)
    width, height, step = 40 + 60 * len(shares), 260, 60
    picture = Image.new('RGB', (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    _write(draw, title, 20, 10, width - 40, _INK, 14)
    base, most = height - 34, max(share for _, share in shares)
    draw.line((20, base, width - 20, base), fill=_LOST)
    for place, (name, share) in enumerate(shares):
        x = 20 + place * step
        top = base - round(share / most * (base - 60))
        if share:
            draw.rectangle((x + 8, top, x + step - 8, base), fill=_BLUE)
        _write(draw, f'{share:.1f}%', x + 10, top - 18, step, _SOFT, 12)
        plain = name.replace('\N{EN DASH}', '-')
        _write(draw, plain, x + 12, base + 8, step, _INK, 12)
    return np.asarray(picture)


def _write(
    draw: Any, text: str, x: int, y: int, width: int, color: str, size: int
) -> None:
    """Write one line, cut to a width."""
    font = _font(size)
    if isinstance(font, ImageFont.ImageFont):  # without FreeType: Latin only
        text = text.encode('latin-1', 'replace').decode('latin-1')
    text = ' '.join(text.split())[:width]  # a letter takes a pixel at least
    if draw.textlength(text, font=font) > width:
        while text and draw.textlength(text + '...', font=font) > width:
            text = text[:-1]
        text += '...'
    draw.text((x, y), text, fill=color, font=font)


def _font(size: int) -> Any:
    """Pillow's own font, in sizes since its version 10.1."""
    try:
        return ImageFont.load_default(size)
    except TypeError:
        return ImageFont.load_default()

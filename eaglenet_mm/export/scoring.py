"""Export of heads: both states, and scores of pairs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eaglenet_mm.export.encoders import TOLERANCE
from eaglenet_mm.export.exported_file import (
    ExportedFile,
    staged,
    write_program,
)
from eaglenet_mm.export.program import Program
from eaglenet_mm.models.heads import BasePairHead
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.structures.features import Features, FeaturesT

#: The same operations in the same order; only the split among threads may
#: differ.
TORCH_TOLERANCE = 1e-6


def export_scoring(
    head: BasePairHead,
    folder: str | Path,
    text: TextFeatures,
    video: VideoFeatures,
    *,
    tolerance: float = TORCH_TOLERANCE,
) -> list[ExportedFile]:
    """Export a head with ``torch.export``, and verify the files.

    ``prepare_text.pt2`` and ``prepare_video.pt2`` take the outputs of the
    encoders, in order, and return the tensors of a state; ``scoring.pt2``
    takes both states, as tuples, and returns the scores of all pairs, as
    ``head.score`` does. Numbers of texts and videos are dynamic, those of
    words and frames are fixed. Value checks of features (such as videos
    without real frames) are left out.

    Args:
        head (BasePairHead): Head on the device that the files are to run on.
        folder (str or Path): Output folder.
        text (TextFeatures): Any texts; they define widths and token number.
        video (VideoFeatures): Any videos, likewise.
        tolerance (float): Maximum error, relative to the largest value of an
            output. Default: 1e-6.

    Returns:
        list[ExportedFile]: Text side, video side, scores.

    Raises:
        OSError: If the folder is not writable.
        ValueError: If the head draws noise at each call, needs the captions
            of the gallery or cannot be traced, or if a file exceeds the
            tolerance. No file is left then.
    """
    return _export(head, folder, text, video, 'torch.export', tolerance)


def export_scoring_onnx(
    head: BasePairHead,
    folder: str | Path,
    text: TextFeatures,
    video: VideoFeatures,
    *,
    tolerance: float = TOLERANCE,
) -> list[ExportedFile]:
    """Export a head to ONNX, and verify the files with onnxruntime.

    Like :func:`export_scoring`; the tensors of a state have the same names as
    outputs of one file and inputs of the next.

    Args:
        head (BasePairHead): The head.
        folder (str or Path): Output folder.
        text (TextFeatures): See :func:`export_scoring`.
        video (VideoFeatures): See :func:`export_scoring`.
        tolerance (float): See :func:`export_scoring`. Default: 1e-4.

    Returns:
        list[ExportedFile]: Text side, video side, scores.

    Raises:
        ImportError: If onnx or onnxscript is not installed.
        OSError, ValueError: See :func:`export_scoring`.
    """
    head = copy.deepcopy(head, _uncompiled(head)).cpu()
    text, video = text.to('cpu'), video.to('cpu')
    return _export(head, folder, text, video, 'onnx', tolerance)


def _export(
    head: BasePairHead,
    folder: str | Path,
    text: TextFeatures,
    video: VideoFeatures,
    format: str,  # noqa: A002  as the field
    tolerance: float,
) -> list[ExportedFile]:
    """Write the three files of a head, all or none."""
    refuse_head(head)
    metadata = dict(
        head=type(head).__name__, bytes_per_pair=head.bytes_per_pair(False)
    )
    folder, ending = Path(folder), '.onnx' if format == 'onnx' else '.pt2'
    files = []
    programs = scoring_programs(head, text, video)
    with staged(folder) as inner:
        for program in programs:
            path = inner / f'{program.name}{ending}'
            file = write_program(program, path, format, metadata, tolerance)
            files.append(replace(file, path=folder / path.name))
    return files


def refuse_head(head: BasePairHead) -> None:
    """Refuse a head whose scores cannot be exported."""
    name = type(head).__name__
    if getattr(head, 'noise', None) == 'pair':
        raise ValueError(
            f"{name}(noise='pair') draws new noise at each call, from a "
            'Python counter that cannot be exported. Export it with '
            "noise='table'."
        )
    if head.needs_own_captions:
        raise ValueError(
            f"{name}(evaluation='published') scores a video with its own "
            'caption, which a search does not have, so it cannot be '
            "exported. Export it with evaluation='pairwise'."
        )


class _PrepareText(nn.Module):
    """Text side of a head, from encoder outputs to state tensors."""

    def __init__(self, head: BasePairHead) -> None:
        super().__init__()
        self.head = head

    def forward(
        self,
        embeds: Tensor,
        tokens: Tensor | None = None,
        token_mask: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        text = TextFeatures(embeds, tokens, token_mask)
        return _own_tensors(self.head.prepare_text(text))


class _PrepareVideo(nn.Module):
    """Video side of a head, from encoder outputs to state tensors."""

    def __init__(self, head: BasePairHead) -> None:
        super().__init__()
        self.head = head

    def forward(
        self,
        frames: Tensor,
        feature_mask: Tensor,
        patches: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        video = VideoFeatures(frames, feature_mask, patches)
        return _own_tensors(self.head.prepare_video(video))


class _Score(nn.Module):
    """Scores of all pairs, from the tensors of both states."""

    def __init__(
        self, head: BasePairHead, text_state: Features, video_state: Features
    ) -> None:
        super().__init__()
        self.head = head
        # templates for the structure of the states, with any number of rows
        self._text_state = text_state
        self._video_state = video_state

    def forward(
        self, text_state: tuple[Tensor, ...], video_state: tuple[Tensor, ...]
    ) -> Tensor:
        texts, videos = iter(text_state), iter(video_state)
        return self.head.score(
            self._text_state.map(lambda _: next(texts)),
            self._video_state.map(lambda _: next(videos)),
        )


def _own_tensors(state: Features) -> tuple[Tensor, ...]:
    """Return the tensors of a state as contiguous copies.

    A traced file accepts only the memory layout it was traced with, and an
    ONNX output that is also an input loses its name.
    """
    return tuple(
        x.clone(memory_format=torch.contiguous_format) for x in state.tensors()
    )


def _tensor_names(state: Features, prefix: str) -> Iterator[str]:
    """Name the tensors of a state, nested ones by dotted paths."""
    for field in fields(state):
        value = getattr(state, field.name)
        if isinstance(value, Features):
            yield from _tensor_names(value, f'{prefix}.{field.name}')
        elif value is not None:
            yield f'{prefix}.{field.name}'


def _feature_names(features: TextFeatures | VideoFeatures) -> list[str]:
    """Name features like the outputs of exported encoders."""
    names = [name[1:] for name in _tensor_names(features, '')]
    return ['feature_mask' if x == 'frame_mask' else x for x in names]


def scoring_programs(
    head: BasePairHead, text: TextFeatures, video: VideoFeatures
) -> list[Program]:
    """Describe text side, video side and scores of a head as programs.

    They are verified on random features of the given shapes.
    """
    head.check_features(text, video)
    part: Any = copy.deepcopy(head, _uncompiled(head)).float().eval()
    part.requires_grad_(False)
    for name, _ in list(part.named_children()):
        if name.startswith('loss'):  # would only enlarge the files
            setattr(part, name, None)
    # these depend on values, which cannot be traced
    part.check_text = part.check_video = _accept

    def draw_text(texts: int) -> tuple[Tensor, ...]:
        return tuple(_draw(text, texts).tensors())

    def draw_video(videos: int) -> tuple[Tensor, ...]:
        return tuple(_draw(video, videos).tensors())

    @torch.no_grad()
    def states(texts: int, videos: int) -> tuple[Features, Features]:
        return (
            part.prepare_text(_draw(text, texts)),
            part.prepare_video(_draw(video, videos)),
        )

    def draw_states(texts: int, videos: int) -> tuple[Any, ...]:
        return tuple(map(_own_tensors, states(texts, videos)))

    text_state, video_state = states(2, 2)
    text_names = list(_tensor_names(text_state, 'text'))
    video_names = list(_tensor_names(video_state, 'video'))
    by_text, by_video = {0: 'texts'}, {0: 'videos'}
    return [
        Program(
            name='prepare_text',
            module=_PrepareText(part),
            input_names=_feature_names(text),
            output_names=text_names,
            axes=tuple(by_text for _ in text.tensors()),
            draw=draw_text,
            sizes=dict(texts=3),
            other_sizes=[dict(texts=1), dict(texts=8)],
        ),
        Program(
            name='prepare_video',
            module=_PrepareVideo(part),
            input_names=_feature_names(video),
            output_names=video_names,
            axes=tuple(by_video for _ in video.tensors()),
            draw=draw_video,
            sizes=dict(videos=3),
            other_sizes=[dict(videos=1), dict(videos=8)],
        ),
        Program(
            name='scoring',
            module=_Score(part, text_state, video_state),
            input_names=text_names + video_names,
            output_names=['scores'],
            axes=(
                tuple(by_text for _ in text_names),
                tuple(by_video for _ in video_names),
            ),
            draw=draw_states,
            sizes=dict(texts=3, videos=4),
            other_sizes=[
                dict(texts=1, videos=1),
                dict(texts=1, videos=9),
                dict(texts=6, videos=2),
            ],
        ),
    ]


def _draw(like: FeaturesT, rows: int) -> FeaturesT:
    """Draw features shaped like others; every row has a real position."""
    generator = torch.Generator().manual_seed(rows)

    def draw(x: Tensor) -> Tensor:
        shape = (rows, *x.shape[1:])
        if x.dtype != torch.bool:
            return torch.randn(shape, generator=generator).to(x.device)
        places = torch.arange(x.shape[1])
        ends = torch.randint(
            1, len(places) + 1, (rows, 1), generator=generator
        )
        return (places < ends).to(x.device)

    return like.map(draw)


def _accept(features: Any) -> None:
    """Accept any features."""


def _uncompiled(head: BasePairHead) -> dict[int, Any]:
    """Memo for ``deepcopy`` that drops the result of ``torch.compile``."""
    compiled = getattr(head, 'compiled_score', None)
    return {} if compiled is None else {id(compiled): None}

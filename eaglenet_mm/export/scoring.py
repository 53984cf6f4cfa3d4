"""Export of what a head computes: both states, and scores of pairs."""

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

#: The same operations in the same order: what may differ is how they are cut
#: among threads.
TORCH_TOLERANCE = 1e-6


def export_scoring(
    head: BasePairHead,
    folder: str | Path,
    text: TextFeatures,
    video: VideoFeatures,
    *,
    tolerance: float = TORCH_TOLERANCE,
) -> list[ExportedFile]:
    """Write a head as files of ``torch.export``, and check them.

    Three files: ``prepare_text.pt2`` and ``prepare_video.pt2`` take the
    outputs of the encoders, in their order, and give the tensors of a state;
    ``scoring.pt2`` takes the two states, as tuples, and gives the scores of
    all pairs, as ``head.score`` does. Numbers of texts and videos are open,
    those of words and frames are not. Checks of the features by their values
    (a video without a real frame) are left out.

    Args:
        head (BasePairHead): On the device that the files are to run on.
        folder (str or Path): Gets the files.
        text (TextFeatures): Of one text or more; its widths and number of
            tokens are those of the files.
        video (VideoFeatures): Of one video or more, likewise.
        tolerance (float): Share of the largest value of an output that an
            element of it may differ. Default: 1e-6.

    Returns:
        list[ExportedFile]: Text side, video side, scores.

    Raises:
        OSError: If the folder cannot be written to.
        ValueError: If the head draws noise at each call, needs the captions
            of the gallery, or cannot be followed; or if a file computes
            something else. Then no file is left.
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
    """Write a head as ONNX files, and check them in onnxruntime.

    As :func:`export_scoring`; the tensors of a state have the same names as
    outputs of the one file and as inputs of the next.

    Args:
        head (BasePairHead): The head.
        folder (str or Path): Gets the files.
        text (TextFeatures): See :func:`export_scoring`.
        video (VideoFeatures): Likewise.
        tolerance (float): Likewise. Default: 1e-4.

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
    format: str,  # noqa: A002  name of the field
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
    """Refuse a head whose scores no file can hold."""
    name = type(head).__name__
    if getattr(head, 'noise', None) == 'pair':
        raise ValueError(
            f"{name}(noise='pair') draws its noise anew at each call, by a "
            'counter in Python that a file cannot hold. Export it with '
            "noise='table'."
        )
    if head.needs_own_captions:
        raise ValueError(
            f"{name}(evaluation='published') scores a video by its own "
            'caption, which a search does not have, so there is nothing to '
            "export. Export it with evaluation='pairwise'."
        )


class _PrepareText(nn.Module):
    """From the outputs of a text encoder to the text state of a head."""

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
    """From the outputs of a video encoder to the video state of a head."""

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
    """From the tensors of both states to the scores of all pairs."""

    def __init__(
        self, head: BasePairHead, text_state: Features, video_state: Features
    ) -> None:
        super().__init__()
        self.head = head
        # of any rows: they say what the tensors are
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
    """Give the tensors of a state, each contiguous and in memory of its own.

    A file is traced for one order of the axes in memory and refuses others;
    and in ONNX an output that is an input loses its name.
    """
    return tuple(
        x.clone(memory_format=torch.contiguous_format) for x in state.tensors()
    )


def _tensor_names(state: Features, prefix: str) -> Iterator[str]:
    """Name the tensors of a state, nested ones by a dotted path."""
    for field in fields(state):
        value = getattr(state, field.name)
        if isinstance(value, Features):
            yield from _tensor_names(value, f'{prefix}.{field.name}')
        elif value is not None:
            yield f'{prefix}.{field.name}'


def _feature_names(features: TextFeatures | VideoFeatures) -> list[str]:
    """Name features as the files of the encoders name their outputs."""
    names = [name[1:] for name in _tensor_names(features, '')]
    return ['feature_mask' if x == 'frame_mask' else x for x in names]


def scoring_programs(
    head: BasePairHead, text: TextFeatures, video: VideoFeatures
) -> list[Program]:
    """Describe text side, video side and scores of a head.

    Random features to check them on have the shapes of those given.
    """
    head.check_features(text, video)
    part: Any = copy.deepcopy(head, _uncompiled(head)).float().eval()
    part.requires_grad_(False)
    for name, _ in list(part.named_children()):
        if name.startswith('loss'):  # would only make the files larger
            setattr(part, name, None)
    # these look at values, which an export cannot
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
    """Draw features of the shapes of others; at least one place is real."""
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
    """Take any features."""


def _uncompiled(head: BasePairHead) -> dict[int, Any]:
    """Leave out of a copy what ``torch.compile`` made, as ``copy`` asks."""
    compiled = getattr(head, 'compiled_score', None)
    return {} if compiled is None else {id(compiled): None}

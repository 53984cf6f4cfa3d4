"""Export of a whole model to a folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from eaglenet_mm.export.encoders import (
    export_text_encoder,
    export_video_encoder,
    text_program,
    video_program,
)
from eaglenet_mm.export.exported_file import ExportedFile, staged
from eaglenet_mm.export.scoring import (
    export_scoring,
    export_scoring_onnx,
    refuse_head,
)
from eaglenet_mm.models.retrievers import TextVideoRetriever
from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.version import __version__

#: Exportable parts of a model.
PARTS = ('text', 'video', 'scoring', 'scoring-onnx')
#: Summary of the files that belong together.
SUMMARY = 'export.json'


def export_retriever(
    model: TextVideoRetriever,
    folder: str | Path,
    parts: Sequence[str] = PARTS[:3],
    *,
    raw_frames: bool = False,
    about: Mapping[str, Any] | None = None,
) -> list[ExportedFile]:
    """Export a model, with a summary in ``export.json``.

    Args:
        model (TextVideoRetriever): Model in evaluation mode.
        folder (str or Path): Output folder for ``text_encoder.onnx``,
            ``video_encoder.onnx``, the files of
            :func:`~.scoring.export_scoring` and, on request, of
            :func:`~.scoring.export_scoring_onnx`; all or none are written.
        parts (Sequence[str]): Some of :data:`PARTS`. Default: all but scoring
            in ONNX.
        raw_frames (bool): Whether the video encoder takes uint8 frames.
            Default: False.
        about (dict, optional): Further entries of ``export.json``.

    Returns:
        list[ExportedFile]: The files in the order written.

    Raises:
        ImportError, OSError, ValueError: See the functions of each part;
            also if a part is unknown.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or not parts:
        raise ValueError(
            f'parts must be of {", ".join(PARTS)}, but got '
            f'{", ".join(unknown) or "none"}.'
        )
    if any(part.startswith('scoring') for part in parts):
        refuse_head(model.head)  # before minutes of exporting encoders
    folder = Path(folder)
    with staged(folder) as inner:
        files = [
            dataclasses.replace(file, path=folder / file.path.name)
            for file in _write(model, inner, parts, raw_frames)
        ]
        summary = dict(
            eaglenet_mm_version=__version__,
            torch_version=torch.__version__,
            **(about or {}),
            files=[
                {
                    **dataclasses.asdict(file),
                    'path': file.path.name,
                    'seconds': round(file.seconds, 2),
                }
                for file in files
            ],
        )
        (inner / SUMMARY).write_text(
            json.dumps(summary, indent=2) + '\n', encoding='utf-8'
        )
    return files


def _write(
    model: TextVideoRetriever,
    folder: Path,
    parts: Sequence[str],
    raw_frames: bool,
) -> Iterator[ExportedFile]:
    preprocessor: Any = model.data_preprocessor
    if 'text' in parts:
        yield export_text_encoder(
            model.text_encoder, folder / 'text_encoder.onnx'
        )
    if 'video' in parts:
        yield export_video_encoder(
            model.video_encoder,
            folder / 'video_encoder.onnx',
            num_frames=preprocessor.num_frames,
            mean=preprocessor.mean.flatten().tolist(),
            std=preprocessor.std.flatten().tolist(),
            raw_frames=raw_frames,
        )
    if 'scoring' in parts:
        yield from export_scoring(model.head, folder, *_examples(model))
    if 'scoring-onnx' in parts:
        yield from export_scoring_onnx(model.head, folder, *_examples(model))


def _examples(
    model: TextVideoRetriever,
) -> tuple[TextFeatures, VideoFeatures]:
    """Encode random inputs, for features as the head gets them."""
    preprocessor: Any = model.data_preprocessor
    text = text_program(model.text_encoder).fix_optional()
    video = video_program(
        model.video_encoder, preprocessor.num_frames
    ).fix_optional()
    device = next(model.parameters()).device
    return (
        TextFeatures(*text.run(text.draw(**text.sizes))).to(device),
        VideoFeatures(*video.run(video.draw(**video.sizes))).to(device),
    )

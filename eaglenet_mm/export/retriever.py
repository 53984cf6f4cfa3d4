"""Export of a whole model into one folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.version import __version__

from .encoder_programs import text_program, video_program
from .encoders import export_text_encoder, export_video_encoder
from .exported_file import ExportedFile, staged
from .scoring import export_scoring, export_scoring_onnx, refuse_head

#: What can be exported of a model.
PARTS = ('text', 'video', 'scoring', 'scoring-onnx')
#: The file that names what belongs together.
SUMMARY = 'export.json'


def export_retriever(
    model: Any,
    folder: str | Path,
    parts: Sequence[str] = PARTS[:3],
    *,
    raw_frames: bool = False,
    about: Mapping[str, Any] | None = None,
) -> list[ExportedFile]:
    """Export a model, and say in ``export.json`` what was written.

    Args:
        model (TextVideoRetriever): In evaluation mode.
        folder (str or Path): Gets ``text_encoder.onnx``,
            ``video_encoder.onnx``, the files of
            :func:`~.scoring.export_scoring` and, on request, of
            :func:`~.scoring.export_scoring_onnx`; all or none.
        parts (Sequence[str]): Of :data:`PARTS`. Default: all but scoring in
            ONNX.
        raw_frames (bool): Let the video encoder take uint8 frames. Default:
            False.
        about (dict, optional): More to say in ``export.json``.

    Returns:
        list[ExportedFile]: In the order they were written.

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
        refuse_head(model.head)  # before minutes of encoders
    writers = _writers(model, raw_frames)
    folder = Path(folder)
    with staged(folder) as inner:
        files = [
            dataclasses.replace(file, path=folder / file.path.name)
            for part in PARTS
            if part in parts
            for file in writers[part](inner)
        ]
        summary = dict(
            eaglenet_mm_version=__version__,
            torch_version=torch.__version__,
            **(about or {}),
            files=[_summary(file) for file in files],
        )
        (inner / SUMMARY).write_text(
            json.dumps(summary, indent=2) + '\n', encoding='utf-8'
        )
    return files


def _writers(
    model: Any, raw_frames: bool
) -> dict[str, Callable[[Path], list[ExportedFile]]]:
    preprocessor = model.data_preprocessor
    num_frames = preprocessor.num_frames

    def text(folder: Path) -> list[ExportedFile]:
        path = folder / 'text_encoder.onnx'
        return [export_text_encoder(model.text_encoder, path)]

    def video(folder: Path) -> list[ExportedFile]:
        return [
            export_video_encoder(
                model.video_encoder,
                folder / 'video_encoder.onnx',
                num_frames=num_frames,
                mean=preprocessor.mean.flatten().tolist(),
                std=preprocessor.std.flatten().tolist(),
                raw_frames=raw_frames,
            )
        ]

    def scoring(folder: Path) -> list[ExportedFile]:
        return export_scoring(model.head, folder, *_examples(model))

    def scoring_onnx(folder: Path) -> list[ExportedFile]:
        return export_scoring_onnx(model.head, folder, *_examples(model))

    return dict(zip(PARTS, (text, video, scoring, scoring_onnx), strict=True))


def _examples(model: Any) -> tuple[TextFeatures, VideoFeatures]:
    """Encode random inputs: features as the head will get them."""
    text = text_program(model.text_encoder).fix_optional()
    frames = model.data_preprocessor.num_frames
    video = video_program(model.video_encoder, frames).fix_optional()
    device = next(model.parameters()).device
    return (
        TextFeatures(*text.run(text.draw(**text.sizes))).to(device),
        VideoFeatures(*video.run(video.draw(**video.sizes))).to(device),
    )


def _summary(file: ExportedFile) -> dict[str, Any]:
    """Say what is to be known of a file, ready for JSON."""
    summary = dataclasses.asdict(file)
    summary['path'] = file.path.name
    summary['seconds'] = round(file.seconds, 2)
    return summary

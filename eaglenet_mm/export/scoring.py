"""Export of what a head computes: both states, and scores of pairs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from eaglenet_mm.structures import TextFeatures, VideoFeatures
from eaglenet_mm.version import __version__

from .encoders import TOLERANCE
from .exported_file import ExportedFile, staged
from .onnx_file import write_onnx
from .scoring_programs import scoring_programs, uncompiled
from .torch_file import write_torch

#: The same operations in the same order: what may differ is how they are cut
#: among threads.
TORCH_TOLERANCE = 1e-6


def export_scoring(
    head: Any,
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
    return _export(head, folder, text, video, write_torch, '.pt2', tolerance)


def export_scoring_onnx(
    head: Any,
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
    head = copy.deepcopy(head, uncompiled(head)).cpu()
    return _export(
        head,
        folder,
        text.to('cpu'),
        video.to('cpu'),
        write_onnx,
        '.onnx',
        tolerance,
    )


def _export(
    head: Any,
    folder: str | Path,
    text: TextFeatures,
    video: VideoFeatures,
    write: Callable[..., ExportedFile],
    ending: str,
    tolerance: float,
) -> list[ExportedFile]:
    """Write the three files of a head, all or none."""
    refuse_head(head)
    programs = scoring_programs(head, text, video)
    metadata = dict(
        eaglenet_mm_version=__version__,
        head=type(head).__name__,
        bytes_per_pair=head.bytes_per_pair(False),
    )
    folder = Path(folder)
    files = []
    with staged(folder) as inner:
        for program in programs:
            path = inner / f'{program.name}{ending}'
            file = write(program, path, metadata, tolerance)
            files.append(replace(file, path=folder / path.name))
    return files


def refuse_head(head: Any) -> None:
    """Refuse a head whose scores no file can hold.

    Args:
        head (BasePairHead): The head.

    Raises:
        ValueError: If it draws noise at each call, or needs the captions of
            the gallery.
    """
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

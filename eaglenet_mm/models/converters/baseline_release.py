"""Released checkpoints of the methods beside EagleNet, turned into ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .clip_names import CLIP_SCALE, rename_clip
from .clip_start import fill_from_clip
from .encoder_fit import check_encoders, resize_tables
from .method_names import rename_head
from .model_fit import check_model_fit
from .release_checks import check_method, check_names
from .release_methods import METHODS, recognise
from .release_parts import has_lstm
from .release_source import ReleaseSource, read_source, state_dict_of

LOG_SCALE = 'head.loss_match.log_scale'
#: Tables whose last rows a model for shorter inputs does not have.
TABLES = (
    'text_encoder.tower.positional_embedding',
    'head.temporal.positions.weight',
    'head.positions.weight',
)
MMACTION2_MEAN = (
    'mmaction2 averages frames as they leave CLIP, MeanPoolingHead frames of '
    'unit length, as CLIP4Clip does: scores differ a little from those of '
    'mmaction2 where the frames of a video differ in length'
)


@dataclass
class BaselineReport:
    """What a conversion did.

    Args:
        method (str): A key of :data:`~.release_methods.METHODS`.
        converted (dict[str, str]): Our name of each name in the file.
        dropped (dict[str, str]): Reason for each name left out.
        filled (dict[str, str]): Where each of our parameters is from that the
            file does not have.
        kept (list[str]): Buffers that the model makes itself.
        notes (list[str]): What the user should know.
    """

    method: str
    converted: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Say what was done, a line for each parameter and note."""
        return [
            *(f'converted {k} -> {v}' for k, v in self.converted.items()),
            *(f'dropped {k}: {v}' for k, v in self.dropped.items()),
            *(f'added {k}: {v}' for k, v in self.filled.items()),
            *(f'left as the model makes it: {k}' for k in self.kept),
            *(f'note: {text}' for text in self.notes),
        ]


def convert_baseline_release(
    checkpoint: Mapping[str, Any],
    method: str,
    *,
    model: nn.Module | None = None,
    initialise_from_clip: bool = False,
) -> tuple[dict[str, Tensor], BaselineReport]:
    """Rename the parameters of a released checkpoint.

    Takes X-Pool and T-MASS (Hugging Face's names of CLIP, or OpenAI's), and
    CLIP4Clip and its descendants TS2-Net and DRL (OpenAI's names, partly in
    half precision), and mmaction2's CLIP4Clip with the mean of frames as
    ``'clip4clip_mean'``. Weights in half precision become float32.

    Args:
        checkpoint (dict): State dict, plain or under ``'state_dict'``.
        method (str): What the head is, a key of
            :data:`~.release_methods.METHODS`.
        model (nn.Module, optional): Retriever that the result must fill; it
            is not changed. Tables of positions are cut to its rows. Without
            one, they keep theirs and shapes are not checked. Default: None.
        initialise_from_clip (bool): Start positions and blocks that the
            checkpoint does not have from CLIP's text tower, as the releases
            do before training, and other parts of the head, if it has none,
            as the model does. Default: False.

    Returns:
        tuple[dict[str, Tensor], BaselineReport]: Our state dict, contiguous
        copies in float32 on the CPU, and what was done.

    Raises:
        TypeError: If it is no dict, or an entry is no tensor.
        ValueError: If it is of another method, a name is unknown, a parameter
            missing, or the model of another shape or kind.
    """
    if method not in METHODS:
        raise ValueError(
            f'method must be one of {sorted(METHODS)}, but got {method!r}.'
        )
    state_dict = state_dict_of(checkpoint)
    is_clip = recognise(state_dict) == 'clip4clip_mean'
    is_fresh = initialise_from_clip and is_clip
    check_method(state_dict, method, model, is_fresh)
    report = BaselineReport(method)
    source = read_source(state_dict)
    copies = {}
    if initialise_from_clip:
        copies = fill_from_clip(source.tensors, method, model)
    check_names(source, method, may_lack_head=is_fresh)
    ours = _rename(source, method, report)
    for name, origin in copies.items():
        target = report.converted.pop(name)
        report.filled[target] = f'copied from {origin}'
    if method == 'clip4clip_tight':
        ours[LOG_SCALE] = torch.zeros(())
        report.filled[LOG_SCALE] = 'scale 1, as tightTransf has none'
    if is_clip and method == 'clip4clip_mean' and 'meta' in checkpoint:
        report.notes.append(MMACTION2_MEAN)
    if model is not None:
        shifted = None if is_fresh else source.shifted
        report.notes += check_encoders(model, shifted)
        _fit(ours, model, report, fill_head=is_fresh)
    return ours, report


def _rename(
    source: ReleaseSource, method: str, report: BaselineReport
) -> dict[str, Tensor]:
    """Give all parameters our names."""
    is_wti_lstm = method == 'wti' and has_lstm(source.tensors)
    rules = 'wti_lstm' if is_wti_lstm else method
    ours: dict[str, Tensor] = {}
    for name, value in source.tensors.items():
        target = LOG_SCALE if name == CLIP_SCALE else rename_clip(name)
        if target is None:
            (below,) = rename_head(rules, {name: None})[0]
            target = f'head.{below}'
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float()
        ours[target] = value.clone(memory_format=torch.contiguous_format)
        for origin in source.origins.get(name, [name]):
            report.converted[origin] = target
    report.dropped |= source.dropped
    return ours


def _fit(
    ours: dict[str, Tensor],
    model: nn.Module,
    report: BaselineReport,
    fill_head: bool,
) -> None:
    """Cut tables to a model, take from it what only it has, and check."""
    expected = model.state_dict()
    for name in TABLES:
        if name in ours and name in expected:
            rows, needed = len(ours[name]), len(expected[name])
            if rows > needed:
                ours[name] = ours[name][:needed].clone()
                report.notes.append(
                    f'{name}: the first {needed} of {rows} rows, as many as '
                    'the config has'
                )
    report.notes += resize_tables(ours, model)
    if LOG_SCALE not in expected:
        ours.pop(LOG_SCALE)
        report.converted.pop(CLIP_SCALE, None)
        report.filled.pop(LOG_SCALE, None)
        report.dropped[CLIP_SCALE] = 'the head of the config has no loss'
    elif expected[LOG_SCALE].numel() == ours[LOG_SCALE].numel():
        ours[LOG_SCALE] = ours[LOG_SCALE].reshape(expected[LOG_SCALE].shape)
    if fill_head:
        for name, value in model.named_parameters():
            if name.startswith('head.') and name not in ours:
                ours[name] = value.detach().clone()
                report.filled[name] = 'as the model of the config starts'
    for name in check_model_fit(ours, model):
        if name.startswith('head.loss_match.'):
            ours[name] = expected[name].detach().clone()
            report.filled[name] = 'a constant of the config'
        else:
            report.kept.append(name)

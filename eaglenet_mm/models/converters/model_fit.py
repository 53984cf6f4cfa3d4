"""Checks that a converted checkpoint fits a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from eaglenet_mm.models.encoders.clip_encoder import CLIPEncoder
from eaglenet_mm.models.encoders.clip_weights import (
    OPENAI_HEAD_WIDTH,
    TABLE,
    fit_positions,
    name_misfits,
)

SIDES = ('text_encoder', 'video_encoder')
#: Position embeddings that are cut for models with shorter inputs.
TABLES = (
    f'text_encoder.tower.{TABLE}',
    'head.temporal.positions.weight',
    'head.positions.weight',
)


def check_model_fit(
    state_dict: Mapping[str, Tensor], model: nn.Module
) -> list[str]:
    """Check that a state dict provides every parameter of a model.

    Args:
        state_dict (dict[str, Tensor]): State dict with the model's names.
        model (nn.Module): The model; it is not changed.

    Returns:
        list[str]: Buffers and fixed loss parameters that the state dict lacks
        and may lack, such as the evaluation noise.

    Raises:
        ValueError: If a parameter is missing, a name is unknown or a shape
            differs.

    Example:
        >>> kept = check_model_fit(ours, model)
        >>> model.load_state_dict(ours, strict=False)
    """
    expected = model.state_dict()
    # fixed loss parameters come from the config; the release has none
    parameters = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or not name.startswith('head.loss_match.')
    }
    optional = set(expected) - parameters
    misfits = name_misfits(state_dict, expected, optional)
    if misfits:
        raise ValueError(
            f'The checkpoint does not fit the model of the config; {misfits}. '
            'Use the config of the dataset and CLIP size that the checkpoint '
            'was trained with.'
        )
    return [k for k in expected if k in optional and k not in state_dict]


def read_model_options(model: nn.Module) -> dict[str, Any]:
    """Read the options that a release checkpoint does not determine.

    Args:
        model (nn.Module): A text-video retriever with an EagleNet head.

    Returns:
        dict: ``num_graph_layers``, ``loss`` and ``max_words`` for
        :func:`~.conversion.convert_eaglenet_release`.

    Example:
        >>> options = read_model_options(model)
        >>> ours, report = convert_eaglenet_release(release, **options)
    """
    names = model.state_dict()
    prefix = 'head.graph.hidden.'
    hidden = {n.split('.')[3] for n in names if n.startswith(prefix)}
    has_scale = 'head.loss_match.log_scale' in names
    is_clip = has_scale and 'head.loss_match.bias' not in names
    return dict(
        num_graph_layers=len(hidden) + 1,
        loss='clip' if is_clip else 'sig',
        max_words=len(names[f'text_encoder.tower.{TABLE}']),
    )


def check_encoders(
    model: nn.Module, shifted: Collection[int] | None
) -> list[str]:
    """Check encoder settings that names and shapes do not show.

    ``shifted`` are the blocks of the image tower with token shift in the
    release, None if unknown, as for CLIP only. Returns possible mistakes.
    """
    notes = []
    for side in SIDES:
        encoder = getattr(model, side, None)
        if not isinstance(encoder, CLIPEncoder):
            raise ValueError(
                f'The checkpoint holds the towers of CLIP, but the {side} of '
                f'the config is a {type(encoder).__name__}. Use a config '
                'with CLIPTextEncoder and CLIPVideoEncoder.'
            )
        blocks = list(encoder.tower.transformer.resblocks)
        if not isinstance(blocks[0].mlp.gelu, QuickGELU):
            raise ValueError(
                "The release uses OpenAI's CLIP, which has QuickGELU, but the "
                f'{side} of the config does not. Use an arch that ends in '
                "'-quickgelu', or set quick_gelu=True in the dict."
            )
        width = blocks[0].attn.head_dim
        if width != OPENAI_HEAD_WIDTH:
            notes.append(
                f'the heads of the {side} are {width} wide, those of '
                f"OpenAI's CLIP {OPENAI_HEAD_WIDTH}; shapes do not show this"
            )
        if side == 'text_encoder' or shifted is None:
            continue
        here = [i for i, b in enumerate(blocks) if b.shift is not None]
        there = sorted(shifted)
        if here != there:
            raise ValueError(
                'The checkpoint was trained with token shift in the blocks '
                f'{there or "()"}, but the video encoder of the config '
                f'shifts in {here or "()"}. Set shift_layers={tuple(there)}.'
            )
    return notes


def fit_tables(ours: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Fit position embeddings to a model; return a note for each change.

    They are cut, or resized for encoders with ``resize_positions``.
    """
    notes = []
    expected = model.state_dict()
    for name in TABLES:
        rows, needed = len(ours.get(name, ())), len(expected.get(name, ()))
        if 0 < needed < rows:
            ours[name] = ours[name][:needed].clone()
            notes.append(
                f'{name}: cut to the first {needed} of {rows} rows, as in the '
                'config'
            )
    for side in SIDES:
        encoder = getattr(model, side)
        name = f'{side}.tower.{TABLE}'
        rows = len(ours[name])
        if encoder.resize_positions:
            ours[name] = fit_positions(encoder.tower, ours[name]).clone()
        if len(ours[name]) != rows:
            notes.append(
                f'{name}: resized from {rows} to {len(ours[name])} rows'
            )
    return notes

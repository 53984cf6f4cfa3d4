"""What decides features and is not seen in names and shapes."""

from __future__ import annotations

from collections.abc import Collection

from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from eaglenet_mm.models.encoders.clip_encoder import CLIPEncoder
from eaglenet_mm.models.encoders.clip_positions import TABLE, fit_positions

#: Width of an attention head in all models of OpenAI.
HEAD_WIDTH = 64


def check_encoders(
    model: nn.Module, shifted: Collection[int] | None
) -> list[str]:
    """Check that the encoders compute what those of a release do.

    Args:
        model (nn.Module): A text-video retriever with CLIP's encoders.
        shifted (Collection[int], optional): Blocks of the image tower that
            shift tokens in the release; None if that is still open, as for
            CLIP alone before training.

    Returns:
        list[str]: What may be a mistake.

    Raises:
        ValueError: If other blocks shift tokens, or the activation is not
            CLIP's.
    """
    notes = []
    for side in ('text_encoder', 'video_encoder'):
        encoder = getattr(model, side, None)
        if not isinstance(encoder, CLIPEncoder):
            raise ValueError(
                f'The checkpoint holds the towers of CLIP, but the {side} of '
                f'the config is a {type(encoder).__name__}. Take a config '
                'with CLIPTextEncoder and CLIPVideoEncoder.'
            )
        blocks = list(encoder.tower.transformer.resblocks)
        if not isinstance(blocks[0].mlp.gelu, QuickGELU):
            raise ValueError(
                "The release stands on OpenAI's CLIP, which has QuickGELU, "
                f'but the {side} of the config has not. Take an arch that '
                "ends in '-quickgelu', or set quick_gelu=True in the dict."
            )
        width = blocks[0].attn.head_dim
        if width != HEAD_WIDTH:
            notes.append(
                f'the heads of the {side} are {width} wide, those of '
                f"OpenAI's CLIP {HEAD_WIDTH}; shapes do not tell"
            )
        if side == 'video_encoder' and shifted is not None:
            _check_shift(blocks, shifted)
    return notes


def resize_tables(ours: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Bring positions to the size of encoders with ``resize_positions``.

    Args:
        ours (dict[str, Tensor]): By our names, changed in place.
        model (nn.Module): A text-video retriever with CLIP's encoders.

    Returns:
        list[str]: What was done.
    """
    notes = []
    for side in ('text_encoder', 'video_encoder'):
        encoder = getattr(model, side)
        name = f'{side}.tower.{TABLE}'
        if not encoder.resize_positions or name not in ours:
            continue
        rows = len(ours[name])
        ours[name] = fit_positions(encoder.tower, ours[name]).clone()
        if len(ours[name]) != rows:
            notes.append(
                f'{name}: resized from {rows} to {len(ours[name])} rows'
            )
    return notes


def _check_shift(blocks: list, shifted: Collection[int]) -> None:
    """Compare the blocks that shift tokens."""
    here = [
        place
        for place, block in enumerate(blocks)
        if getattr(block, 'shift', None) is not None
    ]
    there = sorted(shifted)
    if here != there:
        raise ValueError(
            f'The checkpoint was made with a token shift in the blocks '
            f'{there or "()"}, but the video encoder of the config shifts in '
            f'{here or "()"}. Set shift_layers={tuple(there)}.'
        )

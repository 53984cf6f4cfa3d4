"""Pretrained CLIP weights: whether they fit a tower."""

from __future__ import annotations

from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor

from eaglenet_mm.utils.name_lists import name_some

from .clip_positions import TABLE, describe_misfit, fit_positions
from .clip_weights import CLIPWeights

#: First parts of the text tower's names in a complete CLIP model.
TEXT_PARTS = (
    'positional_embedding',
    'text_projection',
    'token_embedding',
    'transformer',
    'ln_final',
)
HUGGING_FACE_PARTS = ('vision_model.', 'text_model.', 'visual_projection.')
#: Width of an attention head in all of OpenAI's models.
OPENAI_HEAD_WIDTH = 64


def select_tower(weights: CLIPWeights, side: str) -> dict[str, Tensor]:
    """Take the tensors of one tower out of a complete CLIP model.

    Args:
        weights (CLIPWeights): The file's tensors.
        side (str): ``'vision'`` or ``'text'``.

    Returns:
        dict[str, Tensor]: By the names inside the tower.

    Raises:
        ValueError: If the file has no tensor of the tower.
    """
    names = weights.tensors
    prefix = 'visual.' if side == 'vision' else 'text.'
    found = {
        name[len(prefix) :]: tensor
        for name, tensor in names.items()
        if name.startswith(prefix)
    }
    if side == 'text' and not found:
        found = {
            name: tensor
            for name, tensor in names.items()
            if name.split('.')[0] in TEXT_PARTS
        }
    if found:
        return found
    if any(name.startswith(HUGGING_FACE_PARTS) for name in names):
        mend = (
            'These are the names of a Hugging Face CLIPModel; give '
            "OpenAI's or open_clip's file of the same model instead."
        )
    elif any('clip.visual.' in name for name in names):
        mend = (
            'This is a checkpoint of a released method, not of CLIP; '
            'convert it with tools/model_converters/eaglenet_release.py or '
            'baseline_release.py and give the result '
            'as load_from.'
        )
    elif any('_encoder.tower.' in name for name in names):
        mend = 'This is a checkpoint of ours; give it as load_from instead.'
    else:
        mend = 'Give the weights of a complete CLIP model.'
    raise ValueError(
        f"'{weights.path}' has no weights of the {side} tower; its names are "
        f'{name_some(sorted(names))}. {mend}'
    )


def load_tower(
    tower: VisionTransformer | TextTransformer,
    weights: CLIPWeights,
    side: str,
    *,
    quick_gelu: bool,
    resize_positions: bool = False,
) -> int:
    """Load a tower, or say completely why the file does not fit.

    The text tower may have a shorter positional table than the file: its
    first rows are taken, as the release does, not interpolated.

    Args:
        tower (nn.Module): One of open_clip, changed in place.
        weights (CLIPWeights): The file's tensors.
        side (str): ``'vision'`` or ``'text'``.
        quick_gelu (bool): Activation the tower was built with.
        resize_positions (bool): Whether position embeddings of another size
            are brought to that of the tower, see
            :func:`~.clip_positions.fit_positions`. Defaults to False.

    Returns:
        int: Number of tensors loaded.

    Raises:
        ValueError: If tensors are missing, unknown or of another shape, or
            OpenAI's weights meet a tower with another activation or head
            width.
    """
    tensors = select_tower(weights, side)
    expected = {k: tuple(v.shape) for k, v in tower.state_dict().items()}
    mend = 'Choose the arch the file was made with.'
    if TABLE in tensors and TABLE in expected:
        if side == 'text':
            tensors[TABLE] = tensors[TABLE][: expected[TABLE][0]]
        if resize_positions:
            tensors[TABLE] = fit_positions(tower, tensors[TABLE])
        mend = describe_misfit(tower, tensors[TABLE]) or mend
    problems = {
        'missing': [k for k in expected if k not in tensors],
        'unexpected': [k for k in tensors if k not in expected],
        'of another shape (file, architecture)': [
            f'{k} {tuple(tensors[k].shape)}, {shape}'
            for k, shape in expected.items()
            if k in tensors and tuple(tensors[k].shape) != shape
        ],
    }
    if any(problems.values()):
        lines = [
            f'{len(v)} {kind}: {name_some(v)}'
            for kind, v in problems.items()
            if v
        ]
        raise ValueError(
            f"'{weights.path}' does not fit the {side} tower; "
            f'{"; ".join(lines)}. {mend}'
        )
    if weights.is_openai:
        _check_openai(tower, weights.path, quick_gelu)
    tower.load_state_dict(tensors)
    return len(tensors)


def _check_openai(
    tower: VisionTransformer | TextTransformer, path: str, quick_gelu: bool
) -> None:
    """Check what shapes cannot tell of OpenAI's models."""
    if not quick_gelu:
        raise ValueError(
            f"'{path}' holds OpenAI's weights, which need QuickGELU, but the "
            "arch has quick_gelu=False. Take the name with '-quickgelu', or "
            'set quick_gelu=True in the dict.'
        )
    if not hasattr(tower, 'transformer'):  # a ResNet, without such heads
        return
    width = tower.transformer.resblocks[0].attn.head_dim
    if width != OPENAI_HEAD_WIDTH:
        raise ValueError(
            f"'{path}' holds OpenAI's weights, whose heads are 64 wide, but "
            f'the arch has heads of width {width}. Set head_width=64 '
            '(vision) or heads=width // 64 (text).'
        )

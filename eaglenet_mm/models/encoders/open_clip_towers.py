"""Any tower of open_clip, as a part with pooled output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import _build_text_tower, _build_vision_tower
from open_clip.pretrained import (
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)

from eaglenet_mm.utils.type_name import type_name

from .clip_loading import load_tower
from .clip_tower import (
    folder_pixel_statistics,
    is_model_folder,
    resolve_arch,
)
from .clip_weights import find_start_weights, load_clip_weights

#: What a config of a tower may hold beside ``type``.
TOWER_KEYS = ('arch', 'pretrained', 'resize_positions')


def build_open_clip_tower(
    config: Mapping[str, Any], side: str, *, max_words: int | None = None
) -> tuple[Any, str | Mapping[str, Any]]:
    """Build one tower of an open_clip model.

    Unlike :class:`~.clip_encoder.CLIPEncoder`, which knows the inside of
    CLIP's transformers, this takes every kind of tower: ResNets, SigLIP and
    other models of timm, EVA.

    Args:
        config (dict): ``type='open_clip.NAME'`` of a model of open_clip, or
            ``type='open_clip'`` with ``arch``, as in
            :class:`~.clip_encoder.CLIPEncoder`; optionally ``pretrained``
            and ``resize_positions`` as there.
        side (str): ``'vision'`` or ``'text'``.
        max_words (int, optional): Rows of the text tower's positional table.
            Defaults to the architecture's.

    Returns:
        tuple: The tower, an ``nn.Module``, and its ``arch``: a name or a dict.

    Raises:
        FileNotFoundError: If a model folder or a file is not there.
        KeyError: If ``arch`` has no config of this side.
        ValueError: If the name or a key is unknown, the weights do not fit,
            or the text tower is one of Hugging Face.
    """
    config = dict(config)
    _, _, name = config.pop('type').partition('.')
    unknown = sorted(set(config) - set(TOWER_KEYS))
    if unknown:
        raise ValueError(
            f'A backbone of open_clip takes {TOWER_KEYS}, but got {unknown} '
            'too. Put options of the tower into arch.vision_cfg or '
            'arch.text_cfg.'
        )
    arch = config.get('arch') or name
    if not arch or (name and config.get('arch')):
        raise ValueError(
            "A backbone of open_clip needs either a name, type='open_clip."
            "ViT-B-16-SigLIP', or type='open_clip' with arch=dict(embed_dim="
            f'..., vision_cfg=dict(...)), but got the name {name!r} and '
            f'arch={config.get("arch")!r}. Give one of them.'
        )
    resolved = resolve_arch(arch)
    tower = _build(resolved, side, max_words)
    pretrained = find_start_weights(config.get('pretrained'), arch)
    if pretrained is not None:
        load_tower(
            tower,
            load_clip_weights(pretrained, arch),
            side,
            quick_gelu=resolved['quick_gelu'],
            resize_positions=config.get('resize_positions', False),
        )
    return tower, arch


def pixel_statistics(
    arch: str | Mapping[str, Any], pretrained: str | bool | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the pixels a tower was trained on.

    Args:
        arch (str or dict): As returned by :func:`build_open_clip_tower`.
        pretrained (str or bool, optional): A tag of open_clip or a file.

    Returns:
        tuple: Two times three numbers: of the tag, or of the model folder;
        of a file or of random weights those of the model's first tag; CLIP's
        where there is none.
    """
    config: Mapping[str, Any] = {}
    if is_model_folder(arch):
        config = folder_pixel_statistics(arch)
    elif isinstance(arch, str):
        name = arch.replace('/', '-')
        tags = list_pretrained_tags_by_model(name)
        tag = pretrained if pretrained in tags else next(iter(tags), None)
        config = get_pretrained_cfg(name, tag) if tag else {}
    mean = config.get('mean') or OPENAI_DATASET_MEAN
    std = config.get('std') or OPENAI_DATASET_STD
    return tuple(mean), tuple(std)


def keep_pixel_statistics(encoder: dict[str, Any]) -> None:
    """State the statistics that follow from a tag, before the tag is removed.

    Args:
        encoder (dict): Settings. If they are of a ``RegisteredEncoder`` whose
            ``backbone`` is one of open_clip with a tag, they get ``mean`` and
            ``std`` where they have none.
    """
    backbone = encoder.get('backbone')
    is_video = type_name(encoder) == 'RegisteredEncoder'
    if not is_video or not isinstance(backbone, Mapping):
        return
    library, _, arch = str(backbone.get('type')).partition('.')
    tag = backbone.get('pretrained')
    if library != 'open_clip' or not isinstance(tag, str):
        return
    stated = pixel_statistics(arch or backbone.get('arch', ''), tag)
    for name, value in zip(('mean', 'std'), stated, strict=True):
        if encoder.get(name) is None:
            encoder[name] = list(value)


def _build(config: Mapping[str, Any], side: str, max_words: int | None) -> Any:
    """Build a tower with random weights."""
    key = f'{side}_cfg'
    if key not in config:
        raise KeyError(
            f"arch has no '{key}', which the {side} tower is built from; it "
            f'has {sorted(config)}. Add it.'
        )
    part = dict(config[key])
    if part.get('hf_model_name'):
        raise ValueError(
            f'The {side} tower of this arch is the Hugging Face model '
            f'{part["hf_model_name"]!r}, which open_clip would download. Use '
            'HuggingFaceTextEncoder with a local folder of it.'
        )
    if max_words is not None:
        part['context_length'] = max_words
    # CoCa's towers would give their tokens beside the pooled output
    part.pop('output_tokens', None)
    build = _build_vision_tower if side == 'vision' else _build_text_tower
    try:
        return build(config['embed_dim'], part, config['quick_gelu'])
    except TypeError as err:
        raise ValueError(
            f'open_clip takes no such {key}: {err}. Remove the key or mend '
            'its spelling.'
        ) from err

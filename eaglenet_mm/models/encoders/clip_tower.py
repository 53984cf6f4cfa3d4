"""Building of open_clip's towers from a model name or a config dict."""

from __future__ import annotations

import difflib
import json
import os.path as osp
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeGuard

import open_clip
import torch
from open_clip.factory import parse_model_name
from open_clip.model import _build_text_tower, _build_vision_tower
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transformer import (
    ResidualAttentionBlock,
    TextTransformer,
    VisionTransformer,
)
from torch import nn

from .clip_block import CLIPBlock
from .patch_shift import check_num_tokens

ARCH_KEYS = ('embed_dim', 'vision_cfg', 'text_cfg', 'quick_gelu')


def resolve_arch(arch: str | Mapping[str, Any]) -> dict[str, Any]:
    """Turn the ``arch`` argument of an encoder into a config dict.

    Args:
        arch (str or dict): Name of an open_clip model, for example
            ``'ViT-B-32-quickgelu'``; a model folder as open_clip writes it,
            ``'local-dir:PATH'``, or one of the Hugging Face Hub,
            ``'hf-hub:OWNER/NAME'``; or a dict with ``embed_dim``,
            ``vision_cfg`` and / or ``text_cfg`` and, optionally,
            ``quick_gelu``.

    Returns:
        dict: The four entries, ``quick_gelu`` always present.

    Raises:
        FileNotFoundError: If a model folder is not there, or has no config.
        ValueError: If open_clip has no such model, a model folder's config
            cannot be read, or the dict has other keys.
        KeyError: If the dict has no ``embed_dim``.
    """
    if is_model_folder(arch):
        config = dict(_read_folder(arch)['model_cfg'])
        if 'embed_dim' not in config:
            raise KeyError(
                f"The open_clip_config.json of arch='{arch}' has no "
                "'embed_dim' in its model_cfg. Fetch the folder again."
            )
        if 'timm_model_name' in config.get('vision_cfg', {}):
            # else timm would fetch weights that the folder's overwrite
            config['vision_cfg'] = {
                **config['vision_cfg'],
                'timm_model_pretrained': False,
            }
    elif isinstance(arch, str):
        name = arch.replace('/', '-')
        config = open_clip.get_model_config(name)
        if config is None:
            near = difflib.get_close_matches(name, open_clip.list_models(), 3)
            raise ValueError(
                f"open_clip has no model '{arch}'. Close names: "
                f'{near or "none"}; open_clip.list_models() has all.'
            )
    else:
        config = dict(arch)
        unknown = sorted(set(config) - set(ARCH_KEYS))
        if unknown:
            raise ValueError(
                f'arch takes the keys {ARCH_KEYS}, but got {unknown} too. '
                'Remove them or mend their spelling.'
            )
        if 'embed_dim' not in config:
            raise KeyError(
                "arch has no 'embed_dim', the width of the features. Add it "
                'beside vision_cfg and text_cfg.'
            )
    return {
        'quick_gelu': False,
        **{key: config[key] for key in ARCH_KEYS if key in config},
    }


def is_model_folder(arch: str | Mapping[str, Any]) -> TypeGuard[str]:
    """Tell whether ``arch`` means a model folder, here or on the Hub."""
    return isinstance(arch, str) and parse_model_name(arch)[0] is not None


def folder_pixel_statistics(arch: str) -> dict[str, tuple[float, ...]]:
    """Read what a model folder states of its pixels.

    Args:
        arch (str): ``'local-dir:PATH'`` or ``'hf-hub:OWNER/NAME'``.

    Returns:
        dict: ``mean`` and ``std`` as far as they are stated.
    """
    stated = _read_folder(arch).get('preprocess_cfg') or {}
    return {
        name: tuple(stated[name])
        for name in ('mean', 'std')
        if stated.get(name) is not None
    }


def _read_folder(arch: str) -> dict[str, Any]:
    """Read ``open_clip_config.json`` of a model folder."""
    schema, place = parse_model_name(arch)
    if schema == 'local-dir':
        path = osp.join(osp.expanduser(place), 'open_clip_config.json')
        if not osp.isfile(path):
            raise FileNotFoundError(
                f"arch='{arch}' needs a model folder as open_clip writes it, "
                f'with open_clip_config.json, but there is no {path}. Mend '
                'the path.'
            )
    else:
        try:
            path = download_pretrained_from_hf(
                place, filename='open_clip_config.json'
            )
        except FileNotFoundError as err:
            raise FileNotFoundError(
                f"arch='{arch}': open_clip_config.json is neither in the "
                f'cache of Hugging Face nor could it be fetched: {err}. '
                f'Fetch the model by `hf download {place}`, or give a copy '
                "of it as 'local-dir:PATH'."
            ) from err
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except ValueError as err:
        raise ValueError(
            f"arch='{arch}': {path} is no JSON: {err}. Fetch it again."
        ) from err
    if 'model_cfg' not in content:  # a config of open_clip's own list
        content = {'model_cfg': content}
    return content


def _part(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return ``vision_cfg`` or ``text_cfg`` as a plain dict."""
    if key not in config:
        raise KeyError(
            f"arch has no '{key}', which this encoder is built from; it has "
            f'{sorted(config)}.'
        )
    return dict(config[key])


def _checked_size(
    size: int | Sequence[int], vision_cfg: Mapping[str, Any]
) -> tuple[int, int]:
    """Height and width that hold whole patches."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    patch = vision_cfg.get('patch_size', 16)
    patches = (patch, patch) if isinstance(patch, int) else tuple(patch)
    if len(pair) != 2 or any(
        not isinstance(side, int) or side < 1 or side % step
        for side, step in zip(pair, patches, strict=True)
    ):
        raise ValueError(
            'image_size must be one or two multiples of the patch size '
            f'{patch}, pixels, but got {size!r}.'
        )
    return pair


def _refuse(side: str, reason: str) -> ValueError:
    return ValueError(
        f"The {side} tower must be CLIP's plain transformer, but this arch "
        f'has {reason}. Choose a ViT model of open_clip, for example '
        "'ViT-B-32-quickgelu'."
    )


def _adopt_blocks(
    tower: VisionTransformer | TextTransformer,
    side: str,
    *,
    is_causal: bool,
    shift_layers: Collection[int] = (),
) -> None:
    """Replace open_clip's blocks by ours around the same parameters."""
    blocks = tower.transformer.resblocks
    for index, block in enumerate(blocks):
        if type(block) is not ResidualAttentionBlock:
            raise _refuse(side, f'blocks of type {type(block).__name__}')
        blocks[index] = CLIPBlock(
            block, is_causal=is_causal, shift=index in shift_layers
        )


def _resolve_layers(layers: Collection[int], num_layers: int) -> set[int]:
    """Turn possibly negative layer numbers into places from 0."""
    wrong = [i for i in layers if not -num_layers <= i < num_layers]
    if wrong:
        raise ValueError(
            f'shift_layers must lie in [{-num_layers}, {num_layers - 1}] for '
            f'a tower of {num_layers} layers, but got {wrong}.'
        )
    return {index % num_layers for index in layers}


def build_vision_tower(
    config: Mapping[str, Any],
    *,
    image_size: int | Sequence[int] | None = None,
    shift_layers: Collection[int] = (),
    cast_dtype: torch.dtype | None = None,
) -> VisionTransformer:
    """Build an image tower with random weights.

    Args:
        config (dict): Of :func:`resolve_arch`.
        image_size (int or tuple, optional): Height and width of the frames,
            pixels. Defaults to the architecture's.
        shift_layers (Sequence[int]): Blocks with the patch shift, counted
            from 0, or from the end if negative. Defaults to none.
        cast_dtype (torch.dtype, optional): ``torch.float16`` for norms that
            take half-precision tokens. Defaults to None.

    Returns:
        VisionTransformer: open_clip's tower with our blocks.

    Raises:
        KeyError: If the config has no ``vision_cfg``.
        ValueError: If the tower is no plain vision transformer with a class
            token, ``image_size`` is smaller than a patch, a layer number is
            out of range, or the token grid is too small to be shifted.
    """
    vision_cfg = _part(config, 'vision_cfg')
    if image_size is not None:
        vision_cfg['image_size'] = _checked_size(image_size, vision_cfg)
    try:
        tower = _build_vision_tower(
            config['embed_dim'],
            vision_cfg,
            config['quick_gelu'],
            cast_dtype,
        )
    except TypeError as err:
        raise ValueError(
            f'open_clip takes no such vision_cfg: {err}. Remove the key or '
            'mend its spelling.'
        ) from err
    if not isinstance(tower, VisionTransformer):
        raise _refuse('vision', f'a {type(tower).__name__}')
    if tower.attn_pool is not None or tower.pool_type != 'tok':
        raise _refuse('vision', 'another pooling than the class token')
    layers = _resolve_layers(shift_layers, len(tower.transformer.resblocks))
    if layers:
        check_num_tokens(tower.positional_embedding.shape[0])
        if not isinstance(tower.patch_dropout, nn.Identity):
            raise _refuse('vision', 'patch_dropout, which breaks the grid')
    _adopt_blocks(tower, 'vision', is_causal=False, shift_layers=layers)
    return tower


def build_text_tower(
    config: Mapping[str, Any],
    *,
    max_words: int | None = None,
    cast_dtype: torch.dtype | None = None,
) -> TextTransformer:
    """Build a text tower with random weights.

    Args:
        config (dict): Of :func:`resolve_arch`.
        max_words (int, optional): Rows of the positional table. Defaults to
            the architecture's ``context_length``.
        cast_dtype (torch.dtype, optional): As in :func:`build_vision_tower`.

    Returns:
        TextTransformer: open_clip's tower with our blocks.

    Raises:
        KeyError: If the config has no ``text_cfg``.
        ValueError: If the tower is no causal transformer pooled at the end
            token, or ``max_words`` is below 1.
    """
    text_cfg = _part(config, 'text_cfg')
    if max_words is not None:
        if max_words < 1:
            raise ValueError(
                f'max_words must be positive, but got {max_words}.'
            )
        text_cfg['context_length'] = max_words
    if text_cfg.get('hf_model_name'):
        raise _refuse('text', f'the model {text_cfg["hf_model_name"]!r}')
    try:
        tower = _build_text_tower(
            config['embed_dim'], text_cfg, config['quick_gelu'], cast_dtype
        )
    except TypeError as err:
        raise ValueError(
            f'open_clip takes no such text_cfg: {err}. Remove the key or '
            'mend its spelling.'
        ) from err
    if tower.attn_mask is None:
        raise _refuse('text', 'attention in both directions')
    if tower.cls_emb is not None or tower.pool_type != 'argmax':
        raise _refuse('text', 'another pooling than the end token')
    if not isinstance(tower.text_projection, nn.Parameter):
        raise _refuse('text', 'no plain projection matrix')
    _adopt_blocks(tower, 'text', is_causal=True)
    return tower

"""Weights of a backbone from a local file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from eaglenet_mm.utils.name_lists import name_some
from eaglenet_mm.utils.safe_checkpoint import load_checkpoint_file

#: Keys under which libraries keep a state dict.
WRAPPINGS = ('state_dict', 'model', 'module')
#: Prefixes under which checkpoints of whole models keep their backbone.
PREFIXES = ('backbone.', 'visual.')


def load_backbone_weights(backbone: nn.Module, path: str, name: str) -> None:
    """Load a backbone from a checkpoint of it or of a model around it.

    Nothing the file contains is executed.

    Args:
        backbone (nn.Module): Changed in place.
        path (str): A file of PyTorch or ``.safetensors``: a state dict, plain
            or under ``state_dict``, ``model`` or ``module``. If names start
            with ``'backbone.'`` or ``'visual.'``, only those are taken, as
            from recognisers of mmaction2.
        name (str): The backbone's ``type``, for messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read as weights, or tensors of the
            backbone are missing or of another shape. Tensors too many, such
            as those of a classifier, are logged as a warning.
    """
    tensors = _select(_read(path), path)
    expected = {k: tuple(v.shape) for k, v in backbone.state_dict().items()}
    problems = {
        'missing': [
            key
            for key in expected
            # a counter that older checkpoints do not have and none needs
            if key not in tensors and not key.endswith('num_batches_tracked')
        ],
        'of another shape (file, backbone)': [
            f'{key} {tuple(tensors[key].shape)}, {shape}'
            for key, shape in expected.items()
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
    }
    if any(problems.values()):
        lines = [
            f'{len(names)} {kind}: {name_some(names)}'
            for kind, names in problems.items()
            if names
        ]
        raise ValueError(
            f"checkpoint='{path}' does not fit the backbone '{name}'; "
            f'{"; ".join(lines)}. Build the backbone as the file was made, '
            'or give the file of this backbone.'
        )
    extra = [key for key in tensors if key not in expected]
    if extra:
        print_log(
            f"'{path}' has {len(extra)} tensors that the backbone '{name}' "
            f'does not take: {name_some(extra)}.',
            logger='current',
            level=logging.WARNING,
        )
    backbone.load_state_dict(tensors, strict=False)


def _read(path: str) -> Any:
    if not path.endswith('.safetensors'):
        return load_checkpoint_file(path)
    try:
        return load_file(path)
    except SafetensorError as err:
        raise ValueError(
            f"'{path}' cannot be read as safetensors: {err}. Fetch the file "
            'again.'
        ) from err


def _select(content: Any, path: str) -> dict[str, Tensor]:
    """Take the backbone's tensors out of their wrappings."""
    for key in WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(
            content.get(key), Mapping
        ):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise ValueError(
            f"'{path}' is no state dict of tensors, plain or under one of "
            f'{WRAPPINGS}. Give the weights alone.'
        )
    tensors = {key.removeprefix('module.'): v for key, v in content.items()}
    for prefix in PREFIXES:
        inner = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        if inner:
            return inner
    return tensors

"""Pretrained CLIP weights: where they come from and how they are read."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_clip.factory import _find_checkpoint_in_dir, parse_model_name
from open_clip.pretrained import (
    download_pretrained,
    download_pretrained_from_hf,
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eaglenet_mm.utils.name_lists import name_some
from eaglenet_mm.utils.safe_checkpoint import load_checkpoint_file

from .clip_tower import is_model_folder
from .torchscript_archive import (
    is_torchscript_archive,
    read_torchscript_tensors,
)

#: OpenAI's files carry these sizes as tensors.
OPENAI_SIZES = ('input_resolution', 'context_length', 'vocab_size')
#: Archives keep the text tower's mask, and it may be an attribute of every
#: block; the mask is computed, not learnt.
CAUSAL_MASK = 'attn_mask'


@dataclass
class CLIPWeights:
    """The tensors of one file and what is known of their origin.

    Args:
        tensors (dict[str, Tensor]): By the names of a complete CLIP model.
        path (str): The file, for messages.
        is_openai (bool): Whether OpenAI trained them, so with QuickGELU and
            heads of width 64, which shapes alone cannot tell.
    """

    tensors: dict[str, Tensor]
    path: str
    is_openai: bool


def find_start_weights(
    pretrained: str | bool | None, arch: str | Mapping[str, Any]
) -> str | None:
    """Tell where an encoder's weights to start from lie.

    Args:
        pretrained (str or bool, optional): As given to the encoder.
        arch (str or dict): As given to the encoder.

    Returns:
        str or None: What :func:`load_clip_weights` takes: ``pretrained``
        itself, or the file of a model folder if that is None. None for
        random weights.

    Raises:
        FileNotFoundError: If a model folder has no weights.
        ValueError: If ``pretrained`` is True.
    """
    if pretrained is True:
        raise ValueError(
            'pretrained must be a tag, a file, None, or False for random '
            'weights, but got True. Name the weights.'
        )
    if pretrained is not None or not is_model_folder(arch):
        return pretrained or None
    schema, place = parse_model_name(arch)
    if schema == 'local-dir':
        folder = Path(place).expanduser()
        found = _find_checkpoint_in_dir(folder)
        reason = f'{folder} has no *.safetensors, *.bin or *.pth'
    else:
        try:
            found = download_pretrained_from_hf(place)
        except FileNotFoundError as err:
            found, reason = None, str(err)
    if found is None:
        raise FileNotFoundError(
            f"arch='{arch}' should come with weights, but {reason}. Complete "
            'the folder, give a file as pretrained, or set pretrained=False '
            'for random weights.'
        )
    return found


def load_clip_weights(
    pretrained: str, arch: str | Mapping[str, Any]
) -> CLIPWeights:
    """Find and read pretrained weights.

    Args:
        pretrained (str): A tag open_clip lists for this model, for example
            ``'openai'``, or the path of a local file: OpenAI's TorchScript
            archive, a state dict (plain, or under ``'state_dict'``, with or
            without ``'module.'``), or safetensors.
        arch (str or dict): The ``arch`` argument of the encoder; tags exist
            for names only.

    Returns:
        CLIPWeights: On the CPU, in the precision of the file.

    Raises:
        FileNotFoundError: If it is neither a known tag nor a file.
        ValueError: If the file cannot be read as weights.
        RuntimeError: If the tag's file cannot be downloaded.

    Note:
        Nothing a file contains is executed: checkpoints are read by
        :func:`~eaglenet_mm.utils.safe_checkpoint.load_checkpoint_file`, and
        of TorchScript archives only the tensors, by
        :func:`~.torchscript_archive.read_torchscript_tensors`.
    """
    name = None
    if isinstance(arch, str) and not is_model_folder(arch):
        name = arch.replace('/', '-')
    config = get_pretrained_cfg(name, pretrained) if name else {}
    path = pretrained
    if config:
        try:
            path = download_pretrained(config)
        except (OSError, RuntimeError, ValueError) as err:
            raise RuntimeError(
                f"The weights '{pretrained}' of {name} could not be "
                f'downloaded: {err}. Fetch the file by other means and give '
                'its path as pretrained.'
            ) from err
    elif not osp.isfile(path):
        tags = list_pretrained_tags_by_model(name) if name else []
        raise FileNotFoundError(
            f"pretrained='{pretrained}' is neither a file nor one of "
            f"open_clip's weights for {name or 'an own architecture'} "
            f'({tags or "none"}). Give one of these or a path.'
        )
    is_archive = is_torchscript_archive(path)
    tensors = _unwrap(_read(path, is_archive), path)
    is_openai = (
        is_archive
        or pretrained == 'openai'
        or all(size in tensors for size in OPENAI_SIZES)
    )
    return CLIPWeights(
        {
            name: tensor
            for name, tensor in tensors.items()
            if name not in OPENAI_SIZES
            and name.rsplit('.', 1)[-1] != CAUSAL_MASK
        },
        path,
        is_openai,
    )


def _read(path: str, is_archive: bool) -> Any:
    """Read a file by the reader of its format."""
    if is_archive:
        return read_torchscript_tensors(path)
    try:
        if path.endswith('.safetensors'):
            return load_file(path)
    except (SafetensorError, OSError) as err:
        raise ValueError(
            f"'{path}' cannot be read as safetensors: {err}. Fetch the file "
            'again.'
        ) from err
    return load_checkpoint_file(path)


def _unwrap(content: Any, path: str) -> dict[str, Tensor]:
    """Take the state dict out of its wrappings."""
    if isinstance(content, Mapping) and isinstance(
        content.get('state_dict'), Mapping
    ):
        content = content['state_dict']
    if not isinstance(content, Mapping) or not content:
        raise ValueError(
            f"'{path}' holds a {type(content).__name__}, expected a state "
            'dict of tensors, plain or under the key state_dict.'
        )
    wrong = [k for k, v in content.items() if not isinstance(v, Tensor)]
    if wrong:
        raise ValueError(
            f"'{path}' is no state dict: {name_some(wrong)} are no tensors. "
            'Expected the weights alone, plain or under the key '
            'state_dict.'
        )
    if all(key.startswith('module.') for key in content):
        return {key[len('module.') :]: v for key, v in content.items()}
    return dict(content)

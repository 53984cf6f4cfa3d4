"""A released checkpoint, its names brought to one form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from eaglenet_mm.utils.name_lists import name_some

from .hugging_face_clip import from_hugging_face, is_hugging_face

#: What TS2-Net wraps the attention of a block in, to shift its tokens.
SHIFTED = re.compile(
    r'(clip\.visual\.transformer\.resblocks\.(\d+)\.attn)\.net\.'
)
BARE_CLIP = ('visual.conv1.weight', 'vision_model.embeddings.class_embedding')


@dataclass
class ReleaseSource:
    """Tensors of a release; those of CLIP by OpenAI's names below ``clip.``.

    Args:
        tensors (dict[str, Tensor]): By name.
        origins (dict[str, list[str]]): The names in the file.
        dropped (dict[str, str]): Reason for each name left out.
        unknown (list[str]): Names that nobody knows.
        shifted (set[int]): Blocks of the image tower that shift tokens.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    shifted: set[int] = field(default_factory=set)


def state_dict_of(checkpoint: Any) -> dict[str, Tensor]:
    """Take the state dict out of its wrappings.

    Args:
        checkpoint (dict): A state dict, plain or under ``'state_dict'``, with
            or without ``'module.'`` before every name. CLIP alone, by
            OpenAI's or Hugging Face's names, gets ``'clip.'`` before them.

    Returns:
        dict[str, Tensor]: By the names of the release.

    Raises:
        TypeError: If it is no dict, or an entry is no tensor.
        ValueError: If it is empty.
    """
    content = checkpoint
    if isinstance(content, Mapping) and isinstance(
        content.get('state_dict'), Mapping
    ):
        content = content['state_dict']
    if not isinstance(content, Mapping):
        raise TypeError(
            'Expected a checkpoint with a state dict of tensors, but got a '
            f'{type(content).__name__}. Give the file of the weights.'
        )
    if not content:
        raise ValueError(
            'The state dict of the checkpoint is empty. Give the file of the '
            'weights, not that of the optimizer.'
        )
    wrong = [k for k, v in content.items() if not isinstance(v, Tensor)]
    if wrong:
        raise TypeError(
            'Expected a state dict of tensors, but these entries are none: '
            f'{name_some(wrong)}. Give the file of the weights, not that of '
            'the optimizer.'
        )
    prefix = 'module.'
    if all(name.startswith(prefix) for name in content):
        content = {name[len(prefix) :]: v for name, v in content.items()}
    if any(name in content for name in BARE_CLIP):
        content = {f'clip.{name}': value for name, value in content.items()}
    return dict(content)


def read_source(state_dict: Mapping[str, Tensor]) -> ReleaseSource:
    """Bring the names of a release to one form.

    Args:
        state_dict (dict[str, Tensor]): Of :func:`state_dict_of`.

    Returns:
        ReleaseSource: See there.

    Raises:
        ValueError: If two names of the file mean the same parameter, or a
            projection is incomplete.
    """
    source = ReleaseSource()
    clip = {n[5:]: v for n, v in state_dict.items() if n.startswith('clip.')}
    hugging_face = is_hugging_face(clip)
    for name, value in state_dict.items():
        if hugging_face and name.startswith('clip.'):
            continue
        match = SHIFTED.match(name)
        plain = name
        if match:
            source.shifted.add(int(match[2]))
            plain = f'{match[1]}.{name[match.end() :]}'
        if plain in source.tensors:
            raise ValueError(
                f'{source.origins[plain][0]} and {name} are the same '
                'parameter, so it is unclear which of them counts. Is the '
                'file made of two checkpoints?'
            )
        source.tensors[plain] = value
        source.origins[plain] = [name]
    if hugging_face:
        renamed = from_hugging_face(clip)
        for target, value in renamed.tensors.items():
            source.tensors[f'clip.{target}'] = value
            source.origins[f'clip.{target}'] = [
                f'clip.{name}' for name in renamed.origins[target]
            ]
        for name in renamed.unused:
            reason = 'the numbers 0, 1, 2 and so on, not learnt'
            source.dropped[f'clip.{name}'] = reason
        source.unknown += [f'clip.{name}' for name in renamed.unknown]
    return source

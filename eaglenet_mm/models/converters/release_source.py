"""Files of releases, read without executing them, and ours, written whole."""

from __future__ import annotations

import os.path as osp
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.models.converters.release_names import layers
from eaglenet_mm.models.encoders.clip_weights import (
    is_torchscript_archive,
    read_torchscript_tensors,
)
from eaglenet_mm.utils.durable_file import replace_durably
from eaglenet_mm.utils.name_lists import name_some
from eaglenet_mm.utils.safe_checkpoint import load_checkpoint_file

#: What the releases wrap the attention of a block in, to shift its tokens.
SHIFTED = re.compile(
    r'(clip\.visual\.transformer\.resblocks\.(\d+)\.attn)\.net\.'
)
BARE_CLIP = ('visual.conv1.weight', 'vision_model.embeddings.class_embedding')
#: Hugging Face's names of a ``CLIPModel``, and OpenAI's.
HUGGING_FACE = {
    'logit_scale': 'logit_scale',
    'text_projection.weight': 'text_projection',
    'visual_projection.weight': 'visual.proj',
    'text_model.embeddings.token_embedding.weight': 'token_embedding.weight',
    'text_model.embeddings.position_embedding.weight': 'positional_embedding',
    'vision_model.embeddings.class_embedding': 'visual.class_embedding',
    'vision_model.embeddings.patch_embedding.weight': 'visual.conv1.weight',
    'vision_model.embeddings.position_embedding.weight': (
        'visual.positional_embedding'
    ),
    # the second is spelt so there
    **layers("""
        text_model.final_layer_norm  ln_final
        vision_model.pre_layrnorm    visual.ln_pre
        vision_model.post_layernorm  visual.ln_post
    """),
}
HUGGING_FACE_BLOCK = layers("""
    self_attn.out_proj  attn.out_proj
    layer_norm1         ln_1
    layer_norm2         ln_2
    mlp.fc1             mlp.c_fc
    mlp.fc2             mlp.c_proj
""")
#: A Linear there, a matrix from the right with OpenAI.
TRANSPOSED = ('text_projection', 'visual.proj')


def read_release_file(path: str, trusted: bool = False) -> Any:
    """Read a checkpoint of a release, or OpenAI's archive of CLIP.

    Args:
        path (str): The file.
        trusted (bool): Read it as a plain pickle, which executes what the
            file says. Default: False.

    Returns:
        Any: What was saved; tensors by name for an archive.

    Raises:
        FileNotFoundError: If there is no such file.
        UnsafeCheckpointError: If the file holds more than the allowed kinds.
        ValueError: If the file is truncated or no checkpoint.
    """
    expanded = osp.expanduser(path)
    if osp.isfile(expanded) and is_torchscript_archive(expanded):
        return read_torchscript_tensors(expanded)
    return load_checkpoint_file(path, trusted=trusted)


def write_converted(
    path: str, state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Write a checkpoint at once, so that no part of one is left behind.

    Args:
        path (str): The file; its folder is made.
        state_dict (dict[str, Tensor]): By our names.
        meta (dict): Plain values that tell where it is from.
    """
    with replace_durably(path) as part:
        torch.save(dict(state_dict=dict(state_dict), meta=dict(meta)), part)


@dataclass
class ReleaseSource:
    """Tensors of a release, their names brought to one form."""

    #: Those of CLIP by OpenAI's names below ``clip.``.
    tensors: dict[str, Tensor] = field(default_factory=dict)
    #: Names in the file that each is made of.
    origins: dict[str, list[str]] = field(default_factory=dict)
    #: Names in the file that Hugging Face's CLIP does not have.
    unknown: list[str] = field(default_factory=list)
    #: Blocks of the image tower that shift tokens.
    shifted: set[int] = field(default_factory=set)

    def add(self, name: str, value: Tensor, *origins: str) -> None:
        """Take a tensor; refuse a second one of the same name."""
        if name in self.tensors:
            raise ValueError(
                f'{self.origins[name][0]} and {origins[0]} are the same '
                'parameter, so it is unclear which of them counts. Is the '
                'file made of two checkpoints?'
            )
        self.tensors[name] = value
        self.origins[name] = list(origins)


def read_source(checkpoint: Any) -> ReleaseSource:
    """Take the tensors out of a checkpoint of any form.

    The state dict may be plain or under ``'state_dict'``, with ``'module.'``
    before every name or without; CLIP may be alone, without ``'clip.'``, and
    have OpenAI's or Hugging Face's names.
    """
    state_dict = _state_dict_of(checkpoint)
    source = ReleaseSource()
    is_hugging_face = any(
        name.startswith(('clip.text_model.', 'clip.vision_model.'))
        for name in state_dict
    )
    thirds: dict[str, dict[str, str]] = {}
    for name, value in state_dict.items():
        if is_hugging_face and name.startswith('clip.'):
            target, third = _openai_name(name.removeprefix('clip.'))
            if target is None:
                source.unknown.append(name)
            elif third:
                thirds.setdefault(f'clip.{target}', {})[third] = name
            else:
                value = value.T if target in TRANSPOSED else value
                source.add(f'clip.{target}', value, name)
            continue
        match = SHIFTED.match(name)
        plain = name
        if match:
            source.shifted.add(int(match[2]))
            plain = f'{match[1]}.{name[match.end() :]}'
        source.add(plain, value, name)
    for target, found in thirds.items():
        if len(found) < 3:
            raise ValueError(
                f'{target} is made of the projections of queries, keys and '
                f'values, but the checkpoint has only '
                f'{name_some(sorted(found.values()))}. Is the file complete?'
            )
        origins = [found[part] for part in 'qkv']
        joined = torch.cat([state_dict[origin] for origin in origins])
        source.add(target, joined, *origins)
    return source


def _state_dict_of(checkpoint: Any) -> dict[str, Tensor]:
    """Take the state dict out of its wrappings."""
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
    if all(name.startswith('module.') for name in content):
        content = {k.removeprefix('module.'): v for k, v in content.items()}
    if any(name in content for name in BARE_CLIP):
        content = {f'clip.{name}': value for name, value in content.items()}
    return dict(content)


def _openai_name(name: str) -> tuple[str | None, str]:
    """OpenAI's name of Hugging Face's; q, k or v if it is that third of it."""
    block = re.fullmatch(
        r'(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)', name
    )
    if not block:
        return HUGGING_FACE.get(name), ''
    tower = {'text': 'transformer', 'vision': 'visual.transformer'}[block[1]]
    prefix = f'{tower}.resblocks.{block[2]}.'
    third = re.fullmatch(r'self_attn\.([qkv])_proj\.(weight|bias)', block[3])
    if third:
        return f'{prefix}attn.in_proj_{third[2]}', third[1]
    part = HUGGING_FACE_BLOCK.get(block[3])
    return (prefix + part if part else None), ''

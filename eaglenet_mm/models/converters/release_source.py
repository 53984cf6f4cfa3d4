"""Safe reading of release files, and writing of converted checkpoints."""

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

#: Attention of a block with token shift, which the releases wrap.
SHIFTED = re.compile(
    r'(clip\.visual\.transformer\.resblocks\.(\d+)\.attn)\.net\.'
)
BARE_CLIP = ('visual.conv1.weight', 'vision_model.embeddings.class_embedding')
#: Names of Hugging Face's ``CLIPModel`` and OpenAI's.
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
    # 'pre_layrnorm' is Hugging Face's spelling
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
#: Hugging Face's linear layers, which are plain matrices in OpenAI's CLIP.
TRANSPOSED = ('text_projection', 'visual.proj')


def read_release_file(path: str, trusted: bool = False) -> Any:
    """Read a release checkpoint, or OpenAI's TorchScript archive of CLIP.

    Args:
        path (str): Path of the file.
        trusted (bool): Read it as an ordinary pickle, which can execute code.
            Default: False.

    Returns:
        Any: The saved object; tensors by name for an archive.

    Raises:
        FileNotFoundError: If the file does not exist.
        UnsafeCheckpointError: If the file holds objects that are not allowed.
        ValueError: If the file is truncated or not a checkpoint.
    """
    expanded = osp.expanduser(path)
    if osp.isfile(expanded) and is_torchscript_archive(expanded):
        return read_torchscript_tensors(expanded)
    return load_checkpoint_file(path, trusted=trusted)


def write_converted(
    path: str, state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Write a converted checkpoint atomically.

    Args:
        path (str): Path of the file; its folder is created.
        state_dict (dict[str, Tensor]): Converted state dict.
        meta (dict): Plain values that document its origin.
    """
    with replace_durably(path) as part:
        torch.save(dict(state_dict=dict(state_dict), meta=dict(meta)), part)


@dataclass
class ReleaseSource:
    """Tensors of a release under canonical names."""

    #: By name; CLIP as named by OpenAI, with the prefix ``clip.``.
    tensors: dict[str, Tensor] = field(default_factory=dict)
    #: Original names of each tensor.
    origins: dict[str, list[str]] = field(default_factory=dict)
    #: Original names that Hugging Face's CLIP does not have.
    unknown: list[str] = field(default_factory=list)
    #: Blocks of the image tower with token shift.
    shifted: set[int] = field(default_factory=set)

    def add(self, name: str, value: Tensor, *origins: str) -> None:
        """Add a tensor; raise an error if the name exists."""
        if name in self.tensors:
            raise ValueError(
                f'{self.origins[name][0]} and {origins[0]} are the same '
                'parameter, so it is unclear which one to use. Does the file '
                'combine two checkpoints?'
            )
        self.tensors[name] = value
        self.origins[name] = list(origins)


def read_source(checkpoint: Any) -> ReleaseSource:
    """Read the tensors of a checkpoint of any supported layout.

    The state dict may be nested under ``'state_dict'``, and its names may
    have the prefix ``'module.'``. CLIP may stand alone, without ``'clip.'``,
    and be named as by OpenAI or Hugging Face.
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
    """Extract the state dict and normalise its prefixes."""
    content = checkpoint
    if isinstance(content, Mapping) and isinstance(
        content.get('state_dict'), Mapping
    ):
        content = content['state_dict']
    if not isinstance(content, Mapping):
        raise TypeError(
            'Expected a checkpoint with a state dict of tensors, but got a '
            f'{type(content).__name__}. Use the file with the weights.'
        )
    if not content:
        raise ValueError(
            'The state dict of the checkpoint is empty. Use the file with the '
            'weights, not that of the optimizer.'
        )
    wrong = [k for k, v in content.items() if not isinstance(v, Tensor)]
    if wrong:
        raise TypeError(
            'Expected a state dict of tensors, but these entries are not: '
            f'{name_some(wrong)}. Use the file with the weights, not that of '
            'the optimizer.'
        )
    if all(name.startswith('module.') for name in content):
        content = {k.removeprefix('module.'): v for k, v in content.items()}
    if any(name in content for name in BARE_CLIP):
        content = {f'clip.{name}': value for name, value in content.items()}
    return dict(content)


def _openai_name(name: str) -> tuple[str | None, str]:
    """OpenAI's name for Hugging Face's, and q, k or v if only that part."""
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

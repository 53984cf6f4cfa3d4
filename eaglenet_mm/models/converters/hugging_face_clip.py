"""Hugging Face's names of a CLIP model, turned into OpenAI's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eaglenet_mm.utils.name_lists import name_some

_BLOCK = r'(text|vision)_model\.encoder\.layers\.(\d+)\.'
_KIND = r'\.(weight|bias)'
#: Patterns that fit the whole name; a block is renamed below its number.
RULES = (
    (r'logit_scale', 'logit_scale'),
    (
        r'text_model\.embeddings\.token_embedding\.weight',
        'token_embedding.weight',
    ),
    (
        r'text_model\.embeddings\.position_embedding\.weight',
        'positional_embedding',
    ),
    (r'text_model\.final_layer_norm' + _KIND, r'ln_final.\1'),
    (r'text_projection\.weight', 'text_projection'),
    (
        r'vision_model\.embeddings\.class_embedding',
        'visual.class_embedding',
    ),
    (
        r'vision_model\.embeddings\.patch_embedding\.weight',
        'visual.conv1.weight',
    ),
    (
        r'vision_model\.embeddings\.position_embedding\.weight',
        'visual.positional_embedding',
    ),
    # spelt so by Hugging Face
    (r'vision_model\.pre_layrnorm' + _KIND, r'visual.ln_pre.\1'),
    (r'vision_model\.post_layernorm' + _KIND, r'visual.ln_post.\1'),
    (r'visual_projection\.weight', 'visual.proj'),
)
BLOCK_RULES = (
    (r'self_attn\.out_proj' + _KIND, r'attn.out_proj.\1'),
    (r'layer_norm([12])' + _KIND, r'ln_\1.\2'),
    (r'mlp\.fc1' + _KIND, r'mlp.c_fc.\1'),
    (r'mlp\.fc2' + _KIND, r'mlp.c_proj.\1'),
)
PROJECTION = re.compile(_BLOCK + r'self_attn\.([qkv])_proj' + _KIND)
#: A Linear there, a matrix from the right with OpenAI.
TRANSPOSED = ('text_projection', 'visual.proj')
POSITION_IDS = re.compile(r'(text|vision)_model\.embeddings\.position_ids')
TOWERS = {'text': 'transformer', 'vision': 'visual.transformer'}


@dataclass
class OpenAINames:
    """A CLIP model by OpenAI's names.

    Args:
        tensors (dict[str, Tensor]): By the names of OpenAI's model.
        origins (dict[str, list[str]]): The names each was made from.
        unused (list[str]): Indices of positions, which are no parameters.
        unknown (list[str]): Names that are not those of a CLIP model.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, list[str]] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def is_hugging_face(names: Mapping[str, object]) -> bool:
    """Tell whether these are the names of Hugging Face's ``CLIPModel``."""
    return any(
        name.startswith(('text_model.', 'vision_model.')) for name in names
    )


def from_hugging_face(state_dict: Mapping[str, Tensor]) -> OpenAINames:
    """Rename the parameters of a Hugging Face ``CLIPModel``.

    Queries, keys and values of a block become one matrix, in this order, and
    the two projections are transposed. Both models compute the same.

    Args:
        state_dict (dict[str, Tensor]): By Hugging Face's names.

    Returns:
        OpenAINames: See there.

    Raises:
        ValueError: If a block has not all of queries, keys and values.
    """
    result = OpenAINames()
    thirds: dict[str, dict[str, str]] = {}
    for name, value in state_dict.items():
        if POSITION_IDS.fullmatch(name):
            result.unused.append(name)
            continue
        match = PROJECTION.fullmatch(name)
        if match:
            tower, place, part, kind = match.groups()
            target = f'{TOWERS[tower]}.resblocks.{place}.attn.in_proj_{kind}'
            thirds.setdefault(target, {})[part] = name
            continue
        renamed = _rename(name)
        if renamed is None:
            result.unknown.append(name)
            continue
        result.tensors[renamed] = value.T if renamed in TRANSPOSED else value
        result.origins[renamed] = [name]
    for target, found in thirds.items():
        if len(found) < 3:
            raise ValueError(
                f'{target} is made of the projections of queries, keys and '
                f'values, but the checkpoint has only '
                f'{name_some(sorted(found.values()))}. Is the file complete?'
            )
        origins = [found[part] for part in 'qkv']
        result.tensors[target] = torch.cat([state_dict[o] for o in origins])
        result.origins[target] = origins
    return result


def _rename(name: str) -> str | None:
    """Rename what is one parameter in both models."""
    match = re.match(_BLOCK, name)
    prefix, rest = '', name
    rules: Sequence[tuple[str, str]] = RULES
    if match:
        prefix = f'{TOWERS[match[1]]}.resblocks.{match[2]}.'
        rules, rest = BLOCK_RULES, name[match.end() :]
    for pattern, target in rules:
        found = re.fullmatch(pattern, rest)
        if found:
            return prefix + found.expand(target)
    return None

"""Low-rank updates (LoRA) of the linear maps of CLIP's towers, by peft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

#: What is updated unless the config says otherwise: every linear map of the
#: blocks. That of queries, keys and values is a parameter, not a module.
TARGETS: dict[str, list[str]] = {
    'target_modules': ['out_proj', 'c_fc', 'c_proj'],
    'target_parameters': ['attn.in_proj_weight'],
}


def add_low_rank(
    tower: nn.Module, settings: Mapping[str, Any]
) -> dict[str, str]:
    """Let only low-rank updates of a tower learn.

    `LoRA <https://arxiv.org/abs/2106.09685>`_ as peft has it. All parameters
    of the tower are frozen. The updates start at zero, so features are those
    of the tower.

    Args:
        tower (nn.Module): A tower with blocks of ours, changed in place.
        settings (dict): Fields of peft's ``LoraConfig`` such as ``r`` and
            ``lora_alpha``. Without ``target_modules`` and
            ``target_parameters`` all linear maps of the blocks are updated:
            :data:`TARGETS`.

    Returns:
        dict[str, str]: The names that tensors of the tower had, and those
        they have now, where they differ.

    Raises:
        ImportError: If peft is not installed.
        ValueError: If peft takes no such settings or finds no target, or the
            whole attention is targeted.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora.layer import MultiheadAttention, ParamWrapper
    except ImportError as err:
        raise ImportError(
            f'lora needs the package peft, but: {err}. Install it with: '
            "pip install 'eaglenet_mm[lora]'."
        ) from err
    chosen = dict(settings)
    if not set(chosen) & set(TARGETS):
        chosen |= TARGETS
    before = tower.state_dict(keep_vars=True)
    names = {id(value): name for name, value in before.items()}
    try:
        inject_adapter_in_model(LoraConfig(**chosen), tower)
    except (TypeError, ValueError) as err:
        raise ValueError(
            f"lora={dict(settings)} must be fields of peft's LoraConfig that "
            f'fit the tower, but: {err}. Mend the setting.'
        ) from err
    if any(isinstance(part, MultiheadAttention) for part in tower.modules()):
        # it adds and takes away the update around every call, which changes
        # the frozen weights by roundings
        raise ValueError(
            "lora targets whole attentions ('attn'), whose frozen weights "
            "peft would change a little with every call. Target 'out_proj' "
            "in target_modules and 'attn.in_proj_weight' in "
            'target_parameters instead.'
        )
    for part in tower.modules():
        if isinstance(part, ParamWrapper):
            # peft registers it anew, as the last, in every call; a copy that
            # was never called, as EMA keeps one, must have the same order
            own = part.get_base_layer()._parameters
            own[part.parameter_name] = own.pop(part.parameter_name)
    return {
        names[id(value)]: name
        for name, value in tower.state_dict(keep_vars=True).items()
        if names.get(id(value), name) != name
    }

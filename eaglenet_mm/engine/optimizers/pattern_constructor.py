"""Parameter groups by name patterns."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from eaglenet_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

_RULE_KEYS = {'pattern', 'lr_mult', 'decay_mult'}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PatternOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    r"""Optimiser constructor with name patterns whose multipliers combine.

    A parameter gets the product of all rules that match its name. Differs
    from MMEngine's constructor: every matching rule counts, not only the
    longest key; rules are regular expressions; parameters with equal settings
    share one group instead of having one each; and a rule without a match is
    an error. Frozen parameters are left out.

    Args:
        optim_wrapper_cfg (dict): Config of the wrapper with its
            ``optimizer``.
        paramwise_cfg (dict, optional): ``dict(rules=[...])``. A rule is a
            dict of ``pattern`` (searched anywhere in the name, so anchor it
            if needed), ``lr_mult`` (default: 1) and ``decay_mult``
            (default: 1).

    Raises:
        ValueError: If a key is unknown, a pattern is missing, invalid or
            without a match, or there is no base value to multiply.

    Example:
        >>> paramwise_cfg = dict(rules=[
        ...     dict(pattern=r'^(text|video)_encoder\.', lr_mult=1e-3),
        ...     dict(pattern=r'bias', decay_mult=0.0)])
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        # not None: without paramwise_cfg MMEngine adds frozen parameters too
        super().__init__(optim_wrapper_cfg, paramwise_cfg or {'rules': []})

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        unknown = sorted(set(self.paramwise_cfg) - {'rules'})
        if unknown:
            raise ValueError(
                'paramwise_cfg of PatternOptimWrapperConstructor has one key, '
                f"'rules', but got {unknown}."
            )
        for number, rule in enumerate(self.paramwise_cfg.get('rules', [])):
            unknown = sorted(set(rule) - _RULE_KEYS)
            if unknown or 'pattern' not in rule:
                raise ValueError(
                    f"Rule {number} needs 'pattern' and may have 'lr_mult' "
                    f"and 'decay_mult', but has {sorted(rule)}."
                )
            try:
                re.compile(rule['pattern'])
            except re.error as err:
                raise ValueError(
                    f"Rule {number}: '{rule['pattern']}' is no regular "
                    f'expression: {err}.'
                ) from err
            for key, base, name in [
                ('lr_mult', self.base_lr, 'lr'),
                ('decay_mult', self.base_wd, 'weight_decay'),
            ]:
                if key in rule and base is None:
                    raise ValueError(
                        f"Rule {number} has '{key}', but the optimizer config "
                        f"sets no '{name}' to multiply. Set it."
                    )

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add a module's parameters to ``params``, grouped by their settings.

        Called by MMEngine.

        Raises:
            ValueError: If a pattern matches no parameter.
        """
        rules = self.paramwise_cfg.get('rules', [])
        named = {
            f'{prefix}.{name}' if prefix else name: param
            for name, param in module.named_parameters()
        }
        for rule in rules:
            if not any(re.search(rule['pattern'], name) for name in named):
                raise ValueError(_no_match(rule['pattern'], list(named)))
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for name, param in named.items():
            if not param.requires_grad:
                continue
            lr_mult = decay_mult = 1.0
            for rule in rules:
                if re.search(rule['pattern'], name):
                    lr_mult *= rule.get('lr_mult', 1.0)
                    decay_mult *= rule.get('decay_mult', 1.0)
            key = (lr_mult, decay_mult)
            groups.setdefault(key, {'params': []})['params'].append(param)
        for (lr_mult, decay_mult), group in groups.items():
            if self.base_lr is not None:
                group['lr'] = self.base_lr * lr_mult
            if self.base_wd is not None:
                group['weight_decay'] = self.base_wd * decay_mult
            size = sum(param.numel() for param in group['params'])
            settings = ', '.join(
                f'{key} {f"{group[key]:g}" if key in group else "default"}'
                for key in ('lr', 'weight_decay')
            )
            print_log(
                f'Parameter group {len(params)}: {len(group["params"])} '
                f'tensors, {size} values, {settings}',
                logger='current',
            )
            params.append(group)


def _no_match(pattern: str, names: list[str]) -> str:
    """Describe a pattern without a match, with the nearest names."""
    plain = re.sub(r'[\\^$]', '', pattern)
    near = get_close_matches(plain, names, n=3, cutoff=0.3)
    if not near:  # a pattern is often only a part of a name
        parts = sorted({part for name in names for part in name.split('.')})
        near = get_close_matches(plain, parts, n=3, cutoff=0.3)
    return (
        f"The pattern '{pattern}' matches none of the model's {len(names)} "
        f'parameters. Nearest names: {near or names[:3]}. Fix or remove the '
        'rule in paramwise_cfg.'
    )

"""Adam variant of BERT's first PyTorch port, standard in this field."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from eaglenet_mm.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class BertAdam(Optimizer):
    """Adam without bias correction, with decoupled decay and own clipping.

    For each parameter tensor separately::

        g <- g * min(1, max_grad_norm / (|g| + 1e-6))
        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        p <- p - lr (m / (sqrt(v) + eps) + weight_decay p)

    The learning rate is read from the parameter group and left to a parameter
    scheduler (:class:`~eaglenet_mm.engine.schedulers.WarmupCosineLR`). This is
    the only difference from the release, whose optimiser contains the schedule
    and counts the steps of each parameter; here the optimiser's steps count,
    which is the same if every parameter has a gradient in every step.

    Moments have the dtype of their parameter. For half-precision parameters
    this repeats the release, where small second moments underflow.

    Args:
        params (Iterable): Parameters, or dicts that define groups.
        lr (float): Learning rate.
        betas (tuple[float, float]): Decay rates of the two moments. Default:
            ``(0.9, 0.98)``.
        eps (float): Added to the root of the second moment. Default: 1e-6.
        weight_decay (float): Decoupled decay, multiplied by the learning rate.
            Default: 0.01.
        max_grad_norm (float, optional): Maximum gradient norm of a single
            parameter; the gradient is scaled in place. None or a value <= 0
            disables clipping. Default: 1.

    Raises:
        ValueError: If a hyper-parameter is out of range.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> BertAdam([weight], lr=1e-4, weight_decay=0.2).defaults['betas']
        (0.9, 0.98)
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float | None = 1.0,
    ) -> None:
        betas = (betas[0], betas[1])
        for name, value, wanted, fits in (
            ('lr', lr, 'be at least 0', lr >= 0),
            ('weight_decay', weight_decay, 'be at least 0', weight_decay >= 0),
            ('eps', eps, 'be above 0', eps > 0),
            ('betas', betas, 'lie in [0, 1)', all(0 <= b < 1 for b in betas)),
        ):
            if not fits:
                raise ValueError(
                    f"BertAdam's '{name}' must {wanted}, but got {value}."
                )
        defaults = dict(lr=lr, betas=betas, eps=eps)
        defaults |= dict(
            weight_decay=weight_decay, max_grad_norm=max_grad_norm
        )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure (Callable, optional): Recomputes the loss.

        Returns:
            Any: Result of the closure, or None.

        Raises:
            RuntimeError: If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            buckets: dict[tuple, list[Tensor]] = defaultdict(list)
            for param in group['params']:
                if param.grad is None:
                    continue
                if param.grad.is_sparse:
                    raise RuntimeError(
                        'BertAdam needs dense gradients, but got a sparse one '
                        f'of shape {tuple(param.shape)}. Build the embedding '
                        'with sparse=False.'
                    )
                buckets[param.device, param.dtype].append(param)
            for params in buckets.values():
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict) -> None:
        """Update parameters of one device and dtype together."""
        beta1, beta2 = group['betas']
        grads = [param.grad for param in params if param.grad is not None]
        if group['max_grad_norm'] is not None and group['max_grad_norm'] > 0:
            _clip_each(grads, group['max_grad_norm'])
        first, second = [], []
        for param in params:
            state = self.state[param]
            if not state:
                state['exp_avg'] = torch.zeros_like(param)
                state['exp_avg_sq'] = torch.zeros_like(param)
            first.append(state['exp_avg'])
            second.append(state['exp_avg_sq'])
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, grads, alpha=1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, value=1 - beta2)
        update = torch._foreach_sqrt(second)
        torch._foreach_add_(update, group['eps'])
        update = torch._foreach_div(first, update)
        if group['weight_decay'] > 0:
            torch._foreach_add_(update, params, alpha=group['weight_decay'])
        torch._foreach_add_(params, update, alpha=-group['lr'])


def _clip_each(grads: list[Tensor], max_norm: float) -> None:
    """Clip the norm of each gradient separately, in place."""
    factors = torch._foreach_norm(grads)
    torch._foreach_add_(factors, 1e-6)
    factors = torch._foreach_reciprocal(factors)
    torch._foreach_mul_(factors, max_norm)
    torch._foreach_clamp_max_(factors, 1.0)
    torch._foreach_mul_(grads, factors)

"""Mixed precision in bfloat16, also on CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner.amp import autocast
from torch import nn

from eaglenet_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Optimiser wrapper with bfloat16 autocast and without loss scaler.

    Works on CPU, unlike MMEngine's ``AmpOptimWrapper``. bfloat16 has the
    exponent range of float32, so no loss scaling is needed.

    Args:
        dtype (str or torch.dtype): Only ``'bfloat16'`` is supported. Default:
            ``'bfloat16'``.
        **kwargs (Any): See :class:`mmengine.optim.OptimWrapper`.

    Raises:
        ValueError: If ``dtype`` is not bfloat16.

    Example:
        >>> optim_wrapper = dict(type='AutocastOptimWrapper',
        ...                      optimizer=dict(type='BertAdam', lr=1e-4))
    """

    def __init__(
        self, dtype: str | torch.dtype = 'bfloat16', **kwargs: Any
    ) -> None:
        if dtype not in ('bfloat16', torch.bfloat16):
            raise ValueError(
                "AutocastOptimWrapper's 'dtype' must be 'bfloat16', but got "
                f'{dtype!r}. For float16 on a GPU use AmpOptimWrapper, which '
                'scales the loss; for float32 use OptimWrapper.'
            )
        super().__init__(**kwargs)
        self.cast_dtype = torch.bfloat16

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enable autocast within MMEngine's accumulation context."""
        with super().optim_context(model), autocast(dtype=self.cast_dtype):
            yield

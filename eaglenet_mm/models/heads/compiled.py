"""``torch.compile`` with a way back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor


class CompiledScore:
    """A scoring function under ``torch.compile``, or as it is.

    What the compiler raises while it builds (no C++ compiler, no Triton, an
    operation it does not know) is logged once, and from then on the function
    runs as it is. So does a call that needs a gradient: the backward pass of
    the graph is written out, and gains nothing.

    Args:
        function (Callable): Scores prepared sides.
        backend (str | Callable): Of ``torch.compile``. Default:
            ``'inductor'``.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        backend: str | Callable = 'inductor',
    ) -> None:
        self.function = function
        self.compiled: Callable[..., Tensor] | None = torch.compile(
            function, dynamic=True, backend=backend
        )

    def __call__(self, *args: Any) -> Tensor:
        """Score, compiled if that is possible."""
        if self.compiled is None or torch.is_grad_enabled():
            return self.function(*args)
        try:
            return self.compiled(*args)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - of many kinds
            # what is wrong with the arguments is raised again below
            scores = self.function(*args)
            self.compiled = None
            print_log(
                'torch.compile failed, scoring goes on without it: '
                f'{type(error).__name__}: {str(error).splitlines()[0]}',
                logger='current',
                level=logging.WARNING,
            )
            return scores

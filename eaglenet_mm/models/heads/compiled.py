"""``torch.compile`` with a way back."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor


class CompiledScore:
    """A scoring function under ``torch.compile``, or as it is.

    It is compiled at the first call. What the compiler raises (no C++
    compiler, no Triton, a Python it does not support, an operation it does
    not know) is logged once, and from then on the function runs as it is. So
    does a call that needs a gradient: the backward pass of the graph is
    written out, and gains nothing.

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
        self.backend = backend
        self.compiled: Callable[..., Tensor] | None = None
        self.has_failed = False

    def __deepcopy__(self, memo: dict) -> CompiledScore:
        """Copy without what is compiled, which is bound to the first head."""
        copied = CompiledScore(
            copy.deepcopy(self.function, memo), self.backend
        )
        copied.has_failed = self.has_failed
        return copied

    def __call__(self, *args: Any) -> Tensor:
        """Score, compiled if that is possible."""
        if self.has_failed or torch.is_grad_enabled():
            return self.function(*args)
        try:
            if self.compiled is None:
                self.compiled = torch.compile(
                    self.function, dynamic=True, backend=self.backend
                )
            return self.compiled(*args)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - of many kinds
            # what is wrong with the arguments is raised again below
            scores = self.function(*args)
            self.compiled = None
            self.has_failed = True
            print_log(
                'torch.compile failed, scoring goes on without it: '
                f'{type(error).__name__}: {str(error).splitlines()[0]}',
                logger='current',
                level=logging.WARNING,
            )
            return scores

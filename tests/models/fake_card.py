"""Tensors that say they lie on a GPU, for machines that have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CARD = torch.device('cuda', 0)
#: Moves between devices.
COPIES = ('aten::copy_', 'aten::_to_copy')
#: Take indices of the CPU for tensors of a GPU.
INDEXING = ('aten::index', 'aten::index_put', 'aten::index_put_',
            'aten::_unsafe_index', 'aten::_unsafe_index_put')  # fmt: skip
#: In a backward pass C++ fills in zeros for what got no gradient.
FILLING = ('aten::stack',)


class DeviceMismatchError(RuntimeError):
    """What CUDA would raise where tensors of two devices meet."""


class OnCard(Tensor):
    """A tensor of the CPU that says it lies on a GPU.

    Operations compute on the CPU, so values are real and may be looked at.
    As on CUDA, an operation with a tensor of the CPU is an error, unless that
    is a number (no axes), an index or a copy.
    """

    values: Tensor
    device = CARD  # type: ignore[assignment]
    is_cuda = True  # type: ignore[assignment]
    is_cpu = False  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> OnCard:
        # of the same memory, so that C++ sees which tensors overlap
        own = Tensor._make_subclass(cls, values)
        own.values = values
        return own

    @classmethod
    def __torch_dispatch__(
        cls,
        func: Any,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        _refuse_strangers(func, args, kwargs)
        known = {
            id(x.values): x
            for x in tree_leaves((args, kwargs))
            if isinstance(x, OnCard)
        }
        out = func(*unload(args), **unload(kwargs))
        # what is written to keeps its identity
        return tree_map(
            lambda x: known[id(x)] if id(x) in known else _load(x), out
        )


def _refuse_strangers(func: Any, args: tuple, kwargs: dict) -> None:
    name = func._schema.name
    if name in COPIES or (name in FILLING and _in_backward()):
        return
    checked: Any = (args, kwargs)
    if name in INDEXING:
        checked = (args[0], *args[2:], kwargs)
    strangers = [
        tuple(x.shape)
        for x in tree_leaves(checked)
        if isinstance(x, Tensor) and not isinstance(x, OnCard) and x.dim()
    ]
    if strangers:
        raise DeviceMismatchError(
            f'{name} of tensors on {CARD} got some on the CPU, of shape '
            f'{strangers}.'
        )


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() >= 0


def _load(x: Any) -> Any:
    return OnCard(x) if isinstance(x, Tensor) else x


def unload(tree: Any) -> Any:
    """Give the tensors of the CPU behind those on the card."""
    return tree_map(lambda x: x.values if isinstance(x, OnCard) else x, tree)


def _is_card(device: Any) -> bool:
    if isinstance(device, Tensor):
        return isinstance(device, OnCard)
    if isinstance(device, str | torch.device):
        return torch.device(device).type == 'cuda'
    return False


class FakeCard(TorchFunctionMode):
    """Make and move tensors on a card that does not exist.

    Autograd, and all that looks at tensors from C++, sees the CPU. What needs
    a CUDA context (streams, generators, autocast of CUDA) is not there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: list[bool] = []

    def __enter__(self) -> FakeCard:
        # a parameter cannot take data of another class
        future = torch.__future__
        self.before.append(future.get_overwrite_module_params_on_conversion())
        future.set_overwrite_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.__future__.set_overwrite_module_params_on_conversion(
            self.before.pop()
        )
        super().__exit__(*error)

    def __torch_function__(
        self,
        func: Callable,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.tolist, Tensor.cpu):
            return func(unload(args[0].detach()))
        if func is Tensor.cuda:
            return _load(args[0].detach())
        if func is Tensor.numpy and isinstance(args[0], OnCard):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is Tensor.backward:
            return self._backward(*args)
        if func is Tensor.to:
            return self._move(*args, **kwargs)
        if _is_card(kwargs.get('device')):
            made = func(*args, **{**kwargs, 'device': 'cpu'})
            return _load(made.detach()).requires_grad_(made.requires_grad)
        return func(*args, **kwargs)

    def _backward(self, root: Tensor) -> None:
        """Run a backward pass in which the card is there."""
        with self:  # chunks are computed again
            torch.autograd.Variable._execution_engine.run_backward(
                (root,),
                (torch.ones_like(root),),
                False,
                False,
                (),
                allow_unreachable=True,
                accumulate_grad=True,
            )

    @staticmethod
    def _move(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Change device, type or both."""
        targets = [
            value
            for value in (*args, *kwargs.values())
            if isinstance(value, str | torch.device | Tensor)
        ]
        on_cpu = tree_map(
            lambda value: (
                'cpu' if isinstance(value, str | torch.device) else value
            ),
            (args, kwargs),
        )
        moved = x.to(*on_cpu[0], **on_cpu[1])
        if not targets or _is_card(targets[0]) == isinstance(x, OnCard):
            return moved
        moved = moved.detach()
        return _load(moved) if _is_card(targets[0]) else unload(moved)

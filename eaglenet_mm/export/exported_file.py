"""ONNX and ``torch.export`` files, verified after writing."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.export import ExportedProgram

from eaglenet_mm.export.program import (
    Parity,
    Program,
    check_parity,
    flatten,
    trace,
)
from eaglenet_mm.models.encoders.backbones import require_package
from eaglenet_mm.utils.durable_file import replace_durably
from eaglenet_mm.version import __version__

EXTRA = 'eaglenet_mm[export]'
#: Weights beyond this go to a separate file: ONNX files are limited to 2 GB,
#: graph included.
EMBEDDED_BYTES = 2**31 - 2**26
#: Name of the metadata inside a ``torch.export`` file.
METADATA = 'metadata.json'


@dataclass(frozen=True)
class ExportedFile:
    """Description of an exported program.

    Args:
        path (Path): The file.
        format (str): ``'onnx'`` or ``'torch.export'``.
        inputs (dict): ``dtype`` and ``shape`` by name; dynamic sizes are
            given by name.
        outputs (dict): Likewise.
        metadata (dict): Metadata stored in the file.
        parity (Parity, optional): Difference from the model; None if it was
            not measured.
        seconds (float): Time for tracing, writing and verification.
        sha256 (dict): Hash of the file, and of its separate weights if any, by
            file name.
        num_bytes (int): Total size of these files.
    """

    path: Path
    format: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    metadata: dict[str, Any]
    parity: Parity | None
    seconds: float
    sha256: dict[str, str]
    num_bytes: int


def write_program(
    program: Program,
    path: Path,
    format: str,  # noqa: A002  as the field
    metadata: Mapping[str, Any],
    tolerance: float,
) -> ExportedFile:
    """Trace a program, write it, and compare the file with the model.

    ONNX weights above 2 GB go to a second file with suffix ``.data``. If
    anything fails, no file is left.
    """
    if format == 'onnx':
        for package in ('onnx', 'onnxscript'):
            require_package(package, 'Export to ONNX', EXTRA)
    save = _save_onnx if format == 'onnx' else _save_torch
    start = time.perf_counter()
    metadata = dict(eaglenet_mm_version=__version__, **metadata)
    with staged(path.parent) as folder:
        exported, program = trace(program)
        run = save(exported, program, folder / path.name, metadata)
        parity = run and check_parity(program, run, tolerance)
        files = sorted(folder.iterdir())
        sha256 = {file.name: hash_file(file) for file in files}
        num_bytes = sum(file.stat().st_size for file in files)
    inputs, outputs = program.describe()
    return ExportedFile(
        path,
        format,
        inputs,
        outputs,
        metadata,
        parity,
        time.perf_counter() - start,
        sha256,
        num_bytes,
    )


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files move to another on success."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inner = Path(tempfile.mkdtemp(prefix='.export-', dir=folder))
    except OSError as err:
        raise OSError(
            f'The export needs a writable folder, but {folder} is not '
            f'({err}). Choose another folder.'
        ) from err
    try:
        yield inner
        # move weights (.data) before their model and a summary (.json) last,
        # since readers look for the model and the summary
        order = {'.data': 0, '.json': 2}
        for path in sorted(
            inner.iterdir(), key=lambda x: (order.get(x.suffix, 1), x.name)
        ):
            with replace_durably(folder / path.name) as part:
                os.replace(path, part)
    finally:
        shutil.rmtree(inner, ignore_errors=True)


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 hash of a file."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


Run = Callable[[tuple[Any, ...]], list[Tensor]]


def _save_torch(
    exported: ExportedProgram,
    program: Program,
    path: Path,
    metadata: Mapping[str, Any],
) -> Run:
    """Write a ``torch.export`` file; return a function that runs it."""
    for node in _nodes(exported):
        node.meta.pop('stack_trace', None)  # contains local paths
    torch.export.save(
        exported, path, extra_files={METADATA: json.dumps(metadata)}
    )
    loaded = torch.export.load(path).module()

    @torch.no_grad()
    def run(arguments: tuple[Any, ...]) -> list[Tensor]:
        return flatten(loaded(*arguments))

    return run


def _save_onnx(
    exported: ExportedProgram,
    program: Program,
    path: Path,
    metadata: Mapping[str, Any],
) -> Run | None:
    """Write an ONNX file; return a function that runs it, if possible."""
    graph = torch.onnx.export(
        suited_to_onnx(exported),
        dynamo=True,
        verbose=False,
        input_names=list(program.input_names),
        output_names=list(program.output_names),
    )
    if graph is None:  # only if torch writes the file itself
        raise RuntimeError('torch.onnx.export returned no program.')
    tidy_up(graph.model, program.flat_axes())
    graph.model.metadata_props.update(
        {key: json.dumps(value) for key, value in metadata.items()}
    )
    weights = [*exported.state_dict.values(), *exported.constants.values()]
    size = sum(x.nbytes for x in weights if isinstance(x, Tensor))
    graph.save(path, external_data=size > EMBEDDED_BYTES)
    if find_spec('onnxruntime') is None:
        print_log(
            f'{path.name} was not compared with the model because onnxruntime '
            f"is not installed. Install it with: pip install '{EXTRA}'.",
            logger='current',
            level=logging.WARNING,
        )
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider']
    )
    names = [node.name for node in session.get_inputs()]

    def run(arguments: tuple[Any, ...]) -> list[Tensor]:
        tensors = [x.cpu().numpy() for x in flatten(arguments)]
        feed = dict(zip(names, tensors, strict=True))
        return [torch.from_numpy(x) for x in session.run(None, feed)]

    return run


def tidy_up(model: Any, axes: Sequence[Mapping[int, str]]) -> None:
    """Name the dynamic sizes of an ``onnx_ir`` model after its input axes.

    Also removes the source locations noted by the tracer.
    """
    names: dict[str, str] = {}
    for value, open_axes in zip(model.graph.inputs, axes, strict=True):
        for axis, name in open_axes.items():
            names[str(value.shape[axis])] = name
    symbol = re.compile('|'.join(rf'\b{re.escape(x)}\b' for x in names) or '$')
    values = [*model.graph.inputs, *model.graph.outputs]
    for node in model.graph.all_nodes():
        values += node.outputs
        node.metadata_props.clear()  # source lines with local paths
    for value in values:
        for axis, length in enumerate(value.shape or ()):
            # an unknown size must stay unnamed: equal names mean equal sizes
            if not isinstance(length, int) and length.value is not None:
                value.shape[axis] = symbol.sub(
                    lambda match: names.get(match[0], match[0]), length.value
                )


def suited_to_onnx(exported: ExportedProgram) -> ExportedProgram:
    """Replace operations that torch 2.14 converts wrongly or slowly to ONNX.

    ``copy_`` broadcasts a smaller tensor, but its conversion does not. Writing
    to a slice becomes a scatter with an index per element, several times
    slower than concatenation.
    """
    aten = torch.ops.aten
    targets = {node.target for node in _nodes(exported)}
    if not targets & {aten.copy_.default, aten.copy.default}:
        return exported
    return exported.run_decompositions(
        {
            aten.copy.default: _copy,
            aten.select_scatter.default: _select_scatter,
            aten.slice_scatter.default: _slice_scatter,
        }
    )


def _nodes(exported: ExportedProgram) -> Iterator[torch.fx.Node]:
    for module in exported.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield from module.graph.nodes


def _copy(
    target: Tensor, source: Tensor, non_blocking: bool = False
) -> Tensor:
    return source.to(target.dtype).expand(target.shape).clone()


def _select_scatter(
    target: Tensor, source: Tensor, dim: int, index: int
) -> Tensor:
    return _slice_scatter(target, source.unsqueeze(dim), dim, index)


def _slice_scatter(
    target: Tensor,
    source: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    if step != 1:
        return NotImplemented  # torch keeps the operation
    length, first = target.shape[dim], start or 0
    first = first + length if first < 0 else first
    behind = first + source.shape[dim]
    parts = [
        target.narrow(dim, 0, first),
        source,
        target.narrow(dim, behind, length - behind),
    ]
    return torch.cat([part for part in parts if part.shape[dim]], dim)

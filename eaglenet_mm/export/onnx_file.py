"""Programs as ONNX files, checked in onnxruntime."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from eaglenet_mm.models.encoders.backbones import require_package

from .exported_file import ExportedFile, hash_file, staged
from .parity import Parity, check_parity
from .program import Program, flatten
from .tracing import suited_to_onnx, trace

EXTRA = 'eaglenet_mm[export]'
#: Weights beyond this lie in a file of their own: an ONNX file ends at 2 GB,
#: and its graph takes some too.
EMBEDDED_BYTES = 2**31 - 2**26


def write_onnx(
    program: Program,
    path: Path,
    metadata: Mapping[str, Any],
    tolerance: float,
) -> ExportedFile:
    """Write a program as an ONNX file, and check it.

    Args:
        program (Program): On the CPU, in float32.
        path (Path): The file. Weights above 2 GB go to a second one beside
            it, whose name ends with ``.data``.
        metadata (dict): Stored in the file, values as JSON.
        tolerance (float): See :func:`~.parity.check_parity`.

    Returns:
        ExportedFile: What was written.

    Raises:
        ImportError: If onnx or onnxscript is not installed. Without
            onnxruntime the file is written unchecked, which is logged.
        OSError: If the folder cannot be written to.
        ValueError: If the program cannot be exported, or the file computes
            something else. Then no file is left.
    """
    for package in ('onnx', 'onnxscript'):
        require_package(package, 'Export to ONNX', EXTRA)
    start = time.perf_counter()
    exported, program = trace(program)
    graph = torch.onnx.export(
        suited_to_onnx(exported),
        dynamo=True,
        verbose=False,
        input_names=list(program.input_names),
        output_names=list(program.output_names),
    )
    if graph is None:  # only where a file is written at once
        raise RuntimeError('torch.onnx.export gave no program.')
    tidy_up(graph.model, program.flat_axes())
    graph.model.metadata_props.update(
        {key: json.dumps(value) for key, value in metadata.items()}
    )
    weights = [*exported.state_dict.values(), *exported.constants.values()]
    size = sum(x.nbytes for x in weights if isinstance(x, Tensor))
    with staged(path.parent) as folder:
        graph.save(folder / path.name, external_data=size > EMBEDDED_BYTES)
        parity = _check(program, folder / path.name, tolerance)
        files = sorted(folder.iterdir())
        sha256 = {file.name: hash_file(file) for file in files}
        num_bytes = sum(file.stat().st_size for file in files)
    inputs, outputs = program.describe()
    return ExportedFile(
        path,
        'onnx',
        inputs,
        outputs,
        dict(metadata),
        parity,
        time.perf_counter() - start,
        sha256,
        num_bytes,
    )


def onnx_runner(path: Path) -> Callable[[tuple[Any, ...]], list[Tensor]]:
    """Load a file into onnxruntime, on the CPU.

    Args:
        path (Path): The file.

    Returns:
        Callable: From the arguments of the program to its outputs.
    """
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


def _check(program: Program, path: Path, tolerance: float) -> Parity | None:
    if find_spec('onnxruntime') is None:
        print_log(
            f'{path.name} was not compared with the model, since onnxruntime '
            f"is not installed. Install it with: pip install '{EXTRA}'.",
            logger='current',
            level=logging.WARNING,
        )
        return None
    return check_parity(program, onnx_runner(path), tolerance)


def tidy_up(model: Any, axes: Sequence[Mapping[int, str]]) -> None:
    """Put the names of open sizes in place of the tracer's symbols.

    And leave out what the tracer notes of the source of each operation.

    Args:
        model (onnx_ir.Model): Changed in place.
        axes (Sequence[dict]): For each input, the names of its open axes.
    """
    names: dict[str, str] = {}
    for value, open_axes in zip(model.graph.inputs, axes, strict=True):
        for axis, name in open_axes.items():
            names[str(value.shape[axis])] = name
    symbol = re.compile('|'.join(rf'\b{re.escape(x)}\b' for x in names) or '$')
    values = [*model.graph.inputs, *model.graph.outputs]
    for node in model.graph.all_nodes():
        values += node.outputs
        node.metadata_props.clear()  # lines of source, with local paths
    for value in values:
        for axis, length in enumerate(value.shape or ()):
            # one that nobody knows has no name, and must not get one: equal
            # names are taken for equal sizes
            if not isinstance(length, int) and length.value is not None:
                value.shape[axis] = symbol.sub(
                    lambda match: names.get(match[0], match[0]), length.value
                )

"""Programs as files of ``torch.export``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .exported_file import ExportedFile, hash_file, staged
from .parity import check_parity
from .program import Program, flatten
from .tracing import trace

#: Name of the metadata inside of a file.
METADATA = 'metadata.json'


def write_torch(
    program: Program,
    path: Path,
    metadata: Mapping[str, Any],
    tolerance: float,
) -> ExportedFile:
    """Write a program by ``torch.export.save``, load it again and check it.

    Args:
        program (Program): On the device it is to run on.
        path (Path): The file, ``.pt2``.
        metadata (dict): Stored in the file, as JSON under ``metadata.json``.
        tolerance (float): See :func:`~.parity.check_parity`.

    Returns:
        ExportedFile: What was written.

    Raises:
        OSError: If the folder cannot be written to.
        ValueError: If the program cannot be exported, or the file computes
            something else. Then no file is left.
    """
    start = time.perf_counter()
    exported, program = trace(program)
    for module in exported.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop('stack_trace', None)  # has local paths
    with staged(path.parent) as folder:
        part = folder / path.name
        torch.export.save(
            exported, part, extra_files={METADATA: json.dumps(metadata)}
        )
        loaded = torch.export.load(part).module()
        with torch.no_grad():
            parity = check_parity(
                program, lambda x: flatten(loaded(*x)), tolerance
            )
        sha256 = {path.name: hash_file(part)}
        num_bytes = part.stat().st_size
    inputs, outputs = program.describe()
    return ExportedFile(
        path,
        'torch.export',
        inputs,
        outputs,
        dict(metadata),
        parity,
        time.perf_counter() - start,
        sha256,
        num_bytes,
    )

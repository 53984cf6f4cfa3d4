"""Tables to read, JSON to keep, and on what was measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Say on what was measured."""
    about: dict[str, Any] = dict(
        processor=_processor_name(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        python=platform.python_version(),
        device=str(device),
    )
    if device.type == 'cuda':
        about.update(
            gpu=torch.cuda.get_device_name(device),
            cuda=torch.version.cuda,
        )
    return about


def _processor_name() -> str:
    """Name of the processor, as Linux states it."""
    file = Path('/proc/cpuinfo')
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [x.split(':')[1] for x in lines if x.startswith('model name')]
    return names[0].strip() if names else platform.processor()


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with equal keys as a table in Markdown."""
    print(f'\n{title}\n\n{markdown_table(rows)}', flush=True)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows with equal keys as a table in Markdown."""
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        ' | '.join(x.rjust(w) for x, w in zip(row, widths, strict=True))
        for row in cells
    ]
    lines.insert(1, ' | '.join('-' * (w - 1) + ':' for w in widths))
    return '\n'.join(f'| {line} |' for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 1000:
        return f'{value:.0f}'
    return (
        f'{value:.3g}' if not value or abs(value) >= 1e-3 else f'{value:.1e}'
    )


def write_report(
    args: argparse.Namespace, machine: Mapping[str, Any], **results: Any
) -> None:
    """Write the result as JSON, if a file was named.

    Args:
        args (argparse.Namespace): All options; they are written too.
        machine (Mapping): Of :func:`describe_machine`.
        **results (Any): What was measured.
    """
    if args.json is None:
        return
    options = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(args).items()
    }
    report = dict(
        benchmark=Path(sys.argv[0]).stem,
        machine=dict(machine),
        options=options,
        **results,
    )
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2) + '\n')


def print_machine(machine: Mapping[str, Any]) -> None:
    """Print on what is measured."""
    print(', '.join(f'{key} {value}' for key, value in machine.items()))

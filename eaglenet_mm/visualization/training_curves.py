"""Training curves of a checkpoint, from the log of its run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from eaglenet_mm.visualization.results_data import Curves

_RECALLS = ('t2v/R1', 'v2t/R1')
#: Maximum number of points of a curve; longer ones are thinned out.
_MAX_POINTS = 400


def read_curves(checkpoint: str | None) -> Curves:
    """Read loss and R@1 of the run that wrote a checkpoint.

    MMEngine writes ``<work dir>/<time>/vis_data/scalars.json``, one record per
    line, and checkpoints into the work directory. A resumed run writes another
    file, which replaces earlier records of the same iterations. Without a log
    there are no curves, and the note says why.
    """
    if not checkpoint:
        return Curves(
            note='No training log: the model was tested as it was initialised.'
        )
    if '://' in checkpoint:
        return Curves(note='No training log: the checkpoint is a URL.')
    folder = Path(checkpoint).expanduser().parent
    files = sorted(folder.glob('*/vis_data/scalars.json'))
    losses: dict[str, dict[int, float]] = {}
    recalls: dict[str, dict[int, float]] = {}
    for path in files:
        _add_run(path, losses, recalls)
    if not losses and not recalls:
        return Curves(
            note='No training log: no */vis_data/scalars.json with a loss '
            f'lies beside the checkpoint, in {folder}.'
        )
    runs = 'one run' if len(files) == 1 else f'{len(files)} runs'
    return Curves(
        losses={name: _thin(points) for name, points in losses.items()},
        recalls={name: _thin(points) for name, points in recalls.items()},
        note=f'From the log of {runs} in {folder}.',
    )


def _add_run(
    path: Path,
    losses: dict[str, dict[int, float]],
    recalls: dict[str, dict[int, float]],
) -> None:
    """Add the records of a file, iteration -> value."""
    iteration: int | None = None
    for record in _records(path):
        if 'loss' in record and isinstance(record.get('iter'), int):
            if iteration is None:  # a resumed run overwrites later points
                for points in [*losses.values(), *recalls.values()]:
                    for later in [x for x in points if x >= record['iter']]:
                        del points[later]
            iteration = record['iter']
            found = {key: losses for key in record if 'loss' in key}
        elif iteration is not None:
            # a validation record: its own step may count epochs
            found = dict.fromkeys(_RECALLS, recalls)
        else:
            continue
        for key, curves in found.items():
            value = record.get(key)
            if isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(key, {})[iteration] = float(value)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Read complete lines; the last may be truncated."""
    with suppress(OSError):
        for line in path.read_text('utf-8', errors='replace').splitlines():
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    yield record


def _thin(points: dict[int, float]) -> list[list[float]]:
    """Keep the first, the last and evenly spread points in between."""
    ordered = [
        [float(x), float(f'{y:.5g}')] for x, y in sorted(points.items())
    ]
    if len(ordered) <= _MAX_POINTS:
        return ordered
    last = len(ordered) - 1
    return [
        ordered[place * last // (_MAX_POINTS - 1)]
        for place in range(_MAX_POINTS)
    ]

"""Golden data: where they lie, and the report of relative errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_REPORT = pytest.StashKey[list]()


@pytest.fixture(scope='session')
def golden_dir(request: pytest.FixtureRequest) -> Path:
    return find_golden_dir(request.config)


def find_golden_dir(config: pytest.Config) -> Path:
    """Folder given on the command line, else shared data, else excerpts."""
    given = config.getoption('--golden-dir')
    if given is not None:
        if not given.is_dir():
            raise pytest.UsageError(f'--golden-dir: {given} is no folder')
        return given
    shared = REPOSITORY.parent / 'shared' / 'golden'
    return shared if shared.is_dir() else REPOSITORY / 'tests/data/golden'


def to_numpy(value: Any) -> np.ndarray:
    """Tensor, array or number as a float64 array."""
    if hasattr(value, 'detach'):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=np.float64)


@pytest.fixture
def golden_report(request: pytest.FixtureRequest) -> Callable[..., float]:
    """Compare with a golden array and note the relative error.

    The error is the largest difference over the largest magnitude of the
    golden array, or over ``scale`` where that is given.
    """
    rows = request.config.stash.setdefault(_REPORT, [])

    def compare(
        name: str,
        got: Any,
        expected: Any,
        tolerance: float,
        scale: float | None = None,
    ) -> float:
        got, expected = to_numpy(got), to_numpy(expected)
        assert got.shape == expected.shape, (
            f'{name}: shape {got.shape}, golden {expected.shape}'
        )
        if scale is None:
            scale = float(np.abs(expected).max(initial=0.0))
        if expected.size == 0:
            return 0.0
        if not np.isfinite(got).all():
            raise AssertionError(f'{name}: non-finite values')
        difference = float(np.abs(got - expected).max(initial=0.0))
        error = difference / scale if scale > 0 else difference
        rows.append((name, error, tolerance))
        assert error <= tolerance, (
            f'{name}: relative error {error:.3g} above {tolerance:.0e}'
        )
        return error

    return compare


def pytest_terminal_summary(
    terminalreporter: Any, config: pytest.Config
) -> None:
    """Print the largest relative error of every golden array."""
    rows = config.stash.get(_REPORT, [])
    if not rows:
        return
    largest: dict[str, tuple[float, float]] = {}
    for name, error, tolerance in rows:
        if error >= largest.get(name, (-1.0, 0.0))[0]:
            largest[name] = (error, tolerance)
    terminalreporter.section('golden: largest relative error of each array')
    for name, (error, tolerance) in largest.items():
        terminalreporter.line(f'{error:9.2e}  (<= {tolerance:.0e})  {name}')
    worst = max(largest.items(), key=lambda item: item[1][0])
    terminalreporter.line(
        f'{len(largest)} arrays; largest {worst[1][0]:.2e} at {worst[0]}'
    )

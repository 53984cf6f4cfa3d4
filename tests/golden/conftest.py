"""Golden data: where they lie, and the report of relative errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
_FAILURES = pytest.StashKey[list[str]]()


@pytest.fixture(autouse=True)
def _compute_on_device(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put what the tests read and build where ``--device`` says."""
    monkeypatch.setattr('tests.golden.cases.DEVICE', device)


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
    golden array, or over ``scale`` where that is given. ``double`` is the
    same array of the release's float64 run; what agrees with that one is
    right as well, since float32 can leave the release itself off (a ReLU near
    zero takes the other side, a sum cancels). A test compares all its arrays
    before it fails.
    """
    failures = request.node.stash.setdefault(_FAILURES, [])

    def compare(
        name: str,
        got: Any,
        expected: Any,
        tolerance: float,
        scale: float | None = None,
        double: Any = None,
    ) -> float:
        got, expected = to_numpy(got), to_numpy(expected)
        if got.shape != expected.shape:
            failures.append(f'{name}: shape {got.shape}, not {expected.shape}')
            return float('inf')
        if expected.size == 0:
            return 0.0
        if scale is None:
            scale = float(np.abs(expected).max())
        scale = scale or 1.0
        error = float(np.abs(got - expected).max()) / scale
        if double is not None:
            exact = float(np.abs(got - to_numpy(double)).max()) / scale
            error = min(error, exact)
        row = (name, float(error), float(tolerance))
        request.node.user_properties.append(('golden', row))
        if not error <= tolerance:  # also where it is not a number
            failures.append(
                f'{name}: relative error {error:.3g} above {tolerance:.1e}'
            )
        return error

    return compare


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Fail a test with all its golden arrays that are off."""
    outcome = yield
    failures = pyfuncitem.stash.get(_FAILURES, [])
    if failures and outcome.excinfo is None:
        message = f'{len(failures)} golden arrays are off:\n'
        outcome.force_exception(AssertionError(message + '\n'.join(failures)))

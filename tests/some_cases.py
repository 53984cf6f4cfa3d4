"""Some cases of a kind by default, the others with ``--all``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_nightly(cases: Iterable[Any], kept: int = 1) -> list[Any]:
    """Mark all but the first cases as nightly."""
    return [
        case
        if number < kept
        else pytest.param(case, marks=pytest.mark.nightly)
        for number, case in enumerate(cases)
    ]

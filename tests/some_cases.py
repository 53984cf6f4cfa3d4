"""Some cases of a kind by default, the others with ``--all``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_nightly(
    cases: Iterable[Any], *daily: Any, kept: int = 1
) -> list[Any]:
    """Mark all cases as nightly but the named ones, or but the first ones."""
    return [
        case
        if (case in daily if daily else number < kept)
        else pytest.param(case, marks=pytest.mark.nightly)
        for number, case in enumerate(cases)
    ]

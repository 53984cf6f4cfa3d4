"""Which backends the machine that tests has."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest

from eaglenet_mm.datasets.video_readers import (
    DecordReader,
    OpenCVReader,
    PyAVReader,
    TorchCodecReader,
)


@cache
def usable(backend: str) -> bool:
    """Whether a backend can read; torchcodec may lack FFmpeg's libraries."""
    if backend != 'torchcodec' or find_spec('torchcodec') is None:
        return backend != 'torchcodec'
    try:
        from torchcodec.decoders import VideoDecoder

        VideoDecoder(b'no video')  # loads the libraries
    except ValueError:
        return True
    except (ImportError, RuntimeError, OSError) as err:
        return 'input buffer' in str(err)
    return True


#: All readers, for ``pytest.mark.parametrize``.
READERS = [
    DecordReader,
    PyAVReader,
    OpenCVReader,
    pytest.param(
        TorchCodecReader,
        marks=pytest.mark.skipif(
            not usable('torchcodec'),
            reason='torchcodec or the libraries of FFmpeg are not installed',
        ),
    ),
]


def few(cases: Iterable[Any], keep: int = 2) -> list[Any]:
    """Leave all but the first cases of one argument to the nightly run."""
    marked = []
    for number, case in enumerate(cases):
        if not hasattr(case, 'marks'):
            case = pytest.param(case)
        marks = [*case.marks, *[pytest.mark.nightly] * (number >= keep)]
        marked.append(pytest.param(*case.values, marks=marks))
    return marked

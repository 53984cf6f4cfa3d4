"""Which backends the machine that tests has."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

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

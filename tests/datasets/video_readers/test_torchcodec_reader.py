"""The reader on torchcodec, against a stand-in for the package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from eaglenet_mm.datasets import VideoReadError
from eaglenet_mm.datasets.video_readers import (
    PyAVReader,
    TorchCodecReader,
    open_video,
)


class Decoder:
    """Answers as torchcodec's ``VideoDecoder`` does."""

    options: dict[str, Any]
    broken = ''

    def __init__(self, source: str | bytes, **options: Any) -> None:
        type(self).options = options
        if self.broken == 'open':
            raise RuntimeError('no stream')
        if self.broken == 'library':
            raise RuntimeError('Could not load libtorchcodec. FFmpeg is not')
        self._reader = PyAVReader(source)

    def __len__(self) -> int:
        return self._reader.num_frames

    def get_frames_at(self, indices: list[int]) -> SimpleNamespace:
        if self.broken == 'decode':
            raise RuntimeError('no more frames')
        frames = self._reader.get_batch(indices)
        return SimpleNamespace(data=torch.from_numpy(frames))


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> type[Decoder]:
    module = ModuleType('torchcodec.decoders')
    module.VideoDecoder = Decoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'torchcodec', ModuleType('torchcodec'))
    monkeypatch.setitem(sys.modules, 'torchcodec.decoders', module)
    return Decoder


def test_frames(
    write_clip: Callable[..., Path],
    frame_numbers: Callable,
    decoder: type[Decoder],
) -> None:
    path = write_clip()
    for source in (str(path), path.read_bytes()):
        with open_video(source, backend='torchcodec', num_threads=3) as reader:
            assert type(reader.reader) is TorchCodecReader
            assert reader.num_frames == reader.num_frames_reported == 30
            assert reader.fps == 10
            assert frame_numbers(reader.get_batch([29, 3, 3])) == [29, 3, 3]
    assert decoder.options['num_ffmpeg_threads'] == 3
    assert decoder.options['seek_mode'] == 'exact'


def test_the_libraries_of_ffmpeg_are_missing(
    write_clip: Callable[..., Path],
    decoder: type[Decoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That is no fault of a video: no set may lose all of its videos."""
    monkeypatch.setattr(decoder, 'broken', 'library')
    with pytest.raises(ImportError, match='the libraries of FFmpeg'):
        open_video(str(write_clip()), backend='torchcodec')


@pytest.mark.parametrize('broken', ['open', 'decode'])
def test_failures_name_the_file(
    write_clip: Callable[..., Path],
    decoder: type[Decoder],
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    monkeypatch.setattr(decoder, 'broken', broken)
    path = str(write_clip())

    def read() -> None:
        with open_video(path, backend='torchcodec') as reader:
            reader.get_batch([0])

    with pytest.raises(VideoReadError, match=r"clip\.mp4.*'auto'"):
        read()


def test_what_it_reads_wrongly_is_refused(
    write_clip: Callable[..., Path], decoder: type[Decoder]
) -> None:
    with pytest.raises(VideoReadError, match=r"avi.*'auto' or 'pyav'"):
        open_video(str(write_clip('a.avi')), backend='torchcodec')


@pytest.mark.parametrize('error', [ImportError, RuntimeError])
def test_without_the_package_or_its_libraries(
    write_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    path = str(write_clip())

    class Broken(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise error('libavutil.so is not there')

    monkeypatch.setitem(sys.modules, 'torchcodec', ModuleType('torchcodec'))
    monkeypatch.setitem(
        sys.modules, 'torchcodec.decoders', Broken('torchcodec.decoders')
    )
    with pytest.raises(ImportError, match=r"'torchcodec' and the libraries"):
        open_video(path, backend='torchcodec')

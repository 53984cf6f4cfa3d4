"""A small index with every kind of trouble, and the service of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eaglenet_mm
from eaglenet_mm.datasets.story import write_story_dataset
from eaglenet_mm.search.records import Moment
from tests.service.fake_index import FakeIndex, FakeInferencer, moments_of

for needed in ('fastapi', 'uvicorn', 'python_multipart'):
    pytest.importorskip(needed)

PAGE = Path(eaglenet_mm.__file__).parent / 'service/page'
#: Names that would do harm if they were ever taken for markup or paths.
MARKUP = '<img src=x onerror=alert(1)>.mp4'
BROKEN_UNICODE = os.fsdecode(b'caf\xe9.mp4')
#: Seconds of ``film.webm``, and of a moment of it.
FILM, MOMENT = 8, 4


def write_clip(path: Path, codec: str, seconds: int, rate: int = 12) -> None:
    """Write a film of a bright bar that moves."""
    import av

    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
        stream.gop_size = rate
        stream.thread_count = 1
        for number in range(seconds * rate):
            frame = np.full((64, 96, 3), 40, np.uint8)
            frame[:, number % 90 : number % 90 + 6] = (240, 180, 20)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())


@pytest.fixture(scope='session')
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Video files, all of which can be indexed."""
    story = tmp_path_factory.mktemp('story') / 'story'
    write_story_dataset(story, limit=2, workers=1)
    clips = sorted((story / 'videos').rglob('*.mp4'))
    folder = tmp_path_factory.mktemp('films')
    (folder / 'below').mkdir()
    names = (
        MARKUP,
        BROKEN_UNICODE,
        'gone.mp4',
        'changed.mp4',
        'below/plain.mp4',
        'page.html',
    )
    for name, clip in zip(names, clips, strict=True):
        shutil.copyfile(clip, folder / name)
    write_clip(folder / 'film.webm', 'libvpx', FILM)
    write_clip(folder / 'old.avi', 'mpeg4', 1)
    return folder


#: Numbers that JavaScript could not count with.
FIRST_ID = 2**60


@pytest.fixture(scope='session')
def index(videos: Path) -> FakeIndex:
    """An index of them; then one is deleted, and one changes."""
    moments: list[Moment] = []
    for path in sorted(x for x in videos.rglob('*') if x.is_file()):
        seconds = FILM if path.suffix == '.webm' else 2
        moments += moments_of(path, FIRST_ID + len(moments), seconds)
    (videos / 'gone.mp4').unlink()
    with (videos / 'changed.mp4').open('ab') as file:
        file.write(b'x')
    return FakeIndex(moments)


@pytest.fixture(scope='session')
def inferencer(index: FakeIndex) -> FakeInferencer:
    return FakeInferencer(index)


@pytest.fixture(scope='session')
def app(inferencer: FakeInferencer) -> Any:
    from eaglenet_mm.service import Settings, make_app

    return make_app(inferencer, Settings(max_upload=1, reject=0.05))


@pytest.fixture(scope='session')
def ids(index: FakeIndex) -> dict[str, int]:
    """Number of the first moment of each file, by its name."""
    found: dict[str, int] = {}
    for moment in index.moments.values():
        name = os.path.basename(moment.file.path)
        found.setdefault(name, moment.moment_id)
    return found


@contextlib.contextmanager
def served(app: Any, log_level: str = 'warning') -> Iterator[int]:
    """Serve an application as tools/serve.py does; give the port."""
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=0,
            log_level=log_level,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, 'the server did not start'
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope='session')
def port(app: Any) -> Iterator[int]:
    """Port of the service."""
    with served(app) as port:
        yield port

"""A small index with every kind of trouble, and the demo that serves it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config

from eaglenet_mm.apis import RetrievalInferencer
from eaglenet_mm.datasets.toy import write_toy_dataset

for needed in ('starlette', 'uvicorn', 'python_multipart'):
    pytest.importorskip(needed)

DEMO = Path(__file__).resolve().parents[2] / 'demo'
#: Names that would do harm if they were ever taken for markup or paths.
MARKUP = '<img src=x onerror=alert(1)>.mp4'
BROKEN_UNICODE = os.fsdecode(b'caf\xe9.mp4')
#: Seconds of ``film.webm``, and of a moment of it.
FILM, MOMENT = 8, 4


@pytest.fixture(scope='session')
def demo_modules() -> Iterator[None]:
    """Make the modules of ``demo/`` importable."""
    sys.path.insert(0, str(DEMO))
    yield
    sys.path.remove(str(DEMO))


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
    toy = tmp_path_factory.mktemp('toy') / 'toy'
    write_toy_dataset(toy, limit=2, renderings=1, workers=1)
    clips = sorted((toy / 'videos').iterdir())
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


@pytest.fixture(scope='session')
def index_folder(
    videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An index of them; then one is deleted, and one changes."""
    repository = DEMO.parent
    cfg = Config.fromfile(repository / 'configs/eaglenet_toy.py')
    folder = tmp_path_factory.mktemp('index') / 'films.index'
    inferencer = RetrievalInferencer(cfg, untrained=True, num_workers=1)
    index = inferencer.new_index(folder, segment=float(MOMENT))
    # a file of any name is indexed if it is given by its name
    with inferencer.encode_videos(
        [videos, videos / 'page.html'], index=index
    ) as index:
        assert not inferencer.report.unreadable
    (videos / 'gone.mp4').unlink()
    with (videos / 'changed.mp4').open('ab') as file:
        file.write(b'x')
    return folder


@pytest.fixture(scope='session')
def inferencer(index_folder: Path) -> RetrievalInferencer:
    return RetrievalInferencer.of_index(index_folder, num_workers=1)


@pytest.fixture(scope='session')
def app(inferencer: RetrievalInferencer, demo_modules: None) -> Any:
    from server import make_app

    return make_app(inferencer, max_upload=1)


@pytest.fixture(scope='session')
def rows(inferencer: RetrievalInferencer) -> dict[str, int]:
    """Number of the first row of each file, by its name."""
    found: dict[str, int] = {}
    for entry in inferencer.index.entries(inferencer.index.row_ids):
        name = os.path.basename(entry.file.path)
        found.setdefault(name, entry.row_id)
    return found


@pytest.fixture(scope='session')
def port(app: Any) -> Iterator[int]:
    """Port of the demo, served as demo/app.py serves it."""
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level='warning', server_header=False)
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

"""Indexing with many machines: Ray spreads files, Lance takes the rows."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mmengine.config import Config

from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.apis.video_indexer import (
    IndexingReport,
    Piece,
    VideoIndexer,
    find_changes,
)
from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.search.lance_store import LanceStore, WrittenFiles
from eaglenet_mm.search.model_identity import ModelIdentity
from eaglenet_mm.search.moment_store import store_kind
from eaglenet_mm.search.records import (
    IndexedFile,
    MomentLayout,
    StoredMoment,
)
from eaglenet_mm.search.video_index import VideoIndex
from eaglenet_mm.utils.progress import Progress

#: Files that a worker encodes and writes together.
FILES_OF_A_TASK = 32
#: Rows, and seconds, after which what workers have written is committed.
ROWS_OF_A_COMMIT, SECONDS_OF_A_COMMIT = 50_000, 60.0
_ATTEMPTS = 3  # at a file whose worker dies

#: What was written, the files, and whether each has rows.
Encoded = tuple[WrittenFiles, list[tuple[IndexedFile, bool]]]


class EncodingWorker:
    """Encodes files and writes their rows; an actor of Ray."""

    def __init__(
        self,
        where: str,
        cfg: Config,
        weights: str | None,
        identity: ModelIdentity,
        device: str,
        **settings: int,
    ) -> None:
        untrained = bool(identity.untrained)
        encoder = RetrieverEncoder(cfg, weights, device, untrained=untrained)
        encoder.identity.require(identity, f'The model on {os.uname()[1]}')
        self.indexer = VideoIndexer(encoder, **settings)
        self.store = LanceStore.open(where, writable=True)
        about = self.store.about
        self.segment: float = about['segment']
        self.layout = MomentLayout.from_json(about['layout'], where)

    def encode(self, files: Sequence[IndexedFile]) -> Encoded:
        """Encode files; they are in the index when the driver commits."""
        by_path = {file.path: file for file in files}
        rows: list[tuple[IndexedFile, list[StoredMoment]]] = []
        pieces: dict[str, Piece] = {path: (path, None) for path in by_path}
        for path, moments, duration, error in self.indexer.read(
            pieces, self.segment
        ):
            file = replace(by_path[path], duration=duration, error=error)
            own = [] if moments is None else self.layout.pack(moments)
            rows.append((file, own))
        told = [(file, bool(own)) for file, own in rows]
        return self.store.write(rows), told


@dataclass
class RayIndexer:
    """What :class:`VideoIndexer` does, by the workers of Ray.

    Encodes videos into a Lance dataset.

    Files must have the same paths on all machines, and so must the
    checkpoint; :func:`connected` names the machines. Each worker loads the
    model and asks for ``num_workers`` cores, and a GPU if the model computes
    on one. One that dies is replaced; a file that several of them died of is
    kept as unreadable.
    """

    encoder: RetrieverEncoder
    num_workers: int = 2
    video_batch: int = 1

    def update(
        self,
        index: VideoIndex,
        pieces: Mapping[str, Piece],
        *,
        retry: bool = False,
    ) -> IndexingReport:
        """Add the files that are new or have changed.

        Files are committed by the thousand. After an interruption those that
        were finished are, and the same call goes on.
        """
        store = index.store
        assert isinstance(store, LanceStore)
        wanted, report = find_changes(index.files, pieces, retry=retry)
        files = list(wanted.values())
        if not files:
            return report
        progress = Progress('videos', len(files))
        waiting: list[WrittenFiles] = []
        since = time.monotonic()
        try:
            for written, told in self._encoded(files, store):
                waiting.append(written)
                for file, is_indexed in told:
                    report.tell(file, is_indexed)
                progress.update(len(told))
                rows = sum(own.num_moments for own in waiting)
                seconds = time.monotonic() - since
                if rows >= ROWS_OF_A_COMMIT or seconds > SECONDS_OF_A_COMMIT:
                    store.commit(waiting)
                    waiting, since = [], time.monotonic()
        finally:  # after Ctrl-C, too
            if waiting:
                store.commit(waiting)
            index.refresh()
        progress.close()
        with contextlib.suppress(VideoIndexError):  # there is a next time
            store.tidy()
        index.refresh()
        return report

    def _encoded(
        self, files: Sequence[IndexedFile], store: LanceStore
    ) -> Iterator[Encoded]:
        """Have files encoded, as tasks are finished; replace what dies."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        size = FILES_OF_A_TASK
        starts = range(0, len(files), size)
        tasks = deque((files[x : x + size], 0) for x in starts)
        there, encoder = ray.cluster_resources(), self.encoder
        cores = min(max(1, self.num_workers), int(there.get('CPU', 1)))
        gpus = int(encoder.device.type == 'cuda')
        count = there.get('GPU', 0) if gpus else there.get('CPU', 1) // cores
        kind = ray.remote(num_cpus=cores, num_gpus=gpus)(EncodingWorker)
        where = store.where
        start = partial(
            kind.remote,
            where if '://' in where else os.path.abspath(where),
            encoder.cfg,
            encoder.weights,
            encoder.identity,
            encoder.device.type,
            num_workers=self.num_workers,
            video_batch=self.video_batch,
        )
        idle = [start() for _ in range(max(1, min(int(count), len(tasks))))]
        most_deaths, deaths = _ATTEMPTS + 2 * len(idle), 0
        busy: dict[Any, tuple[Any, Sequence[IndexedFile], int]] = {}
        try:
            while tasks or busy:
                while tasks and idle:
                    actor, (own, attempt) = idle.pop(), tasks.popleft()
                    encoding = actor.encode.remote(own)  # type: ignore[attr-defined]
                    busy[encoding] = actor, own, attempt
                ((result,), _) = ray.wait(list(busy), num_returns=1)
                actor, own, attempt = busy.pop(result)
                try:
                    yield ray.get(result)
                except RayTaskError as err:
                    raise err.cause or err from None
                except RayActorError as err:
                    deaths += 1
                    words = [x for x in str(err).splitlines() if x.strip()]
                    if 'creation task' in words[0] or deaths > most_deaths:
                        raise VideoIndexError(
                            'The workers of Ray cannot work: '
                            f'{words[-1].strip()} See that the package, the '
                            'checkpoint and the videos are on all machines.'
                        ) from None
                    actor = start()
                    if len(own) > 1:  # which of them was it?
                        tasks.extend(([file], 1) for file in own)
                    elif attempt < _ATTEMPTS:
                        tasks.append((own, attempt + 1))
                    else:
                        file = replace(own[0], error='its worker died of it')
                        yield store.write([(file, [])]), [(file, False)]
                else:
                    deaths = 0
                idle.append(actor)
        finally:
            for actor in [*idle, *(x for x, _, _ in busy.values())]:
                ray.kill(actor)


@contextlib.contextmanager
def connected(
    address: str, where: str | os.PathLike
) -> Iterator[type[RayIndexer]]:
    """Connect to Ray for a ``with`` block, and give what indexes with it."""
    if store_kind(where) is not LanceStore:
        raise VideoIndexError(
            f'{where} would be a file of one machine, but Ray writes with '
            'many. Give a URI or a folder that ends with .lance (--out).'
        )
    try:
        import ray
    except ImportError as err:
        raise ImportError(
            'Indexing with many machines needs Ray. Install it with: pip '
            "install 'eaglenet_mm[ray]'."
        ) from err
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')  # tells nobody
    own: dict[str, Any] = {}
    if address == 'local':  # rows do not pass through its store
        own = dict(include_dashboard=False, object_store_memory=10**8)
    try:
        if ':' in address:
            # Ray itself would try for minutes
            host, _, port = address.rpartition('/')[2].rpartition(':')
            socket.create_connection((host, int(port)), 5).close()
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, **own
        )
    except (OSError, ValueError, RuntimeError) as err:
        raise ConnectionError(
            f'No Ray can be reached at {address!r} ({err}). Start one with '
            "'ray start --head', give its address, or --ray local for the "
            'cores of this machine.'
        ) from err
    try:
        yield RayIndexer
    finally:
        ray.shutdown()

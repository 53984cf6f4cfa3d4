"""What the service asks of a model and an index, one question at a time."""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Form, Path
from fastapi.responses import FileResponse, Response
from mmengine.logging import print_log
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from eaglenet_mm.datasets.video_readers import VideoReadError
from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.search.records import IndexedFile, Moment, MomentFilter
from eaglenet_mm.service.guards import moment_key
from eaglenet_mm.service.models import (
    About,
    Answer,
    Answers,
    ClipRequest,
    Hit,
    SearchRequest,
    Settings,
)

if TYPE_CHECKING:
    from eaglenet_mm.apis import RetrievalInferencer
    from eaglenet_mm.search.searching import SearchAnswer, SearchHit

Result = TypeVar('Result')
CLIP_FORM = Form(media_type='multipart/form-data')
MomentId = Annotated[str, Path(pattern='^[0-9]{1,19}$')]

#: Kinds as browsers name them. Nothing else is said of a file, so that one
#: that is called page.html never becomes a page.
# fmt: off
KINDS = {
    '.3gp': 'video/3gpp', '.avi': 'video/x-msvideo', '.flv': 'video/x-flv',
    '.gif': 'image/gif', '.m2ts': 'video/mp2t', '.m4v': 'video/mp4',
    '.mkv': 'video/x-matroska',
    '.mov': 'video/mp4',  # the same container; QuickTime is played by Safari
    '.mp4': 'video/mp4', '.mpeg': 'video/mpeg', '.mpg': 'video/mpeg',
    '.mts': 'video/mp2t', '.ogv': 'video/ogg', '.ts': 'video/mp2t',
    '.vob': 'video/mpeg', '.webm': 'video/webm', '.wmv': 'video/x-ms-wmv',
}
# fmt: on
UNKNOWN_KIND = 'application/octet-stream'
#: Pictures, folders and tags on the page before a search, at most.
NUM_SAMPLES, NUM_NAMES = 24, 500


class Searches:
    """The routes that know the index.

    The model runs in one thread of its own: questions wait for each other,
    videos and the page do not wait for them. What others wrote into the index
    is taken up before each question. Videos have numbers here and no paths,
    so that no request can name a file.
    """

    def __init__(
        self, inferencer: RetrievalInferencer, settings: Settings
    ) -> None:
        if inferencer.index is None:
            raise ValueError(
                'The service needs an index. Give the inferencer one with '
                'encode_videos or RetrievalInferencer.of_index.'
            )
        self.inferencer = inferencer
        self.index = inferencer.index
        self.settings = settings
        self._thread = ThreadPoolExecutor(1, 'model')
        self._about: About | None = None
        self._file = _file_at(self.index.where)
        # what cannot be answered is told now, and the first user waits less
        self.inferencer.search(
            'video', 1, shortlist=settings.shortlist, reject=settings.reject
        )

    async def health(self) -> dict[str, str | int]:
        """Tell that the service answers."""
        return dict(status='ok', moments=len(self.index))

    async def about(self) -> About:
        """Describe the index and its model."""
        return await self._in_turn(self._describe)

    async def by_text(self, asked: SearchRequest) -> Answer | Answers:
        """Search by a sentence, or by several at once."""
        reject = asked.reject
        if asked.shortlist is None:  # what the index was calibrated for
            reject = reject or self.settings.reject

        answers = await self._answer(
            self.inferencer.search,
            asked.texts or [asked.text],
            asked,
            shortlist=asked.shortlist or self.settings.shortlist,
            reject=reject,
        )
        return Answers(answers=answers) if asked.texts else answers[0]

    async def by_video(
        self, asked: Annotated[ClipRequest, CLIP_FORM]
    ) -> Answer:
        """Search by a video file; the filter is JSON, as for a sentence."""
        clip, name = asked.clip, asked.clip.filename or 'The clip'
        if len(name) > 120:
            name = f'{name[:100]}…{name[-19:]}'
        if not clip.size:
            raise HTTPException(422, f'{name} is empty.')
        # of a fixed name in a fresh folder: what the browser calls it may
        # be a path
        with tempfile.TemporaryDirectory(prefix='eaglenet_mm-') as folder:
            path = os.path.join(folder, 'clip')
            with open(path, 'wb') as file:
                await run_in_threadpool(shutil.copyfileobj, clip.file, file)
            search = self.inferencer.search_video
            try:
                return (await self._answer(search, path, asked))[0]
            except VideoReadError as err:
                print_log(f'Uploaded clip: {err}', level=logging.WARNING)
                raise HTTPException(
                    422,
                    f'{name} cannot be read as a video: it is damaged, of an '
                    'unknown kind, or something else.',
                ) from None

    def moment(self, moment_id: MomentId) -> Hit:
        """Describe a moment."""
        return self._hit(_known(self.index.moment, moment_id))

    def thumbnail(self, moment_id: MomentId) -> Response:
        """Send the picture of a moment."""
        image = _known(self.index.thumbnail, moment_id)
        # numbers are never used again
        headers = {'cache-control': 'private, max-age=3600'}
        return Response(image, headers=headers, media_type='image/jpeg')

    def video(self, moment_id: MomentId) -> Response:
        """Send the whole file of a moment, or the bytes of a range."""
        file = _known(self.index.moment, moment_id).file
        trouble = file_trouble(file)
        if trouble is not None:
            raise HTTPException(*trouble)
        return FileResponse(file.path, media_type=kind_of(file.path))

    async def _in_turn(self, run: Callable[[], Result]) -> Result:
        """Run in the thread of the model; its errors become refusals."""

        def run_on_what_is_there() -> Result:
            if _file_at(self.index.where) != self._file:
                raise VideoIndexError(
                    f'{os.path.basename(self.index.where)} is no longer the '
                    'file that was opened. Start the service again.'
                )
            if self.index.refresh():
                self._about = None
            return run()

        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._thread, run_on_what_is_there
            )
        except VideoIndexError:  # a ValueError, but not of the question
            raise
        except (KeyError, ValueError) as err:  # str() would quote a key
            raise HTTPException(400, str(err.args[0])) from err

    def _describe(self) -> About:
        if self._about is None:
            files = [x for x in self.index.files.values() if not x.error]
            folders = sorted({os.path.dirname(file.path) for file in files})
            step = max(1, math.ceil(len(files) / NUM_SAMPLES))
            found = [self.index.store.ids_of(x.path) for x in files[::step]]
            middle = [int(own[len(own) // 2]) for own in found if len(own)]
            shown = []
            for number in middle:
                with suppress(KeyError):  # somebody has just removed it
                    shown.append(self._hit(self.index.moment(number)))
            root = os.path.commonpath(folders) if folders else ''
            self._about = About(
                index=os.path.basename(self.index.where.rstrip('/')),
                files=len(files),
                unreadable=len(self.index.files) - len(files),
                moments=len(self.index),
                segment=self.index.segment,
                head=type(self.inferencer.encoder.head).__name__,
                untrained=list(self.index.model.untrained),
                root=_text(root),
                folders=[_text(folder) for folder in folders[:NUM_NAMES]],
                tags=sorted({x for f in files for x in f.tags})[:NUM_NAMES],
                samples=[moment.thumbnail for moment in shown],
                examples=list(self.settings.example),
                max_upload=self.settings.max_upload,
            )
        return self._about

    async def _answer(
        self,
        search: Callable[..., SearchAnswer | list[SearchAnswer]],
        what: Any,
        asked: SearchRequest | ClipRequest,
        **options: Any,
    ) -> list[Answer]:
        def run() -> list[Answer]:
            began = time.monotonic()
            where = None
            if asked.filter:
                where = MomentFilter.parse(**asked.filter.model_dump())
            page = asked.model_dump(include={'k', 'offset', 'per_video'})
            found = search(what, where=where, **page, **options)
            answers = found if isinstance(found, list) else [found]
            seconds = time.monotonic() - began
            hits = [[self._hit(hit) for hit in x.hits] for x in answers]
            return [
                Answer(**{**vars(x), 'hits': own}, seconds=seconds)
                for x, own in zip(answers, hits, strict=True)
            ]

        return await self._in_turn(run)

    def _hit(self, moment: SearchHit | Moment) -> Hit:
        """Tell what is known of a moment, and where it can be had."""
        known = {**vars(getattr(moment, 'file', moment)), **vars(moment)}
        path, changed = known['path'], known['changed']
        number, key = str(moment.moment_id), ''
        if self.settings.token:
            key = f'?key={moment_key(self.settings.token, number)}'
        trouble = file_trouble(IndexedFile(path, known['size'], changed))
        return Hit.model_validate(
            {
                **known,
                'moment_id': number,
                'path': _text(path),
                'name': _text(os.path.basename(path)),
                'changed': datetime.datetime.fromtimestamp(
                    changed // 10**9, datetime.timezone.utc
                ).isoformat(),
                'kind': kind_of(path),
                'problem': '' if trouble is None else trouble[1],
                'thumbnail': f'v1/moments/{number}/thumbnail{key}',
                'video': f'v1/moments/{number}/video{key}',
                'others': [self._hit(x) for x in known.get('others', ())],
            }
        )


def _known(read: Callable[[int], Result], moment_id: str) -> Result:
    try:
        return read(int(moment_id))
    except (KeyError, OverflowError):
        raise HTTPException(404, 'The index has no such moment.') from None


def kind_of(path: str) -> str:
    """Name the kind of a file by its ending."""
    return KINDS.get(os.path.splitext(path)[1].lower(), UNKNOWN_KIND)


def file_trouble(file: IndexedFile) -> tuple[int, str] | None:
    """Tell why a file cannot be shown: status of HTTP and a sentence.

    None if it can. One that has changed is not the one that was indexed.
    """
    name = _text(os.path.basename(file.path))
    try:
        status = os.stat(file.path)
    except (OSError, ValueError):
        return 410, f'{name} is gone: it was moved or deleted after indexing.'
    if not stat.S_ISREG(status.st_mode) or (
        (status.st_size, status.st_mtime_ns) != (file.size, file.changed)
    ):
        return 409, (
            f'{name} has changed since it was indexed. Bring the index up to '
            'date with eaglenet-mm index.'
        )
    if not os.access(file.path, os.R_OK):
        return 403, f'{name} may not be read by the user of the service.'
    return None


def _file_at(where: str) -> tuple[int, int] | None:
    """Tell files apart; an index of another kind is none."""
    try:
        status = os.stat(where)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _text(path: str) -> str:
    """Give a path as text: names of files may hold what UTF-8 cannot write."""
    return os.fsencode(path).decode('utf-8', 'replace')

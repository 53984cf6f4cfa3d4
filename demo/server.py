"""The routes of the demo: all that is served, and nothing else.

========================  ==================================================
``/``, ``/page.*``        the page, its style and its script
``/icon.svg``             its icon
``/api/about``            what the index and its model are
``/api/search``           POST of JSON: ``query`` and ``k``
``/api/search_video``     POST of a form: the file ``clip``, and ``k``
``/video/N``              the video of row ``N`` of the index
``/thumbnail/N``          its thumbnail
========================  ==================================================

Videos have numbers here and no paths, so that no request can name a file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from guards import JSON, Guard, check_kind, limit_body, refusal
from searches import Searches, file_trouble, kind_of
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from eaglenet_mm.apis import RetrievalInferencer
from eaglenet_mm.datasets.video_readers import VideoReadError
from eaglenet_mm.search.errors import VideoIndexError

MAX_QUERY = 20_000
MAX_HITS = 100
_MB = 2**20
#: Digits that fit into 64 bits.
_NUMBER = re.compile('[0-9]{1,18}')
_PAGE = Path(__file__).parent / 'page'
_FILES = {
    '/': ('page.html', 'text/html'),
    '/page.css': ('page.css', 'text/css'),
    '/page.js': ('page.js', 'text/javascript'),
    '/icon.svg': ('icon.svg', 'image/svg+xml'),
}


def make_app(
    inferencer: RetrievalInferencer,
    *,
    host: str = '127.0.0.1',
    shortlist: int = 100,
    max_upload: int = 200,
) -> Starlette:
    """Make the application.

    Args:
        inferencer (RetrievalInferencer): A model with an index.
        host (str): What the server will listen on. Default: '127.0.0.1'.
        shortlist (int): Rows that the head scores; 0 for all. Default: 100.
        max_upload (int): Megabytes of a clip. Default: 200.

    Returns:
        Starlette: To be served by uvicorn.

    Raises:
        ValueError: If there is no index, or a number is out of its range.
    """
    if max_upload < 1:
        raise ValueError(
            f'max_upload must be at least 1 (megabyte), but is {max_upload}.'
        )
    app = Starlette(
        routes=[
            *(
                Route(path, partial(_send_part, *part))
                for path, part in _FILES.items()
            ),
            Route('/api/about', _about),
            Route('/api/search', _search, methods=['POST']),
            Route('/api/search_video', _search_video, methods=['POST']),
            Route('/video/{row_id}', _video),
            Route('/thumbnail/{row_id}', _thumbnail),
        ],
        middleware=[Middleware(Guard, host=host)],
        exception_handlers={
            HTTPException: _refuse,
            ClientDisconnect: _leave,
            Exception: _fail,
        },
    )
    app.router.redirect_slashes = False
    app.state.searches = Searches(inferencer, shortlist)
    app.state.max_upload = max_upload
    return app


def _send_part(name: str, kind: str, request: Request) -> Response:
    return Response((_PAGE / name).read_bytes(), media_type=kind)


def _about(request: Request) -> Response:
    state = request.app.state
    return JSON(
        {
            **state.searches.about(),
            'max_upload': state.max_upload,
            'max_query': MAX_QUERY,
        }
    )


async def _search(request: Request) -> Response:
    check_kind(request, ['application/json'])
    request = limit_body(request, 16 * MAX_QUERY, _too_long())
    try:
        content = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise HTTPException(400, 'Expected a query as JSON.') from None
    query = content.get('query') if isinstance(content, dict) else None
    if not isinstance(query, str):
        raise HTTPException(400, "Expected JSON with a text as 'query'.")
    if len(query) > MAX_QUERY:
        raise HTTPException(413, _too_long())
    count = _check_count(content.get('k', 12))
    searches: Searches = request.app.state.searches
    return await _answer(partial(searches.by_text, query, count))


async def _search_video(request: Request) -> Response:
    check_kind(request, ['multipart/form-data'])
    most = request.app.state.max_upload
    sentence = f'The clip is too large: at most {most} MB are taken.'
    # what a form needs besides the clip is little
    request = limit_body(request, most * _MB + 8192, sentence)
    async with request.form(max_files=1, max_fields=1) as form:
        clip = form.get('clip')
        if not isinstance(clip, UploadFile):
            raise HTTPException(400, 'Choose a video file to search with.')
        count = _check_count(form.get('k', '12'))
        if not clip.size:
            raise HTTPException(422, f'{_name_of(clip)} is empty.')
        # of a fixed name in a fresh folder: what the browser calls it may
        # be a path
        with tempfile.TemporaryDirectory(prefix='eaglenet_mm-') as folder:
            path = os.path.join(folder, 'clip')
            await run_in_threadpool(_write, clip, path)
            searches: Searches = request.app.state.searches
            try:
                return await _answer(partial(searches.by_video, path, count))
            except VideoReadError:
                raise HTTPException(
                    422,
                    f'{_name_of(clip)} cannot be read as a video: it is '
                    'damaged, of an unknown kind, or something else.',
                ) from None


def _write(clip: UploadFile, path: str) -> None:
    with open(path, 'wb') as file:
        shutil.copyfileobj(clip.file, file)


def _name_of(clip: UploadFile) -> str:
    """Name an upload in a message, shortened."""
    name = clip.filename or 'The clip'
    return name if len(name) <= 120 else f'{name[:100]}…{name[-19:]}'


async def _answer(search: Callable[[], Any]) -> Response:
    try:
        return JSON(await search())
    except VideoReadError:
        raise
    except VideoIndexError as err:  # a part of it is damaged
        raise HTTPException(500, str(err)) from err
    except KeyError as err:  # str() would put it in quotes
        raise HTTPException(400, str(err.args[0])) from err
    except ValueError as err:
        raise HTTPException(400, str(err)) from err


def _video(request: Request) -> Response:
    entry = _entry(request)
    trouble = file_trouble(entry.file)
    if trouble is not None:
        raise HTTPException(*trouble)
    return FileResponse(entry.file.path, media_type=kind_of(entry.file))


def _thumbnail(request: Request) -> Response:
    row_id = _entry(request).row_id
    try:
        image = request.app.state.searches.index.thumbnail(row_id)
    except VideoIndexError as err:
        raise HTTPException(500, str(err)) from err
    return Response(image, media_type='image/jpeg')


def _entry(request: Request) -> Any:
    row_id = request.path_params['row_id']
    try:
        if not _NUMBER.fullmatch(row_id):
            raise KeyError(row_id)
        return request.app.state.searches.entry(int(row_id))
    except KeyError:
        raise HTTPException(404, 'The index has no such row.') from None


def _check_count(count: Any) -> int:
    if isinstance(count, str) and _NUMBER.fullmatch(count):
        count = int(count)
    if type(count) is not int or not 1 <= count <= MAX_HITS:
        words = f"'k' must be a number from 1 to {MAX_HITS}."
        raise HTTPException(400, words)
    return count


def _too_long() -> str:
    return (
        f'The query is too long: at most {MAX_QUERY} characters are taken, '
        'and models read far fewer.'
    )


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, error.detail)


def _leave(request: Request, error: Exception) -> Response:
    """End a request whose sender is gone; nobody reads the answer."""
    return refusal(400, 'The upload ended before it was complete.')


def _fail(request: Request, error: Exception) -> Response:
    """Answer where something failed that nobody expected."""
    return refusal(
        500,
        f'The search failed ({type(error).__name__}); the terminal of the '
        'demo says more.',
    )

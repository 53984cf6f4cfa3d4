"""The application: routes, limits and refusals."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.service.guards import Guard, refusal
from eaglenet_mm.service.models import MAX_QUERY, MAX_TEXTS, Problem, Settings
from eaglenet_mm.service.searches import Searches
from eaglenet_mm.version import __version__

if TYPE_CHECKING:
    from eaglenet_mm.apis import RetrievalInferencer

_MB = 2**20
_PAGE = Path(__file__).parent / 'page'
_FILES = {
    '/': 'index.html',
    '/docs': 'docs.html',
    **{f'/{x}': x for x in ('page.css', 'page.js', 'docs.js', 'icon.svg')},
}


def make_app(
    inferencer: RetrievalInferencer, settings: Settings | None = None
) -> FastAPI:
    """Make the application.

    Args:
        inferencer (RetrievalInferencer): A model with an index.
        settings (Settings, optional): How it is served. Default: None, as
            for this machine alone.

    Returns:
        FastAPI: To be served by uvicorn.

    Raises:
        ValueError: If there is no index.
    """
    settings = settings or Settings()
    bearer = [Depends(HTTPBearer(auto_error=False))]  # the guard checks it
    app = FastAPI(
        title='Video search',
        version=__version__,
        docs_url=None,  # it would come from another host
        redoc_url=None,
        redirect_slashes=False,
        dependencies=bearer if settings.token else [],
        responses={'default': {'model': Problem}},
        form_limits=dict(max_files=1, max_fields=4, max_part_size=2**16),
        exception_handlers={
            HTTPException: _refuse,
            VideoIndexError: _refuse,
            RequestValidationError: _explain,
            Exception: _fail,
        },
    )
    app.add_middleware(Guard, settings=settings)
    app.state.searches = searches = Searches(inferencer, settings)
    app.get('/healthz')(searches.health)
    app.get('/v1/about')(searches.about)
    limit = 16 * MAX_QUERY * MAX_TEXTS  # of escaped characters
    app.post('/v1/search', max_body_size=limit)(searches.by_text)
    limit = settings.max_upload * _MB + 2**17  # the rest of a form is little
    app.post('/v1/search_video', max_body_size=limit)(searches.by_video)
    app.get('/v1/moments/{moment_id}')(searches.moment)
    for own in (searches.thumbnail, searches.video):
        path = f'/v1/moments/{{moment_id}}/{own.__name__}'
        app.get(path, response_class=FileResponse)(own)
        app.head(path, include_in_schema=False)(own)
    for path, name in _FILES.items():
        send = partial(_send_part, name)
        app.add_route(path, send, include_in_schema=False)
    return app


def _send_part(name: str, request: Request) -> Response:
    return FileResponse(_PAGE / name)


async def _refuse(request: Request, error: Any) -> Response:
    """Answer where a request was wrong, or the index is damaged or busy."""
    if isinstance(error, HTTPException):
        return refusal(error.status_code, error.detail)
    return refusal(500, str(error))


async def _explain(request: Request, error: Any) -> Response:
    """Say what is wrong with the fields of a request, not what they hold."""
    where, what = error.errors()[0]['loc'], error.errors()[0]['msg']
    if where[0] == 'path':
        return refusal(404, 'The index has no such moment.')
    parts = [part[:40] for part in where[1:4] if isinstance(part, str)]
    return refusal(422, f'{".".join(parts) or "The request"}: {what}.')


async def _fail(request: Request, error: Any) -> Response:
    """Answer where something failed that nobody expected."""
    return refusal(
        500,
        f'The search failed ({type(error).__name__}); the terminal of the '
        'service says more.',
    )

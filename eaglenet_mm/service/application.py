"""The application: routes, limits and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.service.guards import Guard, refusal
from eaglenet_mm.service.models import MAX_QUERY, MAX_TEXTS, Problem
from eaglenet_mm.service.searches import Searches
from eaglenet_mm.version import __version__

if TYPE_CHECKING:
    from eaglenet_mm.apis import RetrievalInferencer

_MB = 2**20
_PAGE = Path(__file__).parent / 'page'
_FILES = ('page.css', 'page.js', 'docs.js', 'icon.svg')


class Settings(BaseModel, extra='forbid', hide_input_in_errors=True):
    """How an index is served.

    Args:
        host (str): What the server listens on. Default: '127.0.0.1'.
        allowed_host (list[str]): Further names under which it is reached,
            also ``*.example.org``. Default: [].
        root_path (str): Path below which a proxy shows it. Default: ''.
        token (str): Bearer token that ``/v1`` asks for. Default: '', none.
        shortlist (int): Moments that the head scores; 0 for all. Default:
            100.
        reject (float, optional): Share of good queries that may be told that
            nothing was found; of a calibrated index. Default: None.
        max_upload (int): Megabytes of a clip. Default: 200.
        time_limit (float): Seconds until an answer must have begun. Default:
            120.
        example (list[str]): Queries that the page offers.

    Raises:
        ValueError: If a value is out of its range.

    Example:
        >>> Settings(token='0123456789abcdef').host
        '127.0.0.1'
    """

    host: str = '127.0.0.1'
    allowed_host: list[str] = []
    root_path: str = ''
    token: str = Field(default='', pattern='^([!-~]{16,})?$')
    shortlist: int = Field(default=100, ge=0)
    reject: float | None = Field(default=None, gt=0, lt=1)
    max_upload: int = Field(default=200, ge=1)
    time_limit: float = Field(default=120, gt=0)
    example: list[str] = [
        'a dog runs into the sea',
        'people dance',
        'somebody cuts vegetables',
        'a car drives at night',
    ]


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
            VideoIndexError: _tell,
            RequestValidationError: _explain,
            Exception: _fail,
        },
    )
    app.add_middleware(
        Guard,
        host=settings.host,
        allowed_hosts=settings.allowed_host,
        root_path=settings.root_path,
        token=settings.token,
        time_limit=settings.time_limit,
    )
    app.state.settings = settings
    app.state.searches = searches = Searches(inferencer, settings)
    app.get('/healthz')(searches.health)
    app.get('/v1/about')(searches.about)
    limit = 16 * MAX_QUERY * MAX_TEXTS  # of escaped characters
    app.post('/v1/search', max_body_size=limit)(searches.by_text)
    limit = settings.max_upload * _MB + 2**17  # the rest of a form is little
    app.post('/v1/search_video', max_body_size=limit)(searches.by_video)
    app.get('/v1/moments/{moment_id}')(searches.moment)
    for send in (searches.thumbnail, searches.video):
        path = f'/v1/moments/{{moment_id}}/{send.__name__}'
        app.get(path, response_class=FileResponse)(send)
        app.head(path, include_in_schema=False)(send)
    for path, name in (
        ('/', 'index.html'),
        ('/docs', 'docs.html'),
        *((f'/{name}', name) for name in _FILES),
    ):
        app.add_route(path, _sender(name), include_in_schema=False)
    return app


def _sender(name: str) -> Any:
    async def send(request: Request) -> Response:
        return FileResponse(_PAGE / name)

    return send


async def _refuse(request: Request, error: Any) -> Response:
    """Answer where a request was wrong."""
    return refusal(error.status_code, error.detail)


async def _tell(request: Request, error: Any) -> Response:
    """Say what is wrong with the index: it is damaged, or being written."""
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

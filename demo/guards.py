"""What keeps other pages, other hosts and oversized bodies out."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Everything comes from here, as files of their own: text that found its way
#: into the page as markup could neither run nor fetch anything.
SECURITY_HEADERS = {
    'content-security-policy': "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    'cross-origin-opener-policy': 'same-origin',
    # or another page could embed the videos: its requests carry our host
    'cross-origin-resource-policy': 'same-origin',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
}
LOOPBACK = ('localhost', '127.0.0.1', '::1')
_ANY_ADDRESS = ('', '0.0.0.0', '::')


class JSON(Response):
    """JSON in ASCII: names of files may hold what UTF-8 cannot write."""

    media_type = 'application/json'

    def render(self, content: Any) -> bytes:
        """Write the content."""
        return json.dumps(content, allow_nan=False).encode('ascii')


def refusal(status: int, sentence: str) -> JSON:
    """Answer with a sentence that the page shows."""
    return JSON(
        {'error': sentence},
        status,
        {**SECURITY_HEADERS, 'cache-control': 'no-store'},
    )


class Guard:
    """Checks where a request comes from, and adds security headers.

    A page of another site can be given a name that leads to this machine (DNS
    rebinding); then only the ``Host`` header tells. Such a page needs a name,
    so that addresses are safe where every one of this machine is served.

    Args:
        app (ASGIApp): What is guarded.
        host (str): What the server listens on; is allowed as ``Host``,
            besides the loopback names.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.names = {*LOOPBACK, host.lower()} - set(_ANY_ADDRESS)
        self.any_address = host in _ANY_ADDRESS
        if self.any_address:
            own = (socket.gethostname(), socket.getfqdn())
            self.names.update(name.lower() for name in own)

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer, or pass the request on."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._knows(headers.get('host', '')):
            answer = refusal(
                421,
                'This server does not answer under that name. Open it as '
                f'{" or ".join(sorted(self.names))}.',
            )
            await answer(scope, receive, send)
            return
        if scope['method'] not in ('GET', 'HEAD') and _is_foreign(headers):
            answer = refusal(403, 'Another site may not search here.')
            await answer(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message['type'] == 'http.response.start':
                own = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    own[name] = value
                # a browser may keep a video, but asks whether it is the same
                own.setdefault('cache-control', 'no-cache')
            await send(message)

        await self.app(scope, receive, send_guarded)

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f'//{host}').hostname or ''
        except ValueError:
            return False
        if name in self.names:
            return True
        return self.any_address and _is_address(name)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == 'localhost'


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_foreign(headers: Headers) -> bool:
    """Tell whether a page of another origin sent a request.

    Forms may be sent to any site; browsers then say from where.
    """
    origin = headers.get('origin')
    if origin is None:  # no browser
        return False
    try:
        return urlsplit(origin).netloc != headers.get('host')
    except ValueError:
        return True


def limit_body(request: Request, limit: int, sentence: str) -> Request:
    """Give a request whose body is refused as soon as it is too large.

    Args:
        request (Request): Not read yet.
        limit (int): Bytes.
        sentence (str): What the page shows then.

    Returns:
        Request: In the place of the other one.

    Raises:
        HTTPException: If the request itself says that it is too large.
    """
    stated = request.headers.get('content-length', '')
    if stated.isdecimal() and int(stated) > limit:
        raise HTTPException(413, sentence)
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get('body', b''))
        if received > limit:
            raise HTTPException(413, sentence)
        return message

    return Request(request.scope, receive)


def check_kind(request: Request, kinds: Sequence[str]) -> None:
    """Refuse a body of another kind than expected.

    Raises:
        HTTPException: If it is.
    """
    kind = request.headers.get('content-type', '').partition(';')[0].strip()
    if kind.lower() not in kinds:
        raise HTTPException(
            415, f'Expected {" or ".join(kinds)}, but got {kind[:80]!r}.'
        )

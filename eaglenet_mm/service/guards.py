"""What keeps other pages, other hosts, strangers and slow senders out."""

from __future__ import annotations

import hmac
import ipaddress
import math
import re
import socket
from fnmatch import fnmatchcase
from urllib.parse import parse_qs, urlsplit

import anyio
from fastapi.responses import JSONResponse
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eaglenet_mm.service.models import Settings

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
_MEDIA = re.compile('/v1/moments/([0-9]+)/(?:video|thumbnail)')


def refusal(status: int, sentence: str) -> JSONResponse:
    """Answer with a sentence that the page shows."""
    headers = {**SECURITY_HEADERS, 'cache-control': 'no-store'}
    if status == 401:
        headers['www-authenticate'] = 'Bearer'
    return JSONResponse({'error': sentence}, status, headers)


class Guard:
    """Checks where a request comes from, and adds security headers.

    A page of another site can be given a name that leads to this machine (DNS
    rebinding); then only the ``Host`` header tells. Such a page needs a name,
    so that addresses are safe where every one of this machine is served.

    The token is checked before the body is read. Players and images cannot
    send it, so that addresses of videos carry a key of their own.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.token = settings.token
        self.time_limit = settings.time_limit
        path = settings.root_path.strip('/')
        self.root_path = path and f'/{path}'
        self.any_address = settings.host in _ANY_ADDRESS
        names = {*LOOPBACK, settings.host, *settings.allowed_host}
        if self.any_address:
            names |= {socket.gethostname(), socket.getfqdn()}
        self.names = {name.lower() for name in names} - set(_ANY_ADDRESS)

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer, or pass the request on."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        refused = self._refuse(scope, Headers(scope=scope))
        if refused is not None:
            await refused(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message['type'] == 'http.response.start':
                clock.deadline = math.inf  # a video may take its time
                own = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    own[name] = value
                # a browser may keep a video, but asks whether it is the same
                own.setdefault('cache-control', 'no-cache')
            await send(message)

        if self.root_path:
            scope['root_path'] = self.root_path
        with anyio.move_on_after(self.time_limit) as clock:
            await self.app(scope, receive, send_guarded)
        if clock.cancelled_caught:
            refused = refusal(
                503,
                f'This took more than {self.time_limit:g} seconds and was '
                'given up. Try again later.',
            )
            await refused(scope, receive, send)

    def _refuse(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        if not self._knows(headers.get('host', '')):
            return refusal(
                421,
                'This server does not answer under that name. Open it as '
                f'{" or ".join(sorted(self.names))}, or start it with '
                '--allowed-host.',
            )
        if scope['method'] not in ('GET', 'HEAD') and _is_foreign(headers):
            return refusal(403, 'Another site may not search here.')
        if self.token and '/v1/' in scope['path'] and not self._bears(scope):
            return refusal(401, 'This service asks for its token.')
        return None

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f'//{host}').hostname or ''
        except ValueError:
            return False
        if any(fnmatchcase(name, known) for known in self.names):
            return True
        return self.any_address and _is_address(name)

    def _bears(self, scope: Scope) -> bool:
        header = Headers(scope=scope).get('authorization')
        scheme, given = get_authorization_scheme_param(header)
        if scheme.lower() == 'bearer' and _same(given, self.token):
            return True
        moment = _MEDIA.search(scope['path'])
        keys = parse_qs(scope['query_string'].decode('latin-1')).get('key')
        if moment is None or not keys:
            return False
        return _same(keys[0], moment_key(self.token, moment[1]))


def moment_key(token: str, moment_id: str) -> str:
    """Make the key with which one moment alone can be watched."""
    return hmac.new(token.encode(), moment_id.encode(), 'sha256').hexdigest()


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a host."""
    if _is_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == 'localhost'


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


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

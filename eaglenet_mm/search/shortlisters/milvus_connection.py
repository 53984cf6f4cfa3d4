"""Reaching a Milvus database, embedded or on a server."""

from __future__ import annotations

import os
import threading
from collections import Counter
from typing import Any

#: Name of the environment variable that holds ``user:password`` or a key, so
#: that neither has to stand in a config.
TOKEN_VARIABLE = 'MILVUS_TOKEN'

_MISSING = (
    'The first stage was asked for with Milvus, but {name} is not installed. '
    "Run: pip install 'eaglenet_mm[milvus]', or use 'torch' or 'faiss'."
)


class MilvusConnection:
    """Calls methods of a client, and says in a sentence what went wrong.

    Args:
        uri (str): ``http://host:19530`` of a server, or a path ending in
            ``.db`` of an embedded database.
        token (str): ``user:password`` or a key; if empty, that of the
            environment variable ``MILVUS_TOKEN``. Default: ''.
        timeout (float): Seconds to connect, and for each call. Default: 30.

    Raises:
        ConnectionError: If there is no connection.
        ImportError: If a package is missing.
    """

    def __init__(
        self, uri: str, *, token: str = '', timeout: float = 30.0
    ) -> None:
        self.uri = uri
        self.embedded = uri.endswith('.db')
        self.timeout = timeout
        try:
            import pymilvus
        except ImportError as err:
            raise ImportError(_MISSING.format(name='pymilvus')) from err
        self._error = pymilvus.MilvusException
        if self.embedded:
            _EMBEDDED.open(uri)
        elif not uri.startswith(('http://', 'https://', 'tcp://', 'unix:')):
            raise ValueError(
                f'A Milvus server has an address as http://host:19530, not '
                f'{uri!r}; an embedded database has a path ending in .db.'
            )
        self.closed = False
        self.client: Any = None
        try:
            self.client = pymilvus.MilvusClient(
                uri,
                token=token or os.environ.get(TOKEN_VARIABLE, ''),
                timeout=timeout,
            )
        except self._error as err:
            self.close()
            raise ConnectionError(self._unreachable(err)) from err

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the client; ``timeout`` may be overridden.

        Raises:
            ConnectionError: If it fails.
        """
        if self.closed:
            raise ValueError(f'The connection to {self.uri} was closed.')
        options = {'timeout': self.timeout, **options}
        try:
            return getattr(self.client, method)(*args, **options)
        except self._error as err:
            raise ConnectionError(
                f'Milvus at {self.uri} did not do as asked ({method}: '
                f'{err.message}). See whether it still runs, and its log.'
            ) from err

    def close(self) -> None:
        """Close the connection, and an embedded database nobody else uses."""
        if self.closed:
            return
        self.closed = True
        if self.client is not None:
            self.client.close()
        if self.embedded:
            _EMBEDDED.close(self.uri)

    def _unreachable(self, err: Any) -> str:
        """Say why there is no connection, and what to do."""
        if self.embedded:
            return (
                f'The embedded database {self.uri} cannot be opened. One '
                'process at a time may: close the other, or let both use a '
                'Milvus server (milvus:http://host:19530) or torch. If there '
                'is no other, see whether the folder is writable.'
            )
        return (
            f'No Milvus server answers at {self.uri} within {self.timeout:g} '
            f'seconds ({err.message}). Start it, or correct the address; a '
            'server with users wants user:password in the environment '
            f'variable {TOKEN_VARIABLE}.'
        )


class _EmbeddedDatabases:
    """Counts who uses an embedded database of this process.

    ``MilvusClient.close`` leaves the database open and locked until the
    process ends (pymilvus 3.0.2 with milvus-lite 3.2.2); and all clients of a
    path share one, so that only the last may close it.
    """

    def __init__(self) -> None:
        self._users: Counter[str] = Counter()
        self._lock = threading.Lock()

    def open(self, path: str) -> None:
        """Count one more user."""
        try:
            import milvus_lite  # noqa: F401
        except ImportError as err:
            raise ImportError(_MISSING.format(name='milvus-lite')) from err
        with self._lock:
            self._users[os.path.abspath(path)] += 1

    def close(self, path: str) -> None:
        """Count one less, and close after the last."""
        from milvus_lite.server_manager import server_manager_instance

        path = os.path.abspath(path)
        with self._lock:
            self._users[path] -= 1
            if not self._users[path]:
                del self._users[path]
                server_manager_instance.release_server(path)


_EMBEDDED = _EmbeddedDatabases()

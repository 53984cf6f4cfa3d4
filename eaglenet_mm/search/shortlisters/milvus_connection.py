"""Reaching a Milvus database, embedded or on a server."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import socket
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, ClassVar

#: Name of the environment variable that holds ``user:password`` or a key, so
#: that neither has to stand in a config.
TOKEN_VARIABLE = 'MILVUS_TOKEN'

_MISSING = (
    'The first stage was asked for with Milvus, but {name} is not installed. '
    "Run: pip install 'eaglenet_mm[milvus]', or use 'torch' or 'faiss'."
)
_SCRIPT = Path(__file__).with_name('milvus_process.py')
_ENDING_SECONDS = 10.0


class MilvusConnection:
    """Calls methods of a client, and says in a sentence what went wrong.

    The client lives in a process of its own. Its threads, those of gRPC,
    must not be forked; this process may be, by whoever reads videos next.

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
        _need('pymilvus')
        if self.embedded:
            _need('milvus_lite')
        elif not uri.startswith(('http://', 'https://', 'tcp://', 'unix:')):
            raise ValueError(
                f'A Milvus server has an address as http://host:19530, not '
                f'{uri!r}; an embedded database has a path ending in .db.'
            )
        self.closed = False
        self._process = _ClientProcess.of(
            os.path.abspath(uri) if self.embedded else uri,
            token or os.environ.get(TOKEN_VARIABLE, ''),
            timeout,
        )
        try:
            self._process.connect()
        except ConnectionError as err:
            self.close()
            raise ConnectionError(self._unreachable(err)) from err

    def call(self, method: str, **options: Any) -> Any:
        """Call a method of the client; ``timeout`` may be overridden.

        Args:
            method (str): Of ``pymilvus.MilvusClient``, or a function of
                ``milvus_process.py``.
            options (Any): Its arguments.

        Returns:
            Any: What it returns, as lists, dicts, numbers and strings.

        Raises:
            ConnectionError: If it fails.
        """
        if self.closed:
            raise ValueError(f'The connection to {self.uri} was closed.')
        options = {'timeout': self.timeout, **options}
        try:
            return self._process.call(method, options)
        except ConnectionError as err:
            raise ConnectionError(
                f'Milvus at {self.uri} did not do as asked ({method}: '
                f'{err}). See whether it still runs, and its log.'
            ) from err

    def close(self) -> None:
        """Close the connection, and an embedded database nobody else uses."""
        if not self.closed:
            self.closed = True
            self._process.release()

    def _unreachable(self, err: ConnectionError) -> str:
        """Say why there is no connection, and what to do."""
        if self.embedded:
            return (
                f'The embedded database {self.uri} cannot be opened ({err}). '
                'One process at a time may: close the other, or let both use '
                'a Milvus server (milvus:http://host:19530) or torch. If '
                'there is no other, see whether the folder is writable.'
            )
        return (
            f'No Milvus server answers at {self.uri} within {self.timeout:g} '
            f'seconds ({err}). Start it, or correct the address; a '
            'server with users wants user:password in the environment '
            f'variable {TOKEN_VARIABLE}.'
        )


class _ClientProcess:
    """A process with a client of a database, for all who use that.

    It is started when there is none: at first, and after it died or a call
    was interrupted.

    Args:
        key (tuple): Address, token and process of the users.
        timeout (float): Seconds to connect.
    """

    _all: ClassVar[dict[tuple[str, str, int], _ClientProcess]] = {}
    _lock_of_all: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, key: tuple[str, str, int], timeout: float) -> None:
        self._key = key
        self._timeout = timeout
        self._users = 0
        self._lock = threading.Lock()
        self._stream: Any = None
        self._end: Any = None

    @classmethod
    def of(cls, uri: str, token: str, timeout: float) -> _ClientProcess:
        """Give that of a database, with one more user."""
        # a fork must not speak through the socket of its parent
        key = (uri, token, os.getpid())
        with cls._lock_of_all:
            found = cls._all.setdefault(key, cls(key, timeout))
            found._users += 1
            return found

    def release(self) -> None:
        """Count one user fewer, and end the process after the last."""
        with self._lock_of_all:
            self._users -= 1
            if not self._users:
                del self._all[self._key]
                if self._end is not None:
                    self._end()

    def connect(self) -> None:
        """Start the process if it does not run."""
        with self._lock:
            self._start()

    def call(self, method: str, options: dict[str, Any]) -> Any:
        """Call a method of the client; see :meth:`MilvusConnection.call`."""
        with self._lock:
            self._start()
            return self._exchange((method, options))

    def _start(self) -> None:
        """Start the process and let it connect, if there is none."""
        if self._end is not None and self._end.alive:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, _SCRIPT, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._stream = ours.makefile('rwb')
        # also at the end of this process, or the next would find an embedded
        # database that is not closed yet
        self._end = weakref.finalize(
            self, _end, process, ours, self._stream, os.getpid()
        )
        uri, token, _ = self._key
        options = dict(token=token, timeout=self._timeout)
        try:
            self._exchange((sys.path, uri, options))
        except ConnectionError:
            self._end()
            raise

    def _exchange(self, request: Any) -> Any:
        """Send a request and wait for its answer."""
        try:
            pickle.dump(request, self._stream)
            self._stream.flush()
            trouble, value = pickle.load(self._stream)
        except BaseException as err:
            # an answer that is under way would be taken for that of the next
            self._end()
            if isinstance(err, EOFError | OSError):
                raise ConnectionError(
                    'the process of its client died'
                ) from err
            raise
        if trouble:
            raise ConnectionError(trouble)
        return value


def _end(
    process: subprocess.Popen, link: socket.socket, stream: Any, owner: int
) -> None:
    """Let a process finish what it does, close its database, and end."""
    if os.getpid() != owner:  # in a fork
        return
    with contextlib.suppress(OSError):
        # closing alone would not tell it: a fork may have the socket too
        link.shutdown(socket.SHUT_RDWR)
    for file in (stream, link):
        with contextlib.suppress(OSError):
            file.close()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING_SECONDS)
    finally:
        process.kill()
        process.wait()


def _need(package: str) -> None:
    """Say what to install, if a package is missing."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(_MISSING.format(name=package.replace('_', '-')))

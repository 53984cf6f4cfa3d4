"""Downloads of weights: from the cache if possible, and failing fast."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

#: Time limit for the first response of a server.
SECONDS = 8.0


class DownloadError(FileNotFoundError):
    """A file is not in the cache and cannot be downloaded.

    Args:
        message (str): What happened.
        setting (str): Config value that requires the file. Default: ``''``.
        instead (str): Value that needs no network. Default: ``''``.
    """

    def __init__(
        self, message: str, setting: str = '', instead: str = ''
    ) -> None:
        super().__init__(message)
        self.setting = setting
        self.instead = instead


def fetch_from_hub(repository: str, names: Sequence[str]) -> str:
    """Return a file of the Hugging Face Hub, from the cache if possible.

    Args:
        repository (str): ``'owner/name'``.
        names (Sequence[str]): Possible file names, in order of preference.

    Returns:
        str: Path of the first one that exists.

    Raises:
        ConnectionError: If none is cached and the Hub does not respond within
            :data:`SECONDS`; its own client would retry for a minute.
        FileNotFoundError: If the repository has none of them.
        OSError: If the download fails.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return cached
    require_hub()
    for name in names:
        try:
            return hf_hub_download(repository, name)
        except EntryNotFoundError:
            continue
    raise FileNotFoundError(f'{repository} has no {" or ".join(names)}')


def require_hub() -> None:
    """Raise ConnectionError unless the Hugging Face Hub responds in time."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    place = constants.ENDPOINT
    session = get_session()  # has proxies, certificates, offline mode
    _require_answer(place, lambda: session.head(place, timeout=SECONDS))


def require_server(url: str) -> None:
    """Raise ConnectionError unless the server of a URL responds in time."""
    request = urllib.request.Request(url, method='HEAD')

    def ask() -> None:
        with suppress(urllib.error.HTTPError):  # a response
            urllib.request.urlopen(request, timeout=SECONDS).close()

    _require_answer(url, ask)


def _require_answer(place: str, ask: Callable[[], Any]) -> None:
    """Run ``ask`` in a thread, since no time limit covers DNS lookups."""
    problems = [f'no response in {SECONDS:.0f} seconds']

    def run() -> None:
        try:
            ask()
        except Exception as err:  # noqa: BLE001 any error of the client
            problems[0] = str(err).rstrip('.') or type(err).__name__
        else:
            problems.clear()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if problems:
        raise ConnectionError(f'{place} cannot be reached: {problems[0]}')


@contextmanager
def naming_keys(settings: Mapping[str, Any]) -> Iterator[None]:
    """Add the config keys to set to a :class:`DownloadError`.

    ``settings`` maps dotted names to parts of the config, for example
    ``{'model.text_encoder': {...}}``.
    """
    try:
        yield
    except DownloadError as err:
        found = [
            f'{key}={value.replace(err.setting, err.instead)}'
            for key, value in _walk(settings)
            # the type of a tower is 'library.setting'
            if err.setting in (value, value.partition('.')[2])
        ]
        if not (err.setting and found):
            raise
        told = f'{err} For this config: --cfg-options {" ".join(found)}'
        raise DownloadError(told) from err


def _walk(settings: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """Yield all strings in settings with their dotted names."""
    items: Any = ()
    if isinstance(settings, Mapping):
        items = settings.items()
    elif isinstance(settings, list | tuple):
        items = enumerate(settings)
    elif isinstance(settings, str):
        yield key, settings
    for name, value in items:
        yield from _walk(value, f'{key}.{name}' if key else str(name))

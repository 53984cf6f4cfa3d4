"""Weights from the network: a copy at hand comes first, no endless waiting."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

#: Longest wait for the first answer of a server.
SECONDS = 8.0


class DownloadError(FileNotFoundError):
    """What a setting names is neither at hand nor could it be fetched.

    Args:
        message (str): What happened.
        setting (str): Value in the config that asks for it. Default: ``''``,
            not known.
        instead (str): A value that would need no network. Default: ``''``.
    """

    def __init__(
        self, message: str, setting: str = '', instead: str = ''
    ) -> None:
        super().__init__(message)
        self.setting = setting
        self.instead = instead


def fetch_from_hub(repository: str, names: Sequence[str]) -> str:
    """Find the first of some files in the Hugging Face Hub's cache, or fetch.

    Args:
        repository (str): ``'owner/name'``.
        names (Sequence[str]): Names that the file may have, the best first.

    Returns:
        str: Its path.

    Raises:
        ConnectionError: If nothing is cached, and the Hub does not answer in
            :data:`SECONDS`. Its own client would go on trying for a minute.
        FileNotFoundError: If the repository has none of them.
        OSError: Whatever else a download ends with.
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
    """Raise ConnectionError unless the Hugging Face Hub answers soon."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    place = constants.ENDPOINT
    session = get_session()  # knows proxies, certificates, offline mode
    _require_answer(place, lambda: session.head(place, timeout=SECONDS))


def require_server(url: str) -> None:
    """Raise ConnectionError unless the server of a URL answers soon."""
    request = urllib.request.Request(url, method='HEAD')

    def ask() -> None:
        with suppress(urllib.error.HTTPError):  # an answer
            urllib.request.urlopen(request, timeout=SECONDS).close()

    _require_answer(url, ask)


def _require_answer(place: str, ask: Callable[[], Any]) -> None:
    """Ask in a thread: no time limit covers the look-up of a host's name."""
    problems = [f'no answer in {SECONDS:.0f} seconds']

    def run() -> None:
        try:
            ask()
        except Exception as err:  # noqa: BLE001 whatever a client can raise
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
    """Add the keys of the config to set to a download's error.

    ``settings`` hold parts of the config by their dotted name, as in
    ``{'model.text_encoder': {...}}``.
    """
    try:
        yield
    except DownloadError as err:
        found = [
            f'{key}={value.replace(err.setting, err.instead)}'
            for key, value in _walk(settings)
            # of a tower's type the library comes first
            if err.setting in (value, value.partition('.')[2])
        ]
        if not (err.setting and found):
            raise
        told = f'{err} For this config: --cfg-options {" ".join(found)}'
        raise DownloadError(told) from err


def _walk(settings: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """Go through the texts of settings, with their dotted names."""
    items: Any = ()
    if isinstance(settings, Mapping):
        items = settings.items()
    elif isinstance(settings, list | tuple):
        items = enumerate(settings)
    elif isinstance(settings, str):
        yield key, settings
    for name, value in items:
        yield from _walk(value, f'{key}.{name}' if key else str(name))

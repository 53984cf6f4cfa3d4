"""The process that holds the client of Milvus, and an embedded database.

It is a script, which imports nothing of this package: it needs neither torch
nor the time to import it.
"""

from __future__ import annotations

import pickle
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from numbers import Number
from typing import Any


def serve(stream: Any) -> None:
    """Connect to a database, and call methods of the client as asked.

    Args:
        stream (BinaryIO): Gives what to connect to, and then methods with
            their options, until it ends. Gets what is wrong (empty if
            nothing is) and what comes back, for each of them.
    """
    sys.path[:], uri, options = pickle.load(stream)
    client = None

    def connect() -> None:
        nonlocal client
        from pymilvus import MilvusClient

        client = MilvusClient(uri, **options)

    answer(stream, connect)
    while client is not None:
        try:
            method, options = pickle.load(stream)
        except EOFError:
            break
        own = _OWN.get(method)
        answer(stream, own or partial(ask, method), client, **options)


def answer(stream: Any, call: Any, *args: Any, **options: Any) -> None:
    """Call a function, and tell what became of it."""
    try:
        reply = ('', call(*args, **options))
    except Exception as err:  # noqa: BLE001 - raised on the other side
        words = getattr(err, 'message', '') or f'{type(err).__name__}: {err}'
        reply = (words, None)
    pickle.dump(reply, stream)
    stream.flush()


def ask(method: str, client: Any, **options: Any) -> Any:
    """Call a method of the client."""
    return plain(getattr(client, method)(**options))


def plain(value: Any) -> Any:
    """Turn into what is read without the classes of ``pymilvus``."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return value if isinstance(value, Number | str | None) else str(value)


def create_collection(
    client: Any,
    *,
    key: str,
    field: str,
    embed_dim: int,
    index_type: str,
    **options: Any,
) -> None:
    """Make a collection of row numbers and vectors, searched by products."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(key, DataType.INT64, is_primary=True)
    schema.add_field(field, DataType.FLOAT_VECTOR, dim=embed_dim)
    index = client.prepare_index_params()
    index.add_index(field, index_type=index_type, metric_type='IP')
    client.create_collection(schema=schema, index_params=index, **options)


def query_all(client: Any, **options: Any) -> list[Any]:
    """Query page by page, for more rows than one answer may have."""
    found = client.query_iterator(**options)
    rows: list[Any] = []
    try:
        while page := found.next():
            rows.extend(page)
    finally:
        found.close()
    return rows


def search(client: Any, *, key: str, **options: Any) -> list[Any]:
    """Find rows; give scores and row numbers alone, of millions maybe."""
    found = client.search(output_fields=[key], **options)
    return [[(hit['distance'], hit[key]) for hit in hits] for hits in found]


_OWN = dict(
    create_collection=create_collection, query_all=query_all, search=search
)

if __name__ == '__main__':
    # an interrupt is for the process that started this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as link:
        serve(link.makefile('rwb'))

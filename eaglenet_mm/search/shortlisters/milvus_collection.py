"""Opening a collection of Milvus: a number and a vector in each row."""

from __future__ import annotations

from eaglenet_mm.search.shortlisters.milvus_connection import MilvusConnection

#: Field of the row number, the primary key.
ID = 'id'

_LOADING_SECONDS = 600.0


def open_collection(
    connection: MilvusConnection, name: str, field: str, embed_dim: int
) -> None:
    """Load a collection, if it is one for these vectors.

    Args:
        connection (MilvusConnection): To the database.
        name (str): Of the collection.
        field (str): Of the vectors; it names their model.
        embed_dim (int): Width of the vectors.

    Raises:
        ValueError: If it was made for another model or width.
    """
    described = connection.call('describe_collection', collection_name=name)
    fields = {x['name']: x.get('params', {}) for x in described['fields']}
    where = f'Collection {name!r} of {connection.uri}'
    if ID not in fields or field not in fields:
        raise ValueError(
            f'{where} has the fields {" and ".join(fields)}, not {ID} and '
            f'{field}: it was made for vectors of another model. Name '
            'another collection.'
        )
    width = int(fields[field].get('dim', 0))
    if width != embed_dim:
        raise ValueError(
            f'{where} holds vectors of width {width}, not {embed_dim}. Name '
            'another collection.'
        )
    # a server may have to read many vectors into its memory
    connection.call(
        'load_collection', collection_name=name, timeout=_LOADING_SECONDS
    )

"""A collection of Milvus: a number and a vector in each row."""

from __future__ import annotations

from .milvus_connection import MilvusConnection

#: Field of the row number, the primary key.
ID = 'id'

_LOADING_SECONDS = 600.0


def create_collection(
    connection: MilvusConnection,
    name: str,
    field: str,
    embed_dim: int,
    index_type: str,
) -> None:
    """Make a collection, with an index of inner products.

    Args:
        connection (MilvusConnection): To the database.
        name (str): Of the collection.
        field (str): Of the vectors.
        embed_dim (int): Width of the vectors.
        index_type (str): Of Milvus, as ``'FLAT'`` or ``'AUTOINDEX'``.
    """
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(
        auto_id=False, enable_dynamic_field=False
    )
    schema.add_field(ID, DataType.INT64, is_primary=True)
    schema.add_field(field, DataType.FLOAT_VECTOR, dim=embed_dim)
    index = MilvusClient.prepare_index_params()
    index.add_index(field, index_type=index_type, metric_type='IP')
    connection.call(
        'create_collection',
        collection_name=name,
        schema=schema,
        index_params=index,
        consistency_level='Strong',
    )


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

"""Making a first stage from a name or a config."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

from mmengine.logging import print_log

from eaglenet_mm.registry import SHORTLISTERS
from eaglenet_mm.search.shortlisters.base import Shortlister
from eaglenet_mm.utils.type_name import type_name

#: Numbers (rows times width) up to which ``'auto'`` compares with all.
MAX_EXACT_NUMBERS = 200_000_000


def build_shortlister(
    name_or_config: str | dict[str, Any],
    *,
    embed_dim: int,
    num_rows: int,
    folder: str | None = None,
    model: str = '',
) -> Shortlister:
    """Make the first stage of a search.

    Args:
        name_or_config (str | dict): ``'torch'``, ``'faiss'``, ``'milvus'``
            (embedded), ``'milvus:http://host:19530'`` (a server), ``'auto'``
            (torch for a gallery of usual size, then faiss if it is
            installed) or the config of a registered type.
        embed_dim (int): Width ``C`` of the vectors.
        num_rows (int): Rows there will be, about.
        folder (str | None): Of the index: where an embedded database keeps
            its files, and what its collection is named after. Default: None.
        model (str): Fingerprint of the model that made the vectors, so that
            those of another never mix with them. Default: ''.

    Returns:
        Shortlister: Without rows, unless a database kept them.

    Raises:
        ValueError: If the name is not known.
        ImportError: If a package is missing; the message names the extra.
    """
    if isinstance(name_or_config, str):
        config = _config_of(name_or_config, embed_dim * num_rows)
    else:
        config = dict(name_or_config)
    kind = type_name(config)
    if kind == 'TorchShortlister':
        config.setdefault('capacity', num_rows)
    elif kind == 'MilvusShortlister':
        config.setdefault('folder', folder)
        config.setdefault('model', model)
    config.setdefault('embed_dim', embed_dim)
    return SHORTLISTERS.build(config)


def _config_of(name: str, numbers: int) -> dict[str, Any]:
    """Turn a name into a config."""
    if name == 'auto':
        name = _choose(numbers)
    kind, _, address = name.partition(':')
    if kind == 'milvus' and address:
        return dict(type='MilvusShortlister', uri=address)
    types = {
        'torch': 'TorchShortlister',
        'faiss': 'FaissShortlister',
        'milvus': 'MilvusShortlister',
    }
    if name not in types:
        raise ValueError(
            f"The first stage must be 'auto', 'torch', 'faiss', 'milvus' or "
            f"'milvus:http://host:19530', not {name!r}."
        )
    return dict(type=types[name])


def _choose(numbers: int) -> str:
    """Choose by size; faiss only if it is installed."""
    if numbers <= MAX_EXACT_NUMBERS:
        return 'torch'
    if importlib.util.find_spec('faiss') is not None:
        return 'faiss'
    print_log(
        'The gallery is large, and faiss is not installed: each query is '
        'compared with every row. For a faster first stage: '
        "pip install 'eaglenet_mm[search]'",
        logger='current',
        level=logging.WARNING,
    )
    return 'torch'

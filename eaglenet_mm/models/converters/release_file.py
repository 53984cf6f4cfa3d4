"""Files of releases, read without executing them, and ours, written whole."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eaglenet_mm.models.encoders.torchscript_archive import (
    is_torchscript_archive,
    read_torchscript_tensors,
)
from eaglenet_mm.utils.safe_checkpoint import load_checkpoint_file


def read_release_file(path: str, trusted: bool = False) -> Any:
    """Read a checkpoint of a release, or OpenAI's archive of CLIP.

    Args:
        path (str): The file.
        trusted (bool): Read it as a plain pickle, which executes what the
            file says. Default: False.

    Returns:
        Any: What was saved; tensors by name for an archive.

    Raises:
        FileNotFoundError: If there is no such file.
        UnsafeCheckpointError: If the file holds more than the allowed kinds.
        ValueError: If the file is truncated or no checkpoint.
    """
    expanded = osp.expanduser(path)
    if osp.isfile(expanded) and is_torchscript_archive(expanded):
        return read_torchscript_tensors(expanded)
    return load_checkpoint_file(path, trusted=trusted)


def write_converted(
    path: str, state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Write a checkpoint at once, so that no part of one is left behind.

    Args:
        path (str): The file; its folder is made.
        state_dict (dict[str, Tensor]): By our names.
        meta (dict): Plain values, for those who ask where it is from.
    """
    partial = f'{path}.partial'
    os.makedirs(osp.dirname(osp.abspath(partial)), exist_ok=True)
    torch.save(dict(state_dict=dict(state_dict), meta=dict(meta)), partial)
    os.replace(partial, path)

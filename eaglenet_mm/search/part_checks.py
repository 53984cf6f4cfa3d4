"""What must hold of the tensors of a part before they are used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eaglenet_mm.search.errors import DamagedIndexError

#: What to do about a damaged part.
MEND = (
    'Restore it from a copy, or let tools/index.py --repair leave out what is '
    'damaged and read those videos again.'
)

# number of axes, and the types allowed, by name
_FORMS: dict[str, tuple[int, tuple[torch.dtype, ...]]] = {
    'row_ids': (1, (torch.int64,)),
    'file_of_row': (1, (torch.int64,)),
    'spans': (2, (torch.float64,)),
    'vectors': (2, (torch.float32, torch.float16)),
    'frame_times': (2, (torch.float32,)),
    'rows': (2, (torch.uint8,)),
    'checksums': (1, (torch.int64,)),
    'thumbnail_ends': (1, (torch.int64,)),
    'thumbnail_checksums': (1, (torch.int64,)),
}


def check_tensors(
    tensors: dict[str, Tensor], num_files: int, where: str
) -> None:
    """Refuse tensors that do not fit each other.

    Checksums tell what has changed since it was written, not who wrote it.

    Args:
        tensors (dict[str, Tensor]): Of a part; none if it has no rows.
        num_files (int): Files of the part.
        where (str): The file, for the message.

    Raises:
        DamagedIndexError: If they do not fit.
    """
    if not tensors:
        return
    if set(tensors) != {*_FORMS, 'thumbnails'}:
        raise _damaged(where, f'it has the tensors {sorted(tensors)[:12]}')
    count = len(tensors['row_ids']) if tensors['row_ids'].ndim else 0
    for name, (axes, types) in _FORMS.items():
        tensor = tensors[name]
        if (
            tensor.ndim != axes
            or tensor.dtype not in types
            or len(tensor) != count
        ):
            form = f'{tensor.dtype} {tuple(tensor.shape)}'
            raise _damaged(where, f"'{name}' is {form} for {count} rows")
    ends = tensors['thumbnail_ends']
    rules: dict[str, Callable[[], bool]] = {
        # in any order: parts that are joined need not be neighbours
        'row_ids': lambda: (
            len(tensors['row_ids'].unique()) == count
            and int(tensors['row_ids'].min()) >= 0
        ),
        'file_of_row': lambda: (
            int(tensors['file_of_row'].min()) >= 0
            and int(tensors['file_of_row'].max()) < num_files
        ),
        'spans': lambda: tensors['spans'].shape[1] == 2,
        'thumbnail_ends': lambda: (
            bool((ends.diff() >= 0).all())
            and int(ends[0]) >= 0
            and tensors['thumbnails'].shape == (int(ends[-1]),)
            and tensors['thumbnails'].dtype == torch.uint8
        ),
    }
    for name, holds in rules.items():
        if not count or not holds():
            raise _damaged(where, f"'{name}' has values that cannot be")


def _damaged(where: str, reason: str) -> DamagedIndexError:
    return DamagedIndexError(f'{where} is damaged: {reason}. {MEND}')

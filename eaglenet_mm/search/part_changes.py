"""A part with other row numbers, in another precision."""

from __future__ import annotations

import torch

from eaglenet_mm.search.errors import VideoIndexError
from eaglenet_mm.search.index_part import FRAMES, STATE, IndexPart
from eaglenet_mm.search.precision import to_half


def renumber(
    part: IndexPart, first_row_id: int, *, kept: str, wanted: str
) -> IndexPart:
    """Prepare a part for another index.

    Args:
        part (IndexPart): The part.
        first_row_id (int): Number of its first row there.
        kept (str): Its precision.
        wanted (str): That of the other index.

    Returns:
        IndexPart: A copy; tensors that stay are shared.

    Raises:
        VideoIndexError: If the precision is not to be had.
    """
    if kept not in ('float32', wanted):
        raise VideoIndexError(
            f'An index of precision {kept} cannot become one of {wanted}. '
            'Index the videos again.'
        )
    if not len(part):
        return IndexPart(part.files, {})
    tensors = dict(part.tensors)
    tensors['row_ids'] = torch.arange(first_row_id, first_row_id + len(part))
    renumbered = IndexPart(part.files, tensors, part.layout, part.name)
    if kept != wanted:
        tensors['vectors'] = to_half(tensors['vectors'], 'vectors')
        state = part.read(torch.arange(len(part)))
        frames = state.pop(FRAMES)
        renumbered.set_rows(
            frames,
            {name[len(STATE) :]: value for name, value in state.items()},
            wanted,
        )
    return renumbered

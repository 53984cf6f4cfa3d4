"""Position embeddings of CLIP's towers, brought to another size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

#: Name of the table in a tower of either side.
TABLE = 'positional_embedding'
#: Rows of the text table that captions train well, kept as they are, and the
#: rows of the table they were counted in (`Long-CLIP
#: <https://arxiv.org/abs/2403.15378>`_, section 3.1).
WELL_TRAINED_ROWS, ROWS_OF_CLIP = 20, 77


def fit_positions(tower: nn.Module, table: Tensor) -> Tensor:
    """Bring a table of position embeddings to the size a tower has.

    The grid of an image tower is interpolated, see :func:`resize_grid`. A
    text table is cut if it has rows too many and stretched if it has too
    few, see :func:`stretch_rows`.

    Args:
        tower (nn.Module): A tower of open_clip; it is not changed.
        table (Tensor): Of a tower of another size, shape ``(rows, C)``.

    Returns:
        Tensor: Of the tower's shape; the table itself if it has that.

    Raises:
        ValueError: If the widths differ, or the table is no square grid.
    """
    expected = getattr(tower, TABLE)
    if table.shape == expected.shape:
        return table
    if table.ndim != 2 or table.shape[1] != expected.shape[1]:
        raise ValueError(
            f'Position embeddings can be resized from (rows, '
            f'{expected.shape[1]}), the width of the tower, but got '
            f'{tuple(table.shape)}. Choose the arch the file was made with.'
        )
    if isinstance(tower, VisionTransformer):
        return resize_grid(table, tower.grid_size)
    if len(table) > len(expected):
        return table[: len(expected)]
    return stretch_rows(table, len(expected))


def resize_grid(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate the positions of patches, as open_clip does.

    Bicubic, with antialiasing where the grid becomes coarser. The class
    token's row stays.

    Args:
        table (Tensor): Class token and the rows of a square grid, shape
            ``(1 + n * n, C)``.
        size (tuple[int, int]): New rows and columns of the grid.

    Returns:
        Tensor: Shape ``(1 + rows * columns, C)``, type of the table.

    Raises:
        ValueError: If the table is no square grid.

    Example:
        >>> resize_grid(torch.zeros(50, 4), (10, 12)).shape
        torch.Size([121, 4])
    """
    side = math.isqrt(max(0, len(table) - 1))
    if side < 1 or side * side + 1 != len(table):
        raise ValueError(
            'Positions can be resized from a square grid and a class token, '
            f'1 + n * n rows, but got {len(table)} rows. Start from weights '
            'of square images.'
        )
    grid = table[1:].float().unflatten(0, (side, side)).permute(2, 0, 1)
    resized = F.interpolate(
        grid.unsqueeze(0), size, mode='bicubic', antialias=True
    )  # (1, C, rows, columns)
    rows = resized[0].flatten(1).T.to(table.dtype)
    return torch.cat([table[:1], rows])


def stretch_rows(table: Tensor, rows: int) -> Tensor:
    """Stretch text positions as `Long-CLIP`_ does.

    The first 20 rows are kept. Further places lie closer by ``(rows - 20) /
    (old rows - 20)`` and are interpolated linearly between their neighbours;
    the few beyond the last row go on along its slope. A table with no row
    beyond them keeps the same share, 20 of 77.

    Args:
        table (Tensor): Shape ``(old rows, C)``.
        rows (int): More than there are.

    Returns:
        Tensor: Shape ``(rows, C)``, type of the table.

    Raises:
        ValueError: If there are fewer than 3 rows to start from.

    .. _Long-CLIP: https://arxiv.org/abs/2403.15378
    """
    old = len(table)
    if old < 3:
        raise ValueError(
            f'Positions can be stretched from at least 3 rows, but got {old}. '
            'Start from weights with a longer table.'
        )
    kept = WELL_TRAINED_ROWS
    if old < kept + 2:
        kept = old * WELL_TRAINED_ROWS // ROWS_OF_CLIP
    steps = torch.arange(rows - kept, dtype=torch.float64)
    places = kept + steps * ((old - kept) / (rows - kept))
    before = places.long().clamp(max=old - 2)
    share = (places - before).unsqueeze(1)  # above 1 beyond the last row
    values = table.to('cpu', torch.float64)
    rest = values[before] * (1 - share) + values[before + 1] * share
    return torch.cat([table[:kept], rest.to(table)])


def describe_misfit(tower: nn.Module, table: Tensor) -> str | None:
    """Say which setting a table of another size asks for.

    Args:
        tower (nn.Module): A tower of open_clip.
        table (Tensor): What was to be loaded.

    Returns:
        str or None: None if only the number of rows could differ and does
        not.
    """
    expected = getattr(tower, TABLE)
    if (
        table.ndim != 2
        or table.shape == expected.shape
        or table.shape[1] != expected.shape[1]
    ):
        return None
    have, need = len(table), len(expected)
    if isinstance(tower, VisionTransformer):
        height, width = tower.image_size
        rows, columns = tower.grid_size
        return (
            f'{TABLE} has {have} rows, but images of {height} x {width} '
            f'pixels need {need}, {rows} x {columns} patches and the class '
            'token. Set image_size to that of the weights, or '
            'resize_positions=True of the encoder to interpolate.'
        )
    return (
        f'{TABLE} has {have} rows, but max_words={need} needs {need}. Set '
        f'max_words={have} in the encoder and in TokenizeCaptions, or '
        'resize_positions=True of the encoder to '
        f'{"stretch" if have < need else "cut"} the table.'
    )

"""Lists of names in messages."""

from collections.abc import Sequence

#: Number of names shown before the rest is counted.
MAX_NAMED = 5


def name_some(names: Sequence[object]) -> str:
    """List the first names and count the others."""
    shown = ', '.join(str(name) for name in names[:MAX_NAMED])
    rest = len(names) - MAX_NAMED
    return f'{shown} and {rest} more' if rest > 0 else shown

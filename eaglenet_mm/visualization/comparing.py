"""Whether results can be compared, and where their models differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .results_data import RetrievalResults

#: Models on one page: more have no colours.
MOST_MODELS = 6


@dataclass
class Outcome:
    """Queries that went alike.

    Args:
        name (str): What they have in common.
        rows (set[int]): The captions.
    """

    name: str
    rows: set[int]


def choose_names(
    results: Sequence[RetrievalResults],
    folders: Sequence[str | Path],
    names: Sequence[str] | None = None,
) -> list[str]:
    """Name the models of a comparison.

    Args:
        results (Sequence[RetrievalResults]): Of the models.
        folders (Sequence[str | Path]): Where they were read.
        names (Sequence[str], optional): What the user calls them. Defaults to
            None: by their methods, or by their folders where two methods are
            the same.

    Returns:
        list[str]: One each, all different.

    Raises:
        ValueError: If names are missing or not different.
    """
    if names is None:
        methods = [part.about.get('method', '') for part in results]
        stems = [Path(folder).resolve().name for folder in folders]
        names = methods
        if len(set(methods)) < len(methods):
            names = [
                f'{method} ({stem})'
                for method, stem in zip(methods, stems, strict=True)
            ]
        if len(set(names)) < len(names):
            names = [f'{number}: {x}' for number, x in enumerate(names, 1)]
    if len(names) != len(results) or len(set(names)) < len(names):
        raise ValueError(
            f'{len(results)} results need as many different names, but got '
            f'{list(names)}. Change --names.'
        )
    return list(names)


def check_comparable(
    results: Sequence[RetrievalResults], names: Sequence[str]
) -> None:
    """Refuse results of different galleries or queries.

    Args:
        results (Sequence[RetrievalResults]): Of the models.
        names (Sequence[str]): What to call them in the message.

    Raises:
        ValueError: If there are too few or too many, or they differ.
    """
    if not 2 <= len(results) <= MOST_MODELS:
        raise ValueError(
            f'A comparison takes 2 to {MOST_MODELS} results, but got '
            f'{len(results)}.'
        )
    first = results[0]
    for part, name in zip(results[1:], names[1:], strict=True):
        for what, own, other in (
            ('videos', first.video_ids, part.video_ids),
            ('captions', first.captions, part.captions),
            ('videos of the captions', first.targets, part.targets),
            ('right videos', first.right or [], part.right or []),
        ):
            if own == other:
                continue
            raise ValueError(
                f"'{names[0]}' and '{name}' cannot be compared: their {what} "
                f'differ. {_difference(own, other, names[0], name)} Test both '
                'on the same annotation file, with all of its videos.'
            )


def _difference(
    own: Sequence[object], other: Sequence[object], first: str, second: str
) -> str:
    """Say in what two lists differ."""
    if len(own) != len(other):
        return f"'{first}' has {len(own)}, '{second}' has {len(other)}."
    place = next(i for i, x in enumerate(own) if x != other[i])
    count = sum(a != b for a, b in zip(own, other, strict=True))
    return (
        f'{count} of {len(own)} are not the same; the first is number '
        f"{place}: {own[place]!r} in '{first}', {other[place]!r} in "
        f"'{second}'."
    )


def outcomes(
    results: Sequence[RetrievalResults], names: Sequence[str]
) -> list[Outcome]:
    """Sort all queries by which models rank the right video first.

    Args:
        results (Sequence[RetrievalResults]): Of the models.
        names (Sequence[str]): What to call them.

    Returns:
        list[Outcome]: The first holds all queries, which are the captions
        with a right video. Of two models, every
        query is in one of the others; of more, the others are those that all
        agree on, and those where one stands alone.
    """
    every = {row for row, rank in enumerate(results[0].ranks) if rank}
    right = [
        {row for row, rank in enumerate(part.ranks) if rank == 1}
        for part in results
    ]
    if len(results) == 2:
        (a, b), (own, other) = names, right
        return [
            Outcome('All', every),
            Outcome(f'{a} right, {b} wrong', own - other),
            Outcome(f'{b} right, {a} wrong', other - own),
            Outcome('Both right', own & other),
            Outcome('Both wrong', every - own - other),
        ]
    groups = [
        Outcome('All', every),
        Outcome('All right', set.intersection(*right)),
        Outcome('All wrong', every.difference(*right)),
    ]
    for place, name in enumerate(names):
        others = right[:place] + right[place + 1 :]
        own = right[place]
        groups.append(Outcome(f'Only {name} right', own.difference(*others)))
        groups.append(
            Outcome(f'Only {name} wrong', set.intersection(*others) - own)
        )
    return groups

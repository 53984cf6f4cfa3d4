"""Page that compares several models on the same queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eaglenet_mm.visualization.charts import rank_histogram
from eaglenet_mm.visualization.page import (
    DIRECTIONS,
    Group,
    incomplete,
    query_cards,
    render,
    stated_facts,
)
from eaglenet_mm.visualization.results_data import RetrievalResults

#: Maximum number of models, limited by the colours.
MOST_MODELS = 6
_METRICS = {
    'R1': 'R@1', 'R5': 'R@5', 'R10': 'R@10', 'MdR': 'median rank',
    'MnR': 'mean rank',
}  # fmt: skip


def compare_page(
    results: Sequence[RetrievalResults], names: Sequence[str]
) -> str:
    """Render a page that compares evaluations of the same set.

    Args:
        results (Sequence[RetrievalResults]): Results of 2 to 6 models.
        names (Sequence[str]): Distinct names of the models.

    Returns:
        str: Self-contained HTML.

    Raises:
        ValueError: If they cannot be compared; the message says what
            differs.
    """
    check_comparable(results, names)
    first, total = results[0], len(results[0].answerable_ranks())
    groups = outcomes(results, names)
    shown = {query.row for part in results for query in part.queries}
    by_name = dict(zip(names, results, strict=True))
    facts = {name: stated_facts(by_name[name].about) for name in names}
    shared = {
        key: value
        for key, value in facts[names[0]].items()
        if key not in ('config', 'checkpoint')  # listed per model
        and all(own.get(key) == value for own in facts.values())
    }
    return render(
        'compare.html.j2',
        title=f'{", ".join(names)} on '
        f'{first.about.get("dataset", "a dataset")}',
        first=first,
        names=names,
        num_shown=len(shown),
        shared=shared,
        models={
            name: {k: x for k, x in own.items() if k not in shared}
            for name, own in facts.items()
        },
        warnings=[
            f'{name}: {incomplete(part)}'
            for name, part in by_name.items()
            if incomplete(part)
        ],
        metrics=[
            ([said, *_METRICS.values()], _metric_rows(by_name, key))
            for key, said in DIRECTIONS.items()
        ],
        groups=[
            (
                group.name,
                (str(len(group.rows)), 'main'),
                f'{100 * len(group.rows) / max(1, total):.1f}%',
                str(len(shown & group.rows)),
            )
            for group in groups
        ],
        histogram=rank_histogram(
            {name: part.answerable_ranks() for name, part in by_name.items()}
        ),
        **query_cards(
            results,
            names,
            groups,
            {'ranks differ most': lambda row: _gap(results, row)},
        ),
    )


def _gap(results: Sequence[RetrievalResults], row: int) -> int:
    ranks = [part.ranks[row] for part in results]
    return min(ranks) - max(ranks)


def _metric_rows(
    results: Mapping[str, RetrievalResults], direction: str
) -> list[list[str | tuple[str, str]]]:
    """One row per model; the best value of each column has a class."""
    rows: list[list[str | tuple[str, str]]] = [[name] for name in results]
    for metric in _METRICS:
        values = [
            part.metrics.get(f'{direction}/{metric}')
            for part in results.values()
        ]
        known = [value for value in values if value is not None]
        choose = min if metric in ('MdR', 'MnR') else max
        best = choose(known, default=None)
        for row, value in zip(rows, values, strict=True):
            text = '' if value is None else f'{value:.2f}'
            row.append((text, 'best' if text and value == best else ''))
    return rows


def choose_names(
    results: Sequence[RetrievalResults],
    folders: Sequence[str | Path],
    names: Sequence[str] | None = None,
) -> list[str]:
    """Use the given names, or derive distinct ones from the results."""
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
    """Refuse a wrong number of results, and results of different sets."""
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
    if len(own) != len(other):
        return f"'{first}' has {len(own)}, '{second}' has {len(other)}."
    place = next(i for i, x in enumerate(own) if x != other[i])
    count = sum(a != b for a, b in zip(own, other, strict=True))
    return (
        f'{count} of {len(own)} differ; the first is number '
        f"{place}: {own[place]!r} in '{first}', {other[place]!r} in "
        f"'{second}'."
    )


def outcomes(
    results: Sequence[RetrievalResults], names: Sequence[str]
) -> list[Group]:
    """Group the answerable captions by which models rank a right video first.

    The first group holds all of them. For two models, the others are the four
    outcomes; for more, full agreement and one model standing alone.
    """
    every = {row for row, rank in enumerate(results[0].ranks) if rank}
    right = [
        {row for row, rank in enumerate(part.ranks) if rank == 1}
        for part in results
    ]
    if len(results) == 2:
        (a, b), (own, other) = names, right
        return [
            Group('All', every),
            Group(f'{a} right, {b} wrong', own - other),
            Group(f'{b} right, {a} wrong', other - own),
            Group('Both right', own & other),
            Group('Both wrong', every - own - other),
        ]
    groups = [
        Group('All', every),
        Group('All right', set.intersection(*right)),
        Group('All wrong', every.difference(*right)),
    ]
    for place, name in enumerate(names):
        others = right[:place] + right[place + 1 :]
        own = right[place]
        groups.append(Group(f'Only {name} right', own.difference(*others)))
        groups.append(
            Group(f'Only {name} wrong', set.intersection(*others) - own)
        )
    return groups

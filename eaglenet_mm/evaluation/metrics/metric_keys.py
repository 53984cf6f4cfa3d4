"""Which way is up: the grammar of the keys that the rank metric reports."""

from __future__ import annotations

import re

from ..functional.ranking import RECALL_AT

_KEY = re.compile(
    r'(?:parts/.+/)?'
    r'(?:(?:t2v|v2t)(?:_(?P<rescored>\w+))?/(?P<name>[^/_]+|shortlist_recall)'
    r'|(?P<sum>Rsum)(?:_(?P<rescored_sum>(?!mean$|std$)\w+?))?)'
    r'(?:(?<=/R1)(?P<bound>_low|_high))?'
    r'(?P<noise>_mean|_std)?'
)
_GREATER = re.compile(
    rf'R({"|".join(map(str, RECALL_AT))})|(mAP|nDCG)(@?\d+)?|shortlist_recall'
)
_LESS = re.compile(r'MdR|MnR|ties')


def better_when(key: str) -> str | None:
    """Tell whether a higher or a lower value of a key is the better one.

    One rule for all keys of
    :class:`~eaglenet_mm.evaluation.RetrievalRankMetric` and of the loops:
    the name of the measure decides, whatever stands before it (part of a
    joined set, direction, post-processing) or behind it (bound of an
    interval, mean over noise seeds). A spread, ``_std``, is better when
    smaller.

    Args:
        key (str): Such as ``t2v/R1``, ``v2t_dsl/MdR``,
            ``parts/msvd/t2v/MnR_mean``.

    Returns:
        str or None: ``'greater'``, ``'less'``, or None for what is no such
        key or, as a count of the set, no measure of quality.

    Example:
        >>> better_when('t2v/R1'), better_when('parts/msvd/v2t_dsl/MnR')
        ('greater', 'less')
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    name = match['name']
    if name is not None and not _GREATER.fullmatch(name):
        if not _LESS.fullmatch(name):
            return None
        return 'less'
    return 'less' if match['noise'] == '_std' else 'greater'


def options_of(key: str) -> set[str]:
    """Name what has to be asked for, so that a key is reported.

    Args:
        key (str): A key for which :func:`better_when` knows an answer.

    Returns:
        set[str]: The kind of post-processing, such as ``'dsl'``;
        ``'bootstrap'`` of the metric; ``'noise_seeds'`` and ``'shortlist'``
        of the loop.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return set()
    rescored = match['rescored'] or match['rescored_sum']
    wanted = {
        rescored: rescored is not None,
        'bootstrap': match['bound'] is not None,
        'noise_seeds': match['noise'] is not None,
        'shortlist': match['name'] == 'shortlist_recall',
    }
    return {name for name, needed in wanted.items() if needed}

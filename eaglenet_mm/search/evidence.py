"""How much an answer is worth: strange words, and "nothing found"."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from eaglenet_mm.search.video_index import VideoIndex

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


@dataclass(frozen=True)
class Calibration:
    """Best scores of captions whose videos are in the index.

    By split conformal prediction: for a further caption of the same kind
    whose video is in the index, :meth:`p_value` is at most ``alpha`` with a
    probability of at most ``alpha``, whatever the head and its scores.

    Example:
        >>> calibration = Calibration('1f', 100, [0.1, 0.2, 0.3, 0.4])
        >>> calibration.p_value(0.15)
        0.4
    """

    head: str  # hash
    shortlist: int  # rows that the head scored; 0 for all
    scores: list[float]  # one a caption, ascending

    @classmethod
    def of(
        cls, head: str, shortlist: int, scores: Iterable[float]
    ) -> Calibration:
        """Check and sort scores."""
        kept = sorted(map(float, scores))
        if not kept or not all(map(math.isfinite, kept)):
            raise ValueError(
                'A calibration needs finite scores of captions, but got '
                f'{len(kept)} scores. Give a file with captions of videos in '
                'the index.'
            )
        return cls(head, shortlist, kept)

    @classmethod
    def of_index(
        cls, index: VideoIndex, head: str, shortlist: int
    ) -> Calibration | None:
        """Find what was kept for a head and a shortlist."""
        every = [cls(**kept) for kept in index.about.get('calibrations', ())]
        own = [x for x in every if (x.head, x.shortlist) == (head, shortlist)]
        return own[0] if own else None

    def keep_in(self, index: VideoIndex) -> None:
        """Keep it in the place of an earlier one."""
        others = [
            kept
            for kept in index.about.get('calibrations', ())
            if (kept['head'], kept['shortlist']) != (self.head, self.shortlist)
        ]
        index.set_about('calibrations', [*others, asdict(self)])

    def p_value(self, top_score: float) -> float:
        """Share of captions, this query among them, that score as low."""
        below = bisect_right(self.scores, top_score)
        return (below + 1) / (len(self.scores) + 1)


def check_alpha(alpha: float) -> None:
    """Refuse a share of wrongly refused queries that is none."""
    if not 0 < alpha < 1:
        raise ValueError(
            'reject is the share of good queries that may be refused, between '
            f'0 and 1 (such as 0.05), but is {alpha}.'
        )


def words_of(text: str) -> list[str]:
    """List the words of a text in lower case, each once."""
    return list(dict.fromkeys(_WORD.findall(text.lower())))


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """List the words that a tokenizer has no id of."""
    find = getattr(tokenizer, 'unknown_words', None)
    return [] if find is None else find(words_of(text))


def characters_read(
    tokenizer: Callable[[Sequence[str], int], Tensor],
    max_words: int,
    text: str,
) -> int | None:
    """Find how much of a text the model reads.

    A tokenizer does not say where it cuts. Up to there, every further
    character may change the tokens; behind it, none does.
    """
    whole = tokenizer([text], max_words)[0]
    low, high = 0, len(text)  # the first ``high`` characters are enough
    while low < high:
        middle = (low + high) // 2
        if tokenizer([text[:middle]], max_words)[0].equal(whole):
            high = middle
        else:
            low = middle + 1
    # a full stop at the end may be without a token although nothing is cut
    length = whole.numel() + len(text.encode('utf-8', 'replace')) + 8
    start, full = tokenizer([text[:high], text], length)
    return None if start.equal(full) else high

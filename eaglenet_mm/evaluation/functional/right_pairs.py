"""Which texts and videos belong together, where that is not one video a text.

Elsewhere one vector says it: the column of each caption's video.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RightPairs:
    """The right pairs of a score matrix of ``Bt`` texts and ``Bv`` videos.

    A text may have several right videos, or none: then it is no query of
    text-to-video, and a wrong candidate of video-to-text. Likewise a video.

    Args:
        columns (Tensor): The video that each text stands with, or where that
            is not a right one the first right one; -1 where there is none;
            int64, shape ``(Bt,)``. Texts of one column are one candidate of
            video-to-text, and one group of a bootstrap.
        texts (Tensor): Text of each right pair, ascending, int64, shape
            ``(N,)``.
        videos (Tensor): Video of each, ascending within a text, int64, shape
            ``(N,)``. No pair stands twice.

    Example:
        >>> texts, videos = torch.tensor([[0, 0], [0, 2]])
        >>> RightPairs(torch.tensor([0, -1]), texts, videos).is_simple()
        False
    """

    columns: Tensor
    texts: Tensor
    videos: Tensor

    def __len__(self) -> int:
        return len(self.columns)

    def simplify(self) -> RightPairs | Tensor:
        """Return :attr:`columns` if every text has one right video."""
        return self.columns if self.is_simple() else self

    def is_simple(self) -> bool:
        """Whether every text has one right video."""
        places = torch.arange(len(self), device=self.texts.device)
        return torch.equal(self.texts, places)

    def select(self, rows: slice, columns: Tensor) -> RightPairs:
        """Take some texts and some videos, numbered anew.

        Args:
            rows (slice): The texts, with a start and a stop.
            columns (Tensor): The videos, ascending, int64.

        Returns:
            RightPairs: Of these alone.
        """
        highest = max(
            int(part.max()) if len(part) else -1
            for part in (columns, self.columns, self.videos)
        )
        place = columns.new_full((highest + 2,), -1)  # the last: of -1
        place[columns] = torch.arange(len(columns), device=columns.device)
        videos = place[self.videos]
        here = (self.texts >= rows.start) & (self.texts < rows.stop)
        kept = here & (videos >= 0)
        return RightPairs(
            place[self.columns[rows]],
            self.texts[kept] - rows.start,
            videos[kept],
        )

    def of_texts(self, start: int, stop: int, num_videos: int) -> Tensor:
        """Mark the right videos of some texts.

        Args:
            start (int): First text.
            stop (int): One past the last.
            num_videos (int): ``Bv``.

        Returns:
            Tensor: Bool, shape ``(stop - start, Bv)``.
        """
        shape, device = (stop - start, num_videos), self.texts.device
        mask = torch.zeros(shape, dtype=torch.bool, device=device)
        here = (self.texts >= start) & (self.texts < stop)
        mask[self.texts[here] - start, self.videos[here]] = True
        return mask

    def groups(self) -> Tensor:
        """Number the candidates of video-to-text, from 0.

        Returns:
            Tensor: Of each text, int64, shape ``(Bt,)``; texts of one video
            share a number, a text without any has its own.
        """
        own = -1 - torch.arange(len(self), device=self.columns.device)
        numbers = torch.where(self.columns < 0, own, self.columns)
        return numbers.unique(return_inverse=True)[1]

"""MMEngine's progress bar, on the main process and with few updates."""

from __future__ import annotations

import sys

from mmengine.dist import is_main_process
from mmengine.utils import ProgressBar

_UPDATES = 40


class Progress:
    """Progress bar of the main process."""

    def __init__(self, name: str, total: int) -> None:
        self.total = total
        self._done = self._shown = 0
        self._bar: ProgressBar | None = None
        if is_main_process() and total > 0:
            sys.stdout.write(f'{name} ')
            self._bar = ProgressBar(total, file=sys.stdout)

    def update(self, count: int) -> None:
        """Add finished items."""
        self._done += count
        if (self._done - self._shown) * _UPDATES >= self.total:
            self._show()

    def close(self) -> None:
        """Complete the bar and end its line."""
        self._done = self.total
        self._show()
        if self._bar is not None:
            sys.stdout.write('\n')
            sys.stdout.flush()

    def _show(self) -> None:
        if self._bar is not None and self._done > self._shown:
            self._bar.update(self._done - self._shown)
        self._shown = self._done

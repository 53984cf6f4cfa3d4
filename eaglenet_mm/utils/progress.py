"""Progress of long work: a bar in a terminal, four lines in a file."""

from __future__ import annotations

import sys
import time

from mmengine.dist import is_main_process
from mmengine.utils import ProgressBar

_UPDATES = 40  # of a bar
_LINES = 4


class Progress:
    """Progress of the main process, with few updates."""

    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = total
        self._done = self._shown = 0
        self._is_shown = is_main_process() and total > 0
        self._start = time.monotonic()
        self._bar: ProgressBar | None = None
        if self._is_shown and is_terminal():
            sys.stdout.write(f'{name} ')
            self._bar = ProgressBar(total, file=sys.stdout)

    def update(self, count: int) -> None:
        """Add finished items."""
        self._done += count
        updates = _UPDATES if self._bar is not None else _LINES
        if (self._done - self._shown) * updates >= self.total:
            self._show()

    def close(self) -> None:
        """Complete the bar and end its line."""
        self._done = self.total
        self._show()
        if self._bar is not None:
            sys.stdout.write('\n')
            sys.stdout.flush()

    def _show(self) -> None:
        if self._is_shown and self._done > self._shown:
            if self._bar is not None:
                self._bar.update(self._done - self._shown)
            else:
                seconds = time.monotonic() - self._start
                sys.stdout.write(
                    f'{self.name}: {self._done} of {self.total}, '
                    f'{seconds:.0f} s\n'
                )
                sys.stdout.flush()
        self._shown = self._done


def is_terminal() -> bool:
    """Whether somebody watches the standard output."""
    return sys.stdout.isatty()

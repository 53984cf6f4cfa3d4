"""Run one of the tools to its end, and tell what that took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Lines of a log that are repeated where a run failed.
_LAST_LINES = 3


class RunError(RuntimeError):
    """A training or test that did not end well."""


def run_tool(
    tool: Path,
    arguments: Sequence[Any],
    log: Path,
    pass_fds: Sequence[int] = (),
) -> tuple[float, int]:
    """Run a tool in a process of its own.

    Args:
        tool (Path): The script.
        arguments (Sequence): Of its command line.
        log (Path): Gets its output, behind what is there.
        pass_fds (Sequence[int]): Open files that it inherits. Default: none.

    Returns:
        tuple[float, int]: Seconds by the clock, and bytes of memory that were
        resident at most, of the process or of one of its workers if that had
        more.

    Raises:
        RunError: If it ended with an error; names the log and its end.
    """
    begin = time.perf_counter()
    with log.open('ab') as file:
        process = subprocess.Popen(
            list(map(str, [sys.executable, tool, *arguments])),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
        )
        try:
            # its own usage, which subprocess does not tell
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_text('utf-8', 'replace').splitlines()
        told = [line.strip() for line in lines if line.strip()]
        raise RunError(
            f'{tool.name} ended with code {process.returncode}; see {log}: '
            f'{" | ".join(told[-_LAST_LINES:])}'
        )
    # kilobytes, but bytes on a Mac
    unit = 1 if sys.platform == 'darwin' else 1024
    return time.perf_counter() - begin, usage.ru_maxrss * unit

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
_SECONDS_BETWEEN_LOOKS = 0.02


class RunError(RuntimeError):
    """A training or test that did not end well."""


def run_tool(
    tool: Path,
    arguments: Sequence[Any],
    log: Path,
    pass_fds: Sequence[int] = (),
) -> tuple[float, int]:
    """Run a tool in a process that appends to a log and inherits open files.

    Returns seconds by the clock, and bytes of the host's memory that were
    resident in the process at most.
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
            peak = 0
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            while not ended:
                peak = max(peak, _peak_of(process.pid))
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
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
    if not peak:  # not on Linux; kilobytes, but bytes on a Mac
        peak = usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
    return time.perf_counter() - begin, peak


def _peak_of(pid: int) -> int:
    """Bytes that were resident since the process began its program.

    Its resource usage would tell the size of the process that started it, if
    that is larger.
    """
    try:
        lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    except OSError:
        return 0
    sizes = [x.split()[1] for x in lines if x.startswith('VmHWM:')]
    return int(sizes[0]) * 1024 if sizes else 0

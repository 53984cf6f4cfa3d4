"""Processes that start with everything imported.

A new interpreter needs 5 to 8 s for torch, MMEngine and this package. The
processes here are forked from one server that has imported them and done
nothing else, so they start at once and share no state with the tests.
"""

from __future__ import annotations

import ast
import ctypes
import gc
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing import start_processes

import eaglenet_mm  # noqa: F401  repairs of the environment come first

#: CUDA, which MMEngine asks for when it is imported, does not outlive a fork.
METHOD = 'spawn' if torch.cuda.is_available() else 'forkserver'
CONTEXT = multiprocessing.get_context(METHOD)
CONTEXT.set_forkserver_preload(
    [
        'eaglenet_mm.apis',
        'eaglenet_mm.datasets',
        'eaglenet_mm.engine',
        'eaglenet_mm.models',
        'eaglenet_mm.visualization',
        *('av', 'matplotlib.figure', 'pytest'),
    ]
)


def save_time() -> None:
    """Leave out what MMEngine does in every run and no test looks at.

    A Runner describes the machine (it starts compilers to ask for their
    versions) and lays out the text of its config some eight times.
    """
    from mmengine.config import config
    from mmengine.runner import runner

    runner.collect_env = dict
    config.FormatCode = _as_written
    # what is imported stays: each collection, and MMEngine makes one for a
    # data set, would walk through it
    gc.freeze()


def _as_written(text: str, **_: Any) -> tuple[str, bool]:
    ast.parse(text)
    return text, False


def run_ranks(
    function: Callable[..., None], *arguments: Any, world: int = 2
) -> None:
    """Call ``function(rank, *arguments)`` in processes; raise their errors."""
    start_processes(
        _run_rank, (function, *arguments), world, start_method=METHOD
    )


def _run_rank(rank: int, function: Callable[..., None], *args: Any) -> None:
    _begin()
    function(rank, *args)


def _begin() -> None:
    # processes of this one are started as those of any program
    multiprocessing.set_start_method(None, force=True)
    save_time()


def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Call a function in a process, in a process group of its own."""
    process = CONTEXT.Process(target=_lead_group, args=(function, *arguments))
    process.start()
    return process


def _lead_group(function: Callable[..., None], *arguments: Any) -> None:
    os.setsid()
    # where the tests run in the background, it may be ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _begin()
    function(*arguments)


class Script:
    """A Python script in a process, as a user at a terminal would start it.

    Args:
        command: The script and its arguments.
        folder: The working directory.
        output: The file that takes what it prints.
        environment: Variables of the environment beside those of the tests.
    """

    def __init__(
        self, *command: Any, folder: Path, output: Path, **environment: str
    ) -> None:
        self.output = output
        self.process = start(
            _run_script, list(map(str, command)), folder, output, environment
        )

    def wait(self, seconds: float = 240) -> int:
        """Wait for its end; kill it if that takes too long."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(f'still running:\n{self.output.read_text()}')
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to it and its children, as a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it and its children."""
        if self.process.exitcode is None:
            self.send_signal(signal.SIGKILL)
            self.process.join()


def run_script(
    *command: Any, folder: Path, code: int = 0, **environment: str
) -> str:
    """Run a script to its end; give what it printed."""
    output = folder / f'.output-{os.getpid()}'
    script = Script(*command, folder=folder, output=output, **environment)
    ended = script.wait()
    told = output.read_text()
    output.unlink()
    assert ended == code, told
    return told


def _run_script(
    command: list[str], folder: Path, output: Path, environment: dict[str, str]
) -> None:
    become_user()
    os.chdir(folder)
    os.environ.update(environment)
    with output.open('ab', buffering=0) as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name='__main__')


def become_user() -> None:
    """Give up what the super-user may: to read what is forbidden."""
    if sys.platform != 'linux':
        return
    libc = ctypes.CDLL(None)
    drop_from_bounds, override, read_search = 24, 1, 2
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    # effective, permitted, inheritable; then those above 31
    capabilities = (ctypes.c_uint32 * 6)()
    libc.capget(header, capabilities)
    for capability in (override, read_search):
        libc.prctl(drop_from_bounds, capability, 0, 0, 0)  # of its children
        for place in range(3):
            capabilities[place] &= ~(1 << capability)
    libc.capset(header, capabilities)

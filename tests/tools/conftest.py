"""Starting the tools, in this process or in one of their own."""

import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parents[1] / 'tools'


@pytest.fixture
def mini_config():
    return HERE / 'mini_config.py'


@pytest.fixture
def call_tool(monkeypatch):
    """Run a tool in this process, which saves its start-up time."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setenv('EAGLENET_MM_TRUST_CHECKPOINTS', '0')

    def call(name, *arguments):
        for kind in (DefaultScope, MessageHub, MMLogger, Visualizer):
            # MMEngine names them by the second, and two runs may share one
            kind._instance_dict.clear()
        # as Python does for a script
        monkeypatch.syspath_prepend(str((TOOLS / name).parent))
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        monkeypatch.setattr(sys, 'excepthook', sys.excepthook)
        runpy.run_path(str(TOOLS / name), run_name='__main__')

    return call


@dataclass
class Told:
    """What a tool printed."""

    stdout: str
    stderr: str


@pytest.fixture
def tell_tool(call_tool, capsys, monkeypatch, repository):
    """Run a tool in this process, from the repository; give its output."""
    monkeypatch.chdir(repository)

    def tell(name, *options, expected=0):
        capsys.readouterr()
        status = 0
        try:
            call_tool(f'{name}.py', *options)
        except SystemExit as end:
            status = end.code
        told = Told(*capsys.readouterr())
        assert status == expected, told
        return told

    return tell


@pytest.fixture
def environment():
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    return {
        **os.environ,
        'PYTHONPATH': path,
        'PYTHON': sys.executable,
        'OMP_NUM_THREADS': '1',
    }


@pytest.fixture
def start_tool(environment):
    """Run a script of ``tools`` in a process; fail with its output."""

    def start(*command):
        result = subprocess.run(
            list(map(str, command)),
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    return start

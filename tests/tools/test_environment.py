"""Which Python the scripts take, and when they install."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture
def checkout(tmp_path):
    """Make a checkout whose pip only writes down how it was called."""
    (tmp_path / 'tools').mkdir()
    text = (TOOLS / 'environment.sh').read_text()
    (tmp_path / 'tools' / 'environment.sh').write_text(text)
    for name in ('setup.py', 'pyproject.toml', 'constraints.txt'):
        (tmp_path / name).write_text(name)
    bin_folder = tmp_path / '.venv' / 'bin'
    bin_folder.mkdir(parents=True)
    python = bin_folder / 'python'
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/called\n')
    python.chmod(0o755)
    return tmp_path


def run(checkout, command, **variables):
    keep = {'PATH': os.environ['PATH'], 'HOME': str(checkout)}
    return subprocess.run(
        [
            'bash',
            '-c',
            # macOS has a bash without it
            f'enable -n mapfile; set -euo pipefail; source {checkout}/tools/'
            f'environment.sh; {command}',
        ],
        env={**keep, **variables},
        cwd='/',
        capture_output=True,
        text=True,
    )


def test_python_by_preference(checkout):
    def found(**variables):
        return run(checkout, 'find_python', **variables).stdout.strip()

    assert found(PYTHON='mine', VIRTUAL_ENV='/active') == 'mine'
    assert found(VIRTUAL_ENV='/active') == '/active/bin/python'
    assert found() == f'{checkout}/.venv/bin/python'
    assert found(EAGLENET_MM_VENV='/nowhere') == 'python'


def test_installs_once_and_again_when_the_pins_change(checkout):
    called = checkout / 'called'
    result = run(checkout, 'ensure_environment lite,serve')
    assert result.returncode == 0, result.stderr
    assert 'Installing into' in result.stdout
    assert '-c constraints.txt -e .[lite,serve]' in called.read_text()
    result = run(checkout, 'ensure_environment lite,serve')
    assert 'Using the environment' in result.stdout
    assert len(called.read_text().splitlines()) == 1
    (checkout / 'constraints.txt').write_text('changed')
    run(checkout, 'ensure_environment lite,serve')
    assert len(called.read_text().splitlines()) == 2


def test_extras_are_added_and_kept(checkout):
    called = checkout / 'called'

    def installs(extras):
        run(checkout, f'ensure_environment {extras}')
        return len(called.read_text().splitlines())

    assert installs('lite,serve') == 1
    assert installs('dev,lite') == 2
    # both are there now, in any order
    assert installs('serve,lite') == 2
    assert installs('lite,dev') == 2
    (checkout / 'constraints.txt').write_text('changed')
    assert installs('lite') == 3
    # pins changed since the others were installed
    assert installs('dev,lite') == 4


@pytest.mark.nightly
def test_a_failed_install_is_tried_again(checkout):
    python = checkout / '.venv' / 'bin' / 'python'
    working = python.read_text()
    python.write_text('#!/bin/sh\nexit 1\n')
    assert run(checkout, 'ensure_environment lite').returncode != 0
    python.write_text(working)
    assert 'Installing' in run(checkout, 'ensure_environment lite').stdout


@pytest.mark.nightly
def test_makes_an_environment_where_there_is_none(checkout):
    """Only that it is made: the installation into it is left out."""
    command = (
        'find_base_python() { echo make_venv; }; '
        'make_venv() { mkdir -p "$3/bin"; cp /bin/true "$3/bin/python"; }; '
        'ensure_environment lite; echo "$python"'
    )
    new = f'{checkout}/new'
    result = run(checkout, command, EAGLENET_MM_VENV=new)
    assert f'Making a virtual environment in {new}' in result.stdout
    assert result.stdout.endswith(f'{new}/bin/python\n')


@pytest.mark.nightly
def test_finds_a_base_python(checkout):
    result = run(checkout, 'find_base_python', BASE_PYTHON=sys.executable)
    assert result.stdout.strip() == sys.executable


def test_says_which_python_is_needed(checkout):
    result = run(checkout, 'find_base_python', BASE_PYTHON='/bin/false')
    assert result.returncode == 1
    assert 'Python 3.10 to 3.13' in result.stderr


def test_ffmpeg_of_pyav_under_the_names_torchcodec_asks_for(checkout):
    packages = checkout / '.venv' / 'lib' / 'python3.11' / 'site-packages'
    told = run(checkout, 'find_ffmpeg; echo ${LD_LIBRARY_PATH:-none}').stdout
    assert told.strip() == 'none'
    (packages / 'av.libs').mkdir(parents=True)
    for name in ('libavutil-5809ad29.so.60.26.102', 'libx264-32d.so.165'):
        (packages / 'av.libs' / name).write_text(name)
    (packages / 'av.libs' / 'libswscale-a1.so.9.5.1').touch()
    for _ in range(2):
        result = run(
            checkout,
            'find_ffmpeg; echo $LD_LIBRARY_PATH',
            LD_LIBRARY_PATH='/x',
        )
        links = checkout / '.venv' / 'ffmpeg'
        assert result.stdout.strip() == f'{links}:{packages / "av.libs"}:/x'
        names = sorted(path.name for path in links.iterdir())
        assert names == ['libavutil.so.60', 'libswscale.so.9']
        assert (links / 'libavutil.so.60').read_text().startswith('libavutil')

import subprocess
import sys

import pytest

from eaglenet_mm.datasets.annotation import read_annotation


def run(repository, *arguments):
    return subprocess.run(
        [
            sys.executable,
            repository / 'tools/dataset_converters/story.py',
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.nightly
@pytest.mark.slow
def test_generates_once(repository, tmp_path):
    arguments = ['--out', tmp_path / 'story', '--limit', 2]
    first = run(repository, *arguments, '--workers', 1)
    assert first.returncode == 0, first.stderr
    assert 'Wrote the story set' in first.stdout
    assert '6 of 6' in first.stdout
    _, records = read_annotation(tmp_path / 'story' / 'test.json')
    assert len(records) == 2
    second = run(repository, *arguments)
    assert second.returncode == 0, second.stderr
    assert 'nothing to do' in second.stdout


@pytest.mark.nightly
@pytest.mark.slow
def test_says_what_is_wrong(repository, tmp_path):
    (tmp_path / 'precious.txt').write_text('mine')
    result = run(repository, '--out', tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("story.py: Expected '")
    assert 'Traceback' not in result.stderr

import subprocess
import sys

import pytest

from eaglenet_mm.datasets.annotation import read_annotation


def run(repository, *arguments):
    return subprocess.run(
        [
            sys.executable,
            repository / 'tools/dataset_converters/toy.py',
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.nightly
@pytest.mark.slow
def test_generates_once(repository, tmp_path):
    arguments = ['--out', tmp_path / 'toy', '--limit', 2, '--renderings', 1]
    first = run(repository, *arguments, '--captions', 2, '--workers', 1)
    assert first.returncode == 0, first.stderr
    assert 'Wrote the toy data set' in first.stdout
    assert '6/6' in first.stdout
    _, records = read_annotation(tmp_path / 'toy' / 'test.json')
    assert [len(record['captions']) for record in records] == [2, 2]
    second = run(repository, *arguments, '--captions', 2)
    assert second.returncode == 0, second.stderr
    assert 'nothing to do' in second.stdout


@pytest.mark.nightly
@pytest.mark.slow
def test_says_what_is_wrong(repository, tmp_path):
    (tmp_path / 'precious.txt').write_text('mine')
    result = run(repository, '--out', tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("toy.py: Expected '")
    assert 'Traceback' not in result.stderr

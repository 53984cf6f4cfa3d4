"""The converters as commands, on the official files where they are there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from eaglenet_mm.datasets import TextVideoDataset, read_annotation


@pytest.fixture
def convert(repository, tmp_path):
    def run(name, *options):
        return subprocess.run(
            [
                sys.executable,
                repository / f'tools/dataset_converters/{name}.py',
                *map(str, options),
                '--out',
                tmp_path,
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def annotations(shared_dir):
    return shared_dir / 'data' / 'annotations'


@pytest.mark.slow
def test_bad_input_is_one_sentence(convert, tmp_path):
    result = convert('vatex', '--captions', tmp_path, '--lists', tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith('vatex.py: Annotation file')
    assert 'Traceback' not in result.stderr


@pytest.mark.slow
def test_msrvtt(convert, annotations, tmp_path):
    folder = annotations / 'msrvtt'
    options = '--data', folder / 'MSRVTT_data.json', '--lists', folder
    result = convert('msrvtt', *options)
    assert result.returncode == 0, result.stderr
    assert (
        'test_1k-a: 1000 of 1000 videos, 1000 of 1000 captions\n'
        in result.stdout
    )
    assert 'train_9k: 704 of 9000 videos, 14080 of 180000' in result.stdout
    dataset = TextVideoDataset(str(tmp_path / 'test_1k-a.json'))
    assert len(dataset) == 1000
    assert dataset.metainfo['protocol'] == '1k-A'
    sentences = [dataset.get_data_info(i)['captions'][0] for i in range(1000)]
    assert sentences.count('a man playing video games') == 3
    report = json.loads((tmp_path / 'conversion_report.json').read_text())
    assert report['overlaps'] == {}
    assert len(report['splits'][0]['missing']) == 9000 - 704
    strict = convert('msrvtt', *options, '--strict')
    assert strict.returncode == 1
    assert 'nothing was written' in strict.stderr


@pytest.mark.nightly
def test_didemo(convert, annotations, tmp_path):
    folder = annotations / 'didemo'
    result = convert('didemo', '--data', folder, '--lists', folder)
    assert result.returncode == 0, result.stderr
    assert 'test: 1004 of 1004 videos' in result.stdout
    assert '33 have captions but are not listed' in result.stdout
    _, records = read_annotation(tmp_path / 'test.json')
    assert sum(x['video'].endswith('.') for x in records) == 27


@pytest.mark.nightly
def test_msvd(convert, annotations, tmp_path):
    folder = annotations / 'msvd'
    captions = folder / 'derived/raw-captions.pkl'
    result = convert('msvd', '--captions', captions, '--lists', folder)
    assert result.returncode == 0, result.stderr
    assert 'test: 201 of 670 videos, 8456 of 27763' in result.stdout
    from_pickle = read_annotation(tmp_path / 'test.json')
    convert(
        'msvd', '--captions', folder / 'captions_msvd.json', '--lists', folder
    )
    _, records = read_annotation(tmp_path / 'test.json')
    assert len(records) == 201
    for ours, theirs in zip(from_pickle[1], records, strict=True):
        # the pickle holds words, so runs of spaces are one there
        assert ours['captions'] == [
            ' '.join(x.split()) for x in theirs['captions']
        ]


@pytest.mark.nightly
def test_vatex(convert, annotations, tmp_path):
    folder = annotations / 'vatex'
    captions = folder / 'derived/ref_captions.json'
    result = convert('vatex', '--captions', captions, '--lists', folder)
    assert result.returncode == 0, result.stderr
    assert 'val: 1 of 1500 videos, 1 of 15000 captions' in result.stdout
    assert 'train: 0 of 25991 videos' in result.stdout
    convert('vatex', '--captions', captions, '--lists', folder / 'derived')
    header, records = read_annotation(tmp_path / 'train.json')
    assert (header['num_videos'], header['num_captions']) == (3, 30)
    assert records[0]['video'] == '5-xGskbsBgI_000055_000065.mp4'

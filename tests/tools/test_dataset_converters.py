"""The converters as commands, on the official files where they are there."""

from __future__ import annotations

import json

import pytest

from eaglenet_mm.datasets import TextVideoDataset, read_annotation


@pytest.fixture
def convert(call_tool, capsys, tmp_path):
    """Run a converter; give what it printed, or how it ended."""

    def run(name, *options):
        capsys.readouterr()
        try:
            call_tool(f'dataset_converters/{name}.py', *options,
                      '--out', tmp_path)  # fmt: skip
        except SystemExit as end:
            return end.code
        return capsys.readouterr().out

    return run


@pytest.fixture
def annotations(shared_dir):
    return shared_dir / 'data' / 'annotations'


def test_bad_input_is_one_sentence(convert, tmp_path):
    told = convert('vatex', '--captions', tmp_path, '--lists', tmp_path)
    assert told.startswith('vatex.py: Annotation file')


@pytest.mark.slow
def test_msrvtt(convert, annotations, tmp_path):
    folder = annotations / 'msrvtt'
    options = '--data', folder / 'MSRVTT_data.json', '--lists', folder
    told = convert('msrvtt', *options)
    assert 'test_1k-a: 1000 of 1000 videos, 1000 of 1000 captions\n' in told
    assert 'train_9k: 704 of 9000 videos, 14080 of 180000' in told
    dataset = TextVideoDataset(str(tmp_path / 'test_1k-a.json'))
    assert len(dataset) == 1000
    assert dataset.metainfo['protocol'] == '1k-A'
    sentences = [dataset.get_data_info(i)['captions'][0] for i in range(1000)]
    assert sentences.count('a man playing video games') == 3
    report = json.loads((tmp_path / 'conversion_report.json').read_text())
    assert report['overlaps'] == {}
    assert len(report['splits'][0]['missing']) == 9000 - 704
    told = convert('msrvtt', *options, '--strict')
    assert told.startswith('msrvtt.py: ')
    assert 'nothing was written' in told


@pytest.mark.nightly
def test_didemo(convert, annotations, tmp_path):
    folder = annotations / 'didemo'
    told = convert('didemo', '--data', folder, '--lists', folder)
    assert 'test: 1004 of 1004 videos' in told
    assert '33 have captions but are not listed' in told
    _, records = read_annotation(tmp_path / 'test.json')
    assert sum(x['video'].endswith('.') for x in records) == 27


@pytest.mark.nightly
def test_msvd(convert, annotations, tmp_path):
    folder = annotations / 'msvd'
    captions = folder / 'derived/raw-captions.pkl'
    told = convert('msvd', '--captions', captions, '--lists', folder)
    assert 'test: 201 of 670 videos, 8456 of 27763' in told
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
    told = convert('vatex', '--captions', captions, '--lists', folder)
    assert 'val: 1 of 1500 videos, 1 of 15000 captions' in told
    assert 'train: 0 of 25991 videos' in told
    convert('vatex', '--captions', captions, '--lists', folder / 'derived')
    header, records = read_annotation(tmp_path / 'train.json')
    assert (header['num_videos'], header['num_captions']) == (3, 30)
    assert records[0]['video'] == '5-xGskbsBgI_000055_000065.mp4'

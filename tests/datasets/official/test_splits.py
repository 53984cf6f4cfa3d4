from __future__ import annotations

import json
from dataclasses import replace

import pytest

from eaglenet_mm.datasets import read_annotation
from eaglenet_mm.datasets.official import (
    SplitPlan,
    assemble_split,
    find_overlaps,
    write_splits,
)

TRAIN = SplitPlan('train', 'tiny', 'train', 'plain', 3, 4)
TEST = SplitPlan('test', 'tiny', 'test', 'plain', selection='on the test list')
CAPTIONS = {
    'b': [' two ', ''],
    'a': ['one', 'אחת'],
    'c': ['\n'],
    'd': ['four'],
}


def assemble(plan, listed, **options):
    return assemble_split(
        plan, listed, CAPTIONS, lambda name: f'{name}.mp4', **options
    )


def test_what_is_found_and_what_is_not():
    split = assemble(TRAIN, ['a', 'b', 'a', 'c', 'z'])
    assert split.records == [
        dict(video_id='a', video='a.mp4', captions=['one', 'אחת']),
        dict(video_id='b', video='b.mp4', captions=['two']),
    ]
    report = split.report
    assert (report.listed, report.found_videos, report.found_captions) == (
        5,
        2,
        3,
    )
    assert report.duplicate == ['a']
    assert report.empty == ['b', 'c']
    assert report.missing == ['c', 'z']
    assert report.unlisted == ['d']
    assert not report.as_published
    text = '\n'.join(report.lines())
    assert '2 of 3 videos, 3 of 4 captions  <- NOT AS PUBLISHED' in text
    assert '2 listed without captions, left out: c, z' in text
    assert split.metainfo()['missing_videos'] == ['c', 'z']
    assert split.metainfo()['published_videos'] == 3


def test_as_published():
    plan = replace(TRAIN, videos=2, captions=3)
    report = assemble_split(
        plan, ['a', 'd'], CAPTIONS, str, siblings=['b', 'c']
    ).report
    assert report.as_published
    assert report.lines() == ['train: 2 of 2 videos, 3 of 3 captions']


def test_a_caption_with_a_nul():
    with pytest.raises(ValueError, match="a caption of 'a' holds a NUL"):
        assemble_split(TRAIN, ['a'], {'a': ['x\0y']}, str)


def test_overlaps_are_of_one_protocol_and_two_splits():
    train, test = assemble(TRAIN, ['a', 'b']), assemble(TEST, ['d', 'b'])
    other = assemble(replace(TEST, protocol='full'), ['a'])
    again = assemble(replace(TRAIN, file='train_2'), ['a'])
    assert find_overlaps([train, test, other, again]) == {
        'train & test': ['b']
    }


def test_written_files(tmp_path):
    splits = [
        assemble(TRAIN, ['a', 'b']),
        assemble(TEST, ['d', 'b']),
        assemble(replace(TRAIN, file='nothing', split='val'), ['z']),
    ]
    lines = write_splits(tmp_path, splits)
    assert 'train & test: 1 in both: b' in lines
    assert any(line.endswith('PUBLISHED, not written') for line in lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'conversion_report.json',
        'test.json',
        'train.json',
    ]
    header, records = read_annotation(tmp_path / 'test.json')
    assert header['selection'] == 'on the test list'
    assert [record['video_id'] for record in records] == ['d', 'b']
    report = json.loads((tmp_path / 'conversion_report.json').read_text())
    assert report['overlaps'] == {'train & test': ['b']}
    assert report['splits'][2]['missing'] == ['z']


def test_nothing_is_found(tmp_path):
    with pytest.raises(ValueError, match='nothing was written'):
        write_splits(tmp_path, [assemble(TRAIN, ['y', 'z'])])
    assert not list(tmp_path.iterdir())

"""The official forms, as the tests write them."""

from __future__ import annotations

import json
import pickle

import pytest

from eaglenet_mm.datasets.official import (
    convert_didemo,
    convert_msrvtt,
    convert_msvd,
    convert_vatex,
)
from eaglenet_mm.datasets.official.didemo import stem_of


def captions_of(split):
    return {x['video']: x['captions'] for x in split.records}


def write_msrvtt(folder):
    sentences = [
        dict(video_id=name, caption=f'{name} {number}', sen_id=number)
        for number in range(2)
        for name in ('video0', 'video1', 'video9')
    ]
    path = folder / 'MSRVTT_data.json'
    path.write_text(json.dumps(dict(sentences=sentences)))
    (folder / 'MSRVTT_train.9k.csv').write_text('video_id\nvideo1\nvideo0\n')
    (folder / 'MSRVTT_JSFUSION_test.csv').write_text(
        'key,vid_key,video_id,sentence\nret0,msr9,video9,"a, b"\n'
    )
    return path


def test_msrvtt(tmp_path):
    path = write_msrvtt(tmp_path)
    train, test = convert_msrvtt([path], tmp_path)
    assert captions_of(train) == {
        'video1.mp4': ['video1 0', 'video1 1'],
        'video0.mp4': ['video0 0', 'video0 1'],
    }
    assert (train.report.expected_videos, train.report.unlisted) == (9000, [])
    assert captions_of(test) == {'video9.mp4': ['a, b']}
    assert 'test list' in test.metainfo()['selection']


def test_msrvtt_in_two_files_and_another_container(tmp_path):
    path = write_msrvtt(tmp_path)
    other = tmp_path / 'test_videodatainfo.json'
    other.write_text(
        json.dumps(dict(sentences=[dict(video_id='video0', caption='x')]))
    )
    train, _ = convert_msrvtt([path, other], tmp_path, '.webm')
    assert captions_of(train)['video0.webm'] == ['video0 0', 'video0 1', 'x']


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        ([], "an object with a list 'sentences'"),
        (dict(sentences=[dict(video_id='v')]), r"'sentences'\[0\] needs"),
        (dict(sentences=['v']), r"'sentences'\[0\] needs"),
    ],
)
def test_msrvtt_of_another_form(tmp_path, content, match):
    path = tmp_path / 'data.json'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=match):
        convert_msrvtt([path], tmp_path)


def test_msrvtt_without_lists(tmp_path):
    path = write_msrvtt(tmp_path)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='at least one of'):
        convert_msrvtt([path], tmp_path / 'empty')


DIDEMO = ['1_2_ab.mov', '3_4_cd.', '5_6_ef.null', '7_8_gh.avi']


def write_didemo(folder):
    items = [
        dict(video=name, description=f'{name} {number}', times=times)
        for number, times in enumerate([[[0, 0]] * 4, [[1, 2]] * 7])
        for name in DIDEMO
    ]
    (folder / 'test_data.json').write_text(json.dumps(items))


def test_didemo(tmp_path):
    write_didemo(tmp_path)
    (tmp_path / 'test_list.txt').write_text('\n'.join(DIDEMO[1:]))
    (split,) = convert_didemo(tmp_path, tmp_path)
    assert list(captions_of(split)) == DIDEMO[1:]
    assert captions_of(split)['3_4_cd.'] == ['3_4_cd. 0', '3_4_cd. 1']
    assert split.report.unlisted == DIDEMO[:1]
    assert split.records[0]['moments'] == [[[0, 5]] * 4, [[5, 15]] * 7]
    (everything,) = convert_didemo(tmp_path)
    assert everything.report.found_videos == 4


def test_didemo_keeps_the_moments_of_captions_that_stay(tmp_path):
    items = [
        dict(video='a.mov', description=text, times=[[place, place]])
        for place, text in enumerate(['one', ' ', 'three'])
    ]
    (tmp_path / 'val_data.json').write_text(json.dumps(items))
    (split,) = convert_didemo(tmp_path)
    assert split.records[0]['captions'] == ['one', 'three']
    assert split.records[0]['moments'] == [[[0, 5]], [[10, 15]]]


def test_didemo_without_times(tmp_path):
    """Copies of others have none; some without are a damaged file."""
    items = [dict(video='a.mov', description=text) for text in 'xy']
    path = tmp_path / 'val_data.json'
    path.write_text(json.dumps(items))
    assert 'moments' not in convert_didemo(tmp_path)[0].records[0]
    for times in ([[0, 0]], [[1, 0]], [[0, 1.5]], [[0, True]], [[-1, 0]], 3):
        items[0]['times'] = times
        items[1]['times'] = [[0, 0]] if times != [[0, 0]] else []
        path.write_text(json.dumps(items))
        with pytest.raises(ValueError, match=r"item \d needs 'times'"):
            convert_didemo(tmp_path)


def test_didemo_of_copies(tmp_path):
    """The list, and the files, of videos that were written again."""
    write_didemo(tmp_path)
    (tmp_path / 'test_list.txt').write_text('3_4_cd.mp4\n5_6_ef.mp4\n')
    (split,) = convert_didemo(tmp_path, tmp_path, '.mp4')
    assert list(captions_of(split)) == ['3_4_cd.mp4', '5_6_ef.mp4']
    assert [x['video_id'] for x in split.records] == DIDEMO[1:3]


def test_didemo_names():
    assert [stem_of(name) for name in (*DIDEMO, 'plain')] == [
        '1_2_ab',
        '3_4_cd',
        '5_6_ef',
        '7_8_gh',
        'plain',
    ]


def test_didemo_of_another_form(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'train_data\.json'):
        convert_didemo(tmp_path)
    (tmp_path / 'val_data.json').write_text('{}')
    with pytest.raises(ValueError, match='a list of descriptions'):
        convert_didemo(tmp_path)
    (tmp_path / 'val_data.json').write_text('[{"video": "a.mov"}]')
    with pytest.raises(ValueError, match='item 0 needs'):
        convert_didemo(tmp_path)


def write_lists(folder, **listed):
    for split, names in listed.items():
        (folder / f'{split}_list.txt').write_text('\n'.join(names))


def test_msvd(tmp_path):
    write_lists(tmp_path, train=['-a_1_2'], val=['b_3_4'], test=['c_5_6'])
    content = {'-a_1_2': ['a cat'], 'b_3_4': ['b'], 'c_5_6': ['c', 'd']}
    words = {k: [x.split() for x in v] for k, v in content.items()}
    (tmp_path / 'c.json').write_text(json.dumps(content))
    (tmp_path / 'c.pkl').write_bytes(pickle.dumps(words, protocol=2))
    for name in ('c.json', 'c.pkl'):
        train, _, test = convert_msvd(tmp_path / name, tmp_path)
        assert captions_of(train) == {'-a_1_2.avi': ['a cat']}
        assert captions_of(test) == {'c_5_6.avi': ['c', 'd']}
        assert test.report.expected_captions == 27763
        assert not train.report.unlisted


def test_msvd_in_another_language(tmp_path):
    write_lists(tmp_path, train=['-a_1_2'], val=['b_3_4'], test=['c_5_6'])
    table, mapping = tmp_path / 'cn.csv', tmp_path / 'mapping.txt'
    table.write_text(
        'id,video_id,sentence\n1,vid2.mp4,一只猫\n2,vid2.mp4,两只猫\n',
        encoding='utf-8',
    )
    mapping.write_text('c_5_6 vid1\n-a_1_2 vid2\n')
    train, _, test = convert_msvd(table, tmp_path, mapping)
    assert captions_of(train) == {'-a_1_2.avi': ['一只猫', '两只猫']}
    assert test.report.missing == ['c_5_6']
    with pytest.raises(ValueError, match=r'--mapping'):
        convert_msvd(table, tmp_path)
    mapping.write_text('c_5_6 vid1\n')
    with pytest.raises(ValueError, match=r"'vid2' is not in .*mapping"):
        convert_msvd(table, tmp_path, mapping)
    mapping.write_text('c_5_6\n')
    with pytest.raises(ValueError, match='line 1 must be'):
        convert_msvd(table, tmp_path, mapping)


def test_vatex(tmp_path):
    write_lists(tmp_path, train=['a_000001_000011'], test=['b_000000_000010'])
    official, plain = tmp_path / 'train.json', tmp_path / 'ref.json'
    official.write_text(
        json.dumps(
            [dict(videoID='a_000001_000011', enCap=['A'], chCap=['甲'])]
        )
    )
    plain.write_text(json.dumps({'b_000000_000010': ['B', 'C']}))
    train, test = convert_vatex([official, plain], tmp_path)
    assert captions_of(train) == {'a_000001_000011.mp4': ['A']}
    assert captions_of(test) == {'b_000000_000010.mp4': ['B', 'C']}
    train, _ = convert_vatex([official, plain], tmp_path, 'zh')
    assert captions_of(train) == {'a_000001_000011.mp4': ['甲']}
    with pytest.raises(ValueError, match='1 videos are also in another'):
        convert_vatex([official, official], tmp_path)


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        ([dict(enCap=['A'])], "item 0 needs 'videoID' and 'enCap'"),
        ([dict(videoID='a')], "item 0 needs 'videoID' and 'enCap'"),
        ([dict(videoID='a', enCap=['A'])] * 2, "'a' is repeated"),
    ],
)
def test_vatex_of_another_form(tmp_path, content, match):
    path = tmp_path / 'captions.json'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=match):
        convert_vatex([path], tmp_path)


def test_vatex_without_lists(tmp_path):
    path = tmp_path / 'captions.json'
    path.write_text('{"a": ["b"]}')
    with pytest.raises(FileNotFoundError, match=r'train_list\.txt'):
        convert_vatex([path], tmp_path)

from __future__ import annotations

import os
import pickle

import pytest

from eaglenet_mm.datasets.official.reading import (
    captions_by_id,
    read_csv,
    read_id_list,
    read_json,
    read_plain_pickle,
)


def test_a_list_of_ids(tmp_path):
    path = tmp_path / 'list.txt'
    path.write_bytes('\ufeffone\r\n\r\n-two words \n猫\n'.encode())
    assert read_id_list(path) == ['one', '-two words', '猫']


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        (b'\n \n', 'the file is empty'),
        (b'one\ntwo\0\n', 'line 2 holds a NUL byte'),
        (b'caf\xe9\n', 'expected text in UTF-8'),
    ],
)
def test_lists_that_are_damaged(tmp_path, content, match):
    path = tmp_path / 'list.txt'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read_id_list(path)


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / 'none'):
        with pytest.raises(FileNotFoundError, match=r'docs/data\.md'):
            read_id_list(path)
        with pytest.raises(FileNotFoundError, match=r'docs/data\.md'):
            read_plain_pickle(path)


def test_a_table(tmp_path):
    path = tmp_path / 'table.csv'
    path.write_text(
        'video_id,sentence\nv1,"one, two"\nv2,"three\nfour"\n',
        encoding='utf-8',
    )
    assert read_csv(path, ['video_id', 'sentence']) == [
        dict(video_id='v1', sentence='one, two'),
        dict(video_id='v2', sentence='three\nfour'),
    ]


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        ('video,sentence\na,b\n', r"columns \['video_id', 'sentence'\]"),
        ('video_id,sentence\nv1,one, two\n', 'line 2 does not have 2 fields'),
        ('video_id,sentence\nv1\n', 'line 2 does not have 2 fields'),
    ],
)
def test_tables_of_another_form(tmp_path, content, match):
    path = tmp_path / 'table.csv'
    path.write_text(content)
    with pytest.raises(ValueError, match=match):
        read_csv(path, ['video_id', 'sentence'])


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        ('{"a": [1', 'cut short'),
        ('{"a": ["x"], "b": [], "a": ["y"]}', "the key 'a' is repeated"),
        ('[' * 100_000, 'reading stopped'),
    ],
)
def test_json_that_is_damaged(tmp_path, content, match):
    path = tmp_path / 'captions.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=match):
        read_json(path)


class Attack:
    def __reduce__(self):
        return os.system, ('touch attacked',)


def test_a_pickle_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'captions.pkl'
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({'v': [Attack()]}, protocol=protocol))
        with pytest.raises(ValueError, match=r'asks for posix\.system'):
            read_plain_pickle(path)
    assert not (tmp_path / 'attacked').exists()


def test_a_plain_pickle(tmp_path):
    path = tmp_path / 'captions.pkl'
    content = {'v1': [['a', 'café'], ['b']]}
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert captions_by_id(read_plain_pickle(path), path) == {
        'v1': ['a café', 'b']
    }
    # as Python 2 wrote texts: bytes that are UTF-8
    path.write_bytes(b"(dp0\nS'v1'\np1\n(lp2\nS'caf\\xc3\\xa9'\np3\nas.")
    assert captions_by_id(read_plain_pickle(path), path) == {'v1': ['café']}
    path.write_bytes(pickle.dumps(content)[:-9])
    with pytest.raises(ValueError, match='expected a pickle of dicts'):
        read_plain_pickle(path)


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        (['a'], 'an object, but got list'),
        ({'v': 'a'}, "'v' has str"),
        ({'v': [3]}, "a caption of 'v' is int"),
        ({'v': [['a', 3]]}, "a caption of 'v' is list"),
    ],
)
def test_captions_of_another_form(tmp_path, content, match):
    with pytest.raises(ValueError, match=match):
        captions_by_id(content, tmp_path)

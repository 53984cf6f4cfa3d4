from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.datasets import (
    annotation,
    check_annotation,
    read_annotation,
    write_annotation,
)
from eaglenet_mm.datasets.annotation import right_videos


def test_round_trip(
    tmp_path: Path, metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    records[0]['captions'][0] = 'ein Mädchen läuft 😀'
    path = tmp_path / 'new' / 'test.json'
    write_annotation(path, metainfo, records)
    header, read = read_annotation(path)
    assert header == {**metainfo, 'num_videos': 3, 'num_captions': 6}
    assert read == records
    content = path.read_bytes()
    assert 'Mädchen läuft 😀'.encode() in content
    assert b'\r' not in content
    assert os.listdir(path.parent) == ['test.json']


def test_reads_a_file_of_a_windows_editor(
    ann_file: str, records: list[dict[str, Any]]
) -> None:
    path = Path(ann_file)
    text = path.read_text(encoding='utf-8').replace('\n', '\r\n')
    path.write_bytes(b'\xef\xbb\xbf' + text.encode())
    assert read_annotation(path)[1] == records


def test_an_interrupted_write_leaves_the_old_file(
    ann_file: str,
    metainfo: dict[str, Any],
    records: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = Path(ann_file).read_bytes()

    def interrupt(source: str, target: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(annotation.os, 'replace', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_annotation(ann_file, metainfo, records[:1])
    assert Path(ann_file).read_bytes() == before
    assert os.listdir(Path(ann_file).parent) == [Path(ann_file).name]


def test_nothing_is_written_if_a_record_is_wrong(
    tmp_path: Path, metainfo: dict[str, Any]
) -> None:
    with pytest.raises(KeyError, match="record 0 \\('a'\\) has no 'captions'"):
        write_annotation(
            tmp_path / 'x.json', metainfo, [dict(video_id='a', video='a.mp4')]
        )
    assert not list(tmp_path.iterdir())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.json' does not exist"):
        read_annotation(tmp_path / 'none.json')


@pytest.mark.parametrize(
    'content', [b'{"metainfo": {', b'\xff\xfe\x00', b'', b'not json']
)
def test_broken_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'broken.json'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'broken\.json: expected JSON'):
        read_annotation(path)


@pytest.mark.parametrize('content', [[], {'metainfo': {}}, 'text', None])
def test_wrong_top_level(tmp_path: Path, content: Any) -> None:
    path = tmp_path / 'top.json'
    path.write_text(json.dumps(content), encoding='utf-8')
    with pytest.raises(KeyError, match="'metainfo' and 'data_list'"):
        read_annotation(path)


def test_header_must_be_an_object(records: list[dict[str, Any]]) -> None:
    with pytest.raises(TypeError, match="'metainfo' must be an object"):
        check_annotation([], records, 'file')


@pytest.mark.parametrize('key', ['dataset', 'split', 'protocol'])
@pytest.mark.parametrize('value', ['', 3, None])
def test_header_keys(
    metainfo: dict[str, Any],
    records: list[dict[str, Any]],
    key: str,
    value: Any,
) -> None:
    metainfo[key] = value
    with pytest.raises(KeyError, match=f"needs '{key}'.*got {value!r}"):
        check_annotation(metainfo, records, 'file')


@pytest.mark.parametrize(
    ('key', 'count'), [('num_videos', 3), ('num_captions', 6)]
)
def test_header_counts_must_agree(
    metainfo: dict[str, Any],
    records: list[dict[str, Any]],
    key: str,
    count: int,
) -> None:
    metainfo[key] = 1000
    with pytest.raises(ValueError, match=f"'{key}' is 1000.*hold {count}"):
        check_annotation(metainfo, records, 'file')


def test_records_must_be_a_list(metainfo: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"'data_list' must be a list.*dict"):
        check_annotation(metainfo, {}, 'file')


def test_no_records(metainfo: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'data_list' is empty"):
        check_annotation(metainfo, [], 'file')


def test_a_record_must_be_an_object(
    metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    with pytest.raises(TypeError, match=r'record 3 must be an object.*str'):
        check_annotation(metainfo, [*records, 'video7020'], 'file')


@pytest.mark.parametrize('key', ['video_id', 'video', 'captions'])
def test_missing_key(
    metainfo: dict[str, Any], records: list[dict[str, Any]], key: str
) -> None:
    del records[1][key]
    with pytest.raises(KeyError, match=f"file: record 1 .*has no '{key}'"):
        check_annotation(metainfo, records, 'file')


def test_duplicate_video_id(
    metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    records[2]['video_id'] = 'a'
    with pytest.raises(
        ValueError, match="'a' is used by record 0 and record 2"
    ):
        check_annotation(metainfo, records, 'file')


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(caption='one'), KeyError, r"unknown keys \['caption'\]"),
        (
            dict(video_id=7020),
            TypeError,
            "'video_id' must be a non-empty string.*7020",
        ),
        (dict(video=''), TypeError, "'video' must be a non-empty string.*''"),
        (dict(captions='one'), TypeError, "'captions' must be a list.*str"),
        (dict(captions=['a', None]), TypeError, r"'captions'\[1\].*None"),
        (dict(captions=['a', ' \n']), ValueError, r"'captions'\[1\] is empty"),
        (dict(captions=['\ud800']), ValueError, r'\[0\] is not valid Unicode'),
        (dict(start='3'), TypeError, "'start' must be a number.*'3'"),
        (dict(end=True), TypeError, "'end' must be a number.*True"),
        (dict(start=-1), ValueError, "'start' must be finite.*-1"),
        (dict(end=float('inf')), ValueError, "'end' must be finite.*inf"),
        (
            dict(start=5, end=5),
            ValueError,
            "'start' must come before.*5 and 5",
        ),
        (dict(start=6, end=5.5), ValueError, 'got 6 and 5.5'),
        (dict(end=0), ValueError, 'got None and 0'),
        (dict(positives=[['b']]), ValueError, "each of the 3 captions.*'b'"),
        (dict(positives={}), ValueError, 'each of the 3 captions'),
        (
            dict(positives=[[], 'b', []]),
            TypeError,
            r"'positives'\[1\] must be a list of video ids, but got 'b'",
        ),
        (
            dict(positives=[[], [], ['c', 'nobody']]),
            ValueError,
            r"'positives'\[2\] names \['nobody'\]",
        ),
    ],
)
def test_bad_record(
    metainfo: dict[str, Any],
    records: list[dict[str, Any]],
    change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    records[0].update(change)
    with pytest.raises(error, match=message) as caught:
        check_annotation(metainfo, records, 'file')
    assert 'file: record 0' in str(caught.value)


def test_times_may_be_absent_or_half_given(
    metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    records[0].update(start=3)
    records[1].update(start=None, end=None)
    assert check_annotation(metainfo, records, 'file')[1] == records


def test_a_video_without_caption(
    metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    records[1]['captions'] = []
    header, read = check_annotation(metainfo, records, 'file')
    assert (header['num_videos'], header['num_captions']) == (3, 5)
    assert read[1]['captions'] == []


def test_right_videos(
    metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    assert right_videos(metainfo, records) is None
    records[2]['captions'][1] = 'one'  # stands with 'a' as well
    assert right_videos(metainfo, records) is None  # as ever
    metainfo['shared_captions'] = True
    assert right_videos(metainfo, records) == [
        [['a', 'c'], ['a'], ['a']],
        [['b']],
        [['c'], ['c', 'a']],
    ]
    records[1]['positives'] = [['c', 'b']]
    metainfo['shared_captions'] = False
    assert right_videos(metainfo, records) == [
        [['a'], ['a'], ['a']],
        [['b', 'c']],
        [['c'], ['c']],
    ]


def test_videos_that_are_gone_may_be_right(
    tmp_path: Path, metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    records[0]['positives'] = [['x'], [], []]
    metainfo['missing_videos'] = ['x']
    metainfo['queries'] = [
        dict(caption='a cat'),
        dict(caption='b', positives=['x', 'b']),
    ]
    path = tmp_path / 'queries.json'
    write_annotation(path, metainfo, records)
    header, read = read_annotation(path)
    assert read == records
    assert header['queries'] == metainfo['queries']
    assert header['num_captions'] == 6  # of the records


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(shared_captions='yes'), TypeError, "true or false, but got 'ye"),
        (dict(queries='a cat'), TypeError, 'list of objects, but got str'),
        (dict(queries=['a cat']), KeyError, r"\[0\] .* but got 'a cat'"),
        (dict(queries=[dict(text='a')]), KeyError, "with 'caption'"),
        (dict(queries=[dict(caption=' ')]), ValueError, 'is empty'),
        (
            dict(queries=[dict(caption='a', positives=['nobody'])]),
            ValueError,
            r"names \['nobody'\]",
        ),
    ],
)
def test_bad_answers_in_the_header(
    metainfo: dict[str, Any],
    records: list[dict[str, Any]],
    change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        check_annotation({**metainfo, **change}, records, 'file')

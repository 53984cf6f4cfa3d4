from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from eaglenet_mm.visualization import read_results, results_page, write_results
from eaglenet_mm.visualization.results_file import (
    PAGE_NAME,
    RESULTS_NAME,
    prepare_folder,
    write_text,
)
from tests.visualization.made_results import make_results, nasty_results


@pytest.mark.parametrize('make', [make_results, nasty_results])
def test_what_is_written_is_read(make, tmp_path) -> None:
    results = make()
    path = write_results(tmp_path / 'new' / 'folder', results)
    assert path == tmp_path / 'new' / 'folder' / RESULTS_NAME
    assert read_results(path) == results
    assert read_results(path.parent) == results
    assert os.listdir(path.parent) == [RESULTS_NAME]  # nothing half written


def test_it_is_plain_json(tmp_path) -> None:
    data = json.loads(write_results(tmp_path, make_results()).read_text())
    assert data['format'] == 'eaglenet_mm results'
    assert data['version'] == 1
    assert data['queries'][3]['results'][5]['rank'] == 7


def test_half_a_surrogate_pair_does_not_stop_it(tmp_path) -> None:
    captions = ['\ud83d broken'] * 8
    write_results(tmp_path, make_results(captions=captions))
    assert read_results(tmp_path).captions[0] == '? broken'
    page = results_page(make_results(captions=captions))
    write_text(tmp_path / PAGE_NAME, page)
    assert '? broken (rank 1)' in (tmp_path / PAGE_NAME).read_text('utf-8')


def change(tmp_path: Path, **changes: object) -> Path:
    path = write_results(tmp_path, make_results())
    data = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in data.items() if v != 'GONE'}))
    return path


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(format='something'), 'is not a results file'),
        (dict(version=2), 'version 2 .* version 1'),
        (dict(ranks='GONE'), "damaged: it lacks 'ranks'"),
        (dict(ranks=[1]), "'ranks' has 1 entries for 8 captions"),
        (dict(ranks=['1'] * 8), "'1' should be a number"),
        (dict(targets=[9] * 8), 'refers to videos that do not exist'),
        (dict(queries=[dict(row=-1, results=[])]), 'refers to captions'),
        (dict(queries=[dict(row=0)]), "lacks 'results'"),
        (dict(videos=[dict(column=0, strip='</style>')]), 'not base64'),
        (dict(videos=[dict(column='</style>')]), 'damaged'),
        (dict(videos=7), 'damaged'),
        (dict(captions=[None] * 8), 'None should be a string'),
        (dict(metrics={'t2v/R1': 'high'}), "'high' should be a number"),
        (dict(curves=dict(other=1)), "unexpected keyword argument 'other'"),
    ],
)
def test_damage_is_told(changes, said, tmp_path) -> None:
    path = change(tmp_path, **changes)
    with pytest.raises(ValueError, match=said) as info:
        read_results(tmp_path)
    assert str(path) in str(info.value)
    assert 'tools/test.py ... --show-dir' in str(info.value)


@pytest.mark.parametrize(
    'content', ['', '{"format": "eagl', '\x00\xff', '[' * 9999]
)
def test_what_is_no_json_is_told(content, tmp_path) -> None:
    (tmp_path / RESULTS_NAME).write_text(content, encoding='latin-1')
    with pytest.raises(ValueError, match='damaged: it is not JSON'):
        read_results(tmp_path)


def test_other_json_is_told(tmp_path) -> None:
    (tmp_path / RESULTS_NAME).write_text('[1]')
    with pytest.raises(ValueError, match='is not a results file'):
        read_results(tmp_path)


def test_a_missing_file_is_told(tmp_path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r'results\.json.*no such file'
    ):
        read_results(tmp_path)


def test_a_folder_is_tried_before_work_begins(tmp_path) -> None:
    folder = tmp_path / 'a' / 'b'
    assert prepare_folder(folder) == folder
    assert os.listdir(folder) == []
    for name in (RESULTS_NAME, PAGE_NAME, 'other'):
        (folder / name).write_text('of another test')
    prepare_folder(folder)
    assert os.listdir(folder) == ['other']
    (tmp_path / 'file').write_text('')
    for name in ('file', 'file/below'):
        with pytest.raises(OSError, match=r'cannot be written.*--show-dir'):
            prepare_folder(tmp_path / name)


@pytest.mark.parametrize(
    ('number', 'mend'),
    [
        (errno.ENOSPC, r'It needs 2\.0 MiB: free some space.*--show-queries'),
        (errno.EACCES, 'Name another folder'),
    ],
)
def test_a_failed_writing_leaves_the_old_file(
    number, mend, tmp_path, monkeypatch
) -> None:
    path = tmp_path / PAGE_NAME
    write_text(path, 'old')

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match=mend) as info:
        write_text(path, 'x' * 2**21)
    assert os.strerror(number) in str(info.value)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == [PAGE_NAME]
    assert path.read_text() == 'old'

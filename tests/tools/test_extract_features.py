"""tools/extract_features.py as a user calls it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.apis import FeatureFile
from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.search.moment_reading import ReadMoment
from tests.datasets.video_readers.made_videos import cut_off, write_constant

CONFIG = ('--config', 'configs/eaglenet_story.py', '--untrained')


@pytest.fixture
def tool(tell_tool: Callable) -> Callable:
    return partial(tell_tool, 'extract_features')


def test_an_annotation_file_and_texts(
    tool: Callable, story: Path, tmp_path: Path
) -> None:
    out, texts = tmp_path / 'f.safetensors', tmp_path / 'texts.txt'
    texts.write_text('a ring\n\n \t\na cross\n')
    told = tool(
        story / 'test.json', '--videos', story / 'videos', *CONFIG,
        '--out', out, '--texts', texts,
    )  # fmt: skip
    records = json.loads((story / 'test.json').read_text())['data_list']
    count = len(records)
    captions = sum(len(record['captions']) for record in records)
    assert (
        f'{out}: {count} of {count} videos, {captions + 2} texts\n'
        in told.stdout
    )
    assert 'RANDOM WEIGHTS' in told.stderr + told.stdout
    found = FeatureFile.load(out)
    assert [row['video_id'] for row in found.about['videos']] == [
        record['video_id'] for record in records
    ]
    assert found.about['texts'][-2:] == [
        dict(text='a ring', video=None),
        dict(text='a cross', video=None),
    ]
    assert found.texts is not None
    assert len(found.texts) == captions + 2
    assert found.about['model']['untrained']


def test_a_folder_with_a_broken_video(
    tool: Callable, story: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / 'videos', tmp_path / 'f.safetensors'
    shutil.copytree(story / 'videos/test', folder)
    count = len(list(folder.iterdir()))
    broken = folder / 'broken\x1b.mp4'
    broken.write_bytes(b'no video')
    told = tool(folder, *CONFIG, '--out', out).stdout
    assert f'{count} of {count + 1} videos, 0 texts' in told
    assert f'  left out: {folder}/broken\\x1b.mp4: ' in told
    found = FeatureFile.load(out)
    assert list(found.about['unreadable']) == [str(broken)]
    assert found.texts is None
    assert len(found.about['videos']) == count
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'f.safetensors', 'videos',
    ]  # fmt: skip


def test_what_is_odd_or_not_looked_at(
    tool: Callable, story: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / 'videos', tmp_path / 'f.safetensors'
    folder.mkdir()
    whole = write_constant(tmp_path / 'whole.mkv', 100)
    short = cut_off(whole).path.rename(folder / 'short.mkv')
    shutil.copy(next((story / 'videos').rglob('*.mp4')), folder)
    (folder / 'notes.md').touch()
    told = tool(folder, *CONFIG, '--out', out).stdout
    assert f'  in part: {short}: the header promises 10.0 seconds' in told
    assert '1 other file (1 .md) was not looked at' in told
    about = FeatureFile.load(out).about
    assert list(about['notes']) == [str(short)]
    assert about['passed_over'] == {'.md': 1}


def test_an_interrupted_run(
    tool: Callable,
    story: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode = RetrieverEncoder.encode_moments
    calls: list[str] = []

    def interrupted(
        encoder: RetrieverEncoder, found: list[ReadMoment], names: list[str]
    ) -> Any:
        if names != ['a black frame']:
            calls.extend(names)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(encoder, found, names)

    monkeypatch.setattr(RetrieverEncoder, 'encode_moments', interrupted)
    out = tmp_path / 'f.safetensors'
    command = (
        story / 'test.json', '--videos', story / 'videos', *CONFIG,
        '--workers', 1, '--out', out,
    )  # fmt: skip
    told = tool(*command, expected=130)
    assert 'interrupted; the same command goes on' in told.stdout
    assert 'Traceback' not in told.stderr
    assert not out.exists()
    told = tool(*command)
    count = len(FeatureFile.load(out).about['videos'])
    assert f'{count} of {count} videos' in told.stdout
    assert f'3 of {count} videos are there' in told.stdout + told.stderr
    assert len(calls) == 4 + count - 3
    assert [path.name for path in tmp_path.iterdir()] == ['f.safetensors']


def test_two_runs_at_once(
    tool: Callable,
    story: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = (
        story / 'videos',
        *CONFIG,
        '--out',
        tmp_path / 'f',
        '--workers',
        0,
    )
    encode = RetrieverEncoder.encode_moments
    told: list[str] = []

    def second(
        encoder: RetrieverEncoder, found: list[ReadMoment], names: list[str]
    ) -> Any:
        if not told:
            told.append('')
            told.append(tool(*command, expected=2).stderr)
        return encode(encoder, found, names)

    monkeypatch.setattr(RetrieverEncoder, 'encode_moments', second)
    tool(*command)
    assert 'RuntimeError: This process is writing' in told[1]
    assert (tmp_path / 'f').exists()


def test_bad_input(tool: Callable, story: Path, tmp_path: Path) -> None:
    out = tmp_path / 'f.safetensors'

    def fails(source: object, *options: object) -> str:
        told = tool(source, '--out', out, *options, expected=2).stderr
        assert 'Traceback' not in told
        lines = told.splitlines()
        assert lines[-1].startswith('extract_features.py: ')
        assert sum('extract_features.py' in line for line in lines) == 1
        return lines[-1]

    videos, bad = story / 'videos', tmp_path / 'bad.json'
    assert 'neither a file' in fails(tmp_path / 'gone', *CONFIG)
    assert 'does not exist' in fails(tmp_path / 'gone.json', *CONFIG)
    assert 'has no videos' in fails(tmp_path, *CONFIG)
    bad.write_text('{')
    assert 'expected JSON' in fails(bad, *CONFIG)
    content = json.loads((story / 'test.json').read_text())
    content['data_list'][1]['captions'][0] = ' '
    bad.write_text(json.dumps(content))
    assert 'is empty' in fails(bad, *CONFIG)
    bad.write_bytes(b'\xff\xfe')
    assert 'is no text in UTF-8' in fails(videos, *CONFIG, '--texts', bad)
    assert 'gone.txt' in fails(
        videos, *CONFIG, '--texts', tmp_path / 'gone.txt'
    )
    assert 'random numbers' in fails(videos, *CONFIG[:2])
    assert 'checkpoint was expected' in fails(
        videos, *CONFIG[:2], '--checkpoint', 'gone.pth'
    )
    assert 'RuntimeError: ' in fails(videos, *CONFIG, '--device', 'foo')
    assert 'is a folder' in fails(videos, *CONFIG, '--out', tmp_path)
    assert list(tmp_path.iterdir()) == [bad]

"""Features of a folder or an annotation file, in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eaglenet_mm.apis import RetrievalInferencer, feature_extraction
from eaglenet_mm.apis.feature_extraction import extract_features, list_items
from eaglenet_mm.apis.feature_file import FeatureFile


@pytest.fixture
def items(toy: Path) -> tuple[list, list]:
    return list_items(str(toy / 'test.json'), str(toy / 'videos'))


def test_an_annotation_file(
    inferencer: RetrievalInferencer,
    items: tuple[list, list],
    videos: list[str],
    tmp_path: Path,
) -> None:
    encoder, out = inferencer.encoder, tmp_path / 'f.safetensors'
    written = extract_features(encoder, *items, out, num_workers=0)
    found = FeatureFile.load(out)
    assert found.about == written.about
    assert [row['path'] for row in found.about['videos']] == videos
    expected = encoder.encode_files(videos, 0)
    assert found.videos is not None
    assert found.texts is not None
    assert torch.equal(found.videos.frames, expected.frames)
    assert torch.equal(found.videos.frame_mask, expected.frame_mask)
    assert found.vectors is not None
    assert torch.allclose(
        found.vectors, encoder.head.shortlist_video(expected), atol=1e-6
    )
    texts = found.about['texts']
    assert len(texts) == len(found.texts.embeds) == 4 * len(videos)
    assert [text['video'] for text in texts[:5]] == [0, 0, 0, 0, 1]
    # the file is enough to score all pairs
    head = encoder.head
    scores = head(found.texts, found.videos)
    sentences = [text['text'] for text in texts]
    assert torch.allclose(
        scores, inferencer.scores(sentences, videos), atol=2e-6
    )
    assert [path.name for path in tmp_path.iterdir()] == ['f.safetensors']


def test_parts_of_videos(
    inferencer: RetrievalInferencer, videos: list[str], tmp_path: Path
) -> None:
    items = [
        dict(video_id='a', path=videos[0], start=0.5, end=1.0),
        dict(video_id='b', path=videos[0], start=None, end=None),
    ]
    found = extract_features(
        inferencer.encoder, items, [], tmp_path / 'f', num_workers=0
    )
    assert found.frame_times is not None
    times = found.frame_times[0]
    times = times[~times.isnan()]
    assert len(times) == 2
    assert bool(((times >= 0.5) & (times < 1.0)).all())
    assert not found.frame_times[1].isnan().any()


def test_broken_videos_are_left_out_and_told(
    inferencer: RetrievalInferencer, videos: list[str], tmp_path: Path
) -> None:
    broken = tmp_path / 'broken.mp4'
    broken.touch()
    items = [
        dict(video_id=name, path=path, start=None, end=None)
        for name, path in (('x', str(broken)), ('y', videos[0]))
    ]
    texts = [
        dict(text='a ring', video=0),
        dict(text='a cross', video=1),
        dict(text='anything', video=None),
    ]
    found = extract_features(
        inferencer.encoder, items, texts, tmp_path / 'f', num_workers=0
    )
    assert list(found.about['unreadable']) == ['x']
    assert [row['video_id'] for row in found.about['videos']] == ['y']
    assert [text['video'] for text in found.about['texts']] == [None, 0, None]
    with pytest.raises(ValueError, match='None of 1 videos could be read'):
        extract_features(
            inferencer.encoder, items[:1], [], tmp_path / 'g', num_workers=0
        )


def test_an_interrupted_run_goes_on(
    inferencer: RetrievalInferencer,
    items: tuple[list, list],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_extraction, '_PART', 2)
    encoder, out = inferencer.encoder, tmp_path / 'f.safetensors'
    encode, calls = encoder.encode_frames, []

    def interrupted(frames: torch.Tensor, name: str) -> Any:
        calls.append(name)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return encode(frames, name)

    monkeypatch.setattr(encoder, 'encode_frames', interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_features(encoder, *items, out, num_workers=0)
    assert not out.exists()
    found = extract_features(encoder, *items, out, num_workers=0)
    assert len(calls) == 6 + len(items[0]) - 4  # two parts were finished
    monkeypatch.undo()
    whole = extract_features(
        encoder, *items, tmp_path / 'w.safetensors', num_workers=0
    )
    assert found.about == whole.about
    assert found.videos is not None
    assert whole.videos is not None
    assert torch.equal(found.videos.frames, whole.videos.frames)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / 'f.safetensors'
    with pytest.raises(FileNotFoundError, match=r'extract_features\.py'):
        FeatureFile.load(path)
    path.write_bytes(b'rubbish')
    with pytest.raises(ValueError, match='is damaged'):
        FeatureFile.load(path)
    save_file({'a': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match='is no file of features'):
        FeatureFile.load(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match='could not be written'):
        FeatureFile().save(tmp_path / 'gone' / 'f.safetensors')


def test_sources(toy: Path, tmp_path: Path) -> None:
    items, texts = list_items(str(toy / 'videos'))
    assert texts == []
    assert items[0]['path'].endswith('.mp4')
    with pytest.raises(FileNotFoundError, match='does not exist'):
        list_items(str(tmp_path / 'gone.json'))
    (tmp_path / 'a.json').write_text(json.dumps({}))
    with pytest.raises(KeyError):
        list_items(str(tmp_path / 'a.json'))

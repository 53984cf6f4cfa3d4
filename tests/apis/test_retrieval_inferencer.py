"""Searching one's own videos."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from PIL import Image

from eaglenet_mm.apis import RetrievalInferencer, VideoIndex
from eaglenet_mm.datasets.video_readers import VideoReadError, open_video
from eaglenet_mm.datasets.windows import pad_times
from eaglenet_mm.engine.loops.retrieval_evaluation import RetrievalEvaluation
from eaglenet_mm.registry import DATASETS, MODELS
from eaglenet_mm.search.errors import OtherModelError, VideoIndexError

QUERY = 'a red square moves left'


def paths_of(hits: list) -> list[str]:
    return [hit.path for hit in hits]


def rank_by_evaluation(
    cfg: Config, inferencer: RetrievalInferencer
) -> list[tuple[str, torch.Tensor, list[str]]]:
    """Captions, and the rows of scores that a test hands to its metric."""
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    evaluation = RetrievalEvaluation(inferencer.encoder.model)
    captions, videos = [], []
    with torch.no_grad():
        for item in dataset:
            (sample,) = evaluation.add_batch(pseudo_collate([item]))
            captions += sample.captions
            videos.append(str(Path(sample.video).absolute()))
        evaluation.gather()
        rows = [
            row['scores']
            for block in evaluation.score(
                inferencer.encoder.head, evaluation.encode_texts()
            )
            for row in block
        ]
    return [
        (caption, row, videos)
        for caption, row in zip(captions, rows, strict=True)
    ]


def test_the_ranking_of_a_test(
    cfg: Config, inferencer: RetrievalInferencer, videos: list[str]
) -> None:
    """With all videos on the shortlist, scores and order are those of it."""
    inferencer.encode_videos(videos)
    for caption, row, names in rank_by_evaluation(cfg, inferencer):
        hits = inferencer.search(caption, len(videos), shortlist=0)
        scores = {hit.path: hit.score for hit in hits}
        found = torch.tensor([scores[name] for name in names])
        assert torch.allclose(found, row, rtol=0, atol=2e-6)
        # where two videos differ by more than rounding, so does their order
        order = [names.index(path) for path in paths_of(hits)]
        steps = row[order].diff()
        assert bool((steps < 2e-6).all())
        assert hits[0].score >= hits[-1].score


def test_an_index_opens_with_its_model(
    inferencer: RetrievalInferencer, videos: list[str], tmp_path: Path
) -> None:
    with inferencer.new_index(tmp_path / 'index') as index:
        inferencer.encode_videos(videos, index=index)
        expected = inferencer.search(QUERY)
    opened = RetrievalInferencer.of_index(tmp_path / 'index', num_workers=0)
    assert opened.search(QUERY) == expected
    assert opened.encoder.model.head.training is False


def test_a_shortlist(
    inferencer: RetrievalInferencer, videos: list[str]
) -> None:
    inferencer.encode_videos(videos)
    best = inferencer.search(QUERY, 3, shortlist=0)
    short = inferencer.search(QUERY, 3, shortlist=3)
    assert len(short) == 3
    every = {hit.moment_id: hit for hit in inferencer.search(QUERY, 8)}
    for hit in short:
        assert hit.score == pytest.approx(every[hit.moment_id].score, abs=2e-6)
    similar = sorted(every.values(), key=lambda hit: -hit.similarity)[:3]
    assert {hit.moment_id for hit in short} == {
        hit.moment_id for hit in similar
    }
    recall = inferencer.check_shortlist(QUERY, 3, 3)
    common = set(paths_of(best)) & set(paths_of(short))
    assert recall == len(common) / 3
    assert inferencer.check_shortlist(QUERY, 3, 8) == 1.0


def test_the_best_moment_is_that_of_the_nearest_frame(
    inferencer: RetrievalInferencer, videos: list[str]
) -> None:
    index = inferencer.encode_videos(videos[:2])
    text = inferencer.encode_texts(QUERY)
    unit = torch.nn.functional.normalize(text.embeds, dim=-1)[0]
    for hit in inferencer.search(QUERY):
        ids = torch.tensor([hit.moment_id])
        features, _, (times,) = index.read(ids)
        frames = torch.nn.functional.normalize(features['frames'], dim=-1)
        nearest = (frames[0] @ unit)[~times.isnan()].argmax()
        assert hit.best_time == float(times[nearest])
        assert hit.start <= hit.best_time <= hit.end


def test_segments_are_found_as_moments(
    inferencer: RetrievalInferencer, videos: list[str]
) -> None:
    index = inferencer.encode_videos(videos[:2], segment=0.5)
    spans = [(e.start, e.end) for e in index.moments(index.ids)]
    assert spans[:3] == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)]
    durations = [index.files[path].duration for path in videos[:2]]
    assert spans[-1][1] == durations[1]
    assert len(spans) == sum(round(2 * x) for x in durations)
    for hit in inferencer.search(QUERY, 6):
        assert hit.start <= hit.best_time < hit.end


def test_a_video_finds_itself(
    inferencer: RetrievalInferencer, videos: list[str]
) -> None:
    inferencer.encode_videos(videos)
    hits = inferencer.search_video(videos[2], 3)
    assert hits[0].path == videos[2]
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_broken_files_are_reported_and_left_out(
    inferencer: RetrievalInferencer,
    videos: list[str],
    tmp_path: Path,
) -> None:
    folder = tmp_path / 'videos'
    folder.mkdir()
    for path in videos[:2]:
        shutil.copy(path, folder)
    broken, empty = folder / 'broken.mp4', folder / 'empty.avi'
    content = Path(videos[3]).read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    empty.touch()
    index = inferencer.encode_videos(folder)
    assert len(index) == 2
    assert inferencer.report is not None
    assert set(inferencer.report.unreadable) == {str(broken), str(empty)}
    assert 'cannot be opened' in inferencer.report.unreadable[str(empty)]
    # they are not tried again until they change, and still reported
    inferencer.encode_videos(folder, index=index)
    assert inferencer.report.unchanged == 4
    assert set(inferencer.report.unreadable) == {str(broken), str(empty)}
    broken.write_bytes(content)
    inferencer.encode_videos(folder, index=index)
    assert inferencer.report.updated == [str(broken)]
    assert len(index) == 3
    with pytest.raises(VideoReadError, match=f'{empty}: .*cannot be opened'):
        inferencer.scores(QUERY, [videos[0], empty])
    with pytest.raises(VideoReadError, match='cannot be opened'):
        inferencer.search_video(empty)


def test_only_new_and_changed_files_are_read(
    inferencer: RetrievalInferencer, videos: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / 'videos'
    folder.mkdir()
    first, second = (shutil.copy(path, folder) for path in videos[:2])
    index = inferencer.encode_videos(folder)
    shutil.copy(videos[2], first)  # another video under the same name
    third = shutil.copy(videos[3], folder)
    Path(second).unlink()
    inferencer.encode_videos(folder, index=index)
    report = inferencer.report
    assert report is not None
    assert (report.added, report.updated) == ([str(third)], [str(first)])
    assert (report.unchanged, report.gone) == (0, [str(second)])
    assert len(index) == 3
    again = inferencer.search_video(videos[2], 1)
    assert again[0].path == str(first)


def test_any_text_is_a_query(
    inferencer: RetrievalInferencer, videos: list[str]
) -> None:
    inferencer.encode_videos(videos[:2])
    for text in ('ein roter Kreis', '赤い円 🎈', '<b>x</b>', 'a ring ' * 1500):
        assert len(inferencer.search(text, 99)) == 2


def test_what_cannot_be_asked(
    inferencer: RetrievalInferencer, videos: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match='nothing to search'):
        inferencer.search(QUERY)
    inferencer.encode_videos(videos[:1])
    with pytest.raises(ValueError, match='query is empty'):
        inferencer.search('  ')
    with pytest.raises(ValueError, match='k must be at least 1'):
        inferencer.search(QUERY, 0)
    with pytest.raises(ValueError, match='shortlist and per_video'):
        inferencer.search(QUERY, shortlist=-1)
    with pytest.raises(ValueError, match='has no videos'):
        inferencer.encode_videos(tmp_path)
    with pytest.raises(ValueError, match='segment must be a number'):
        inferencer.new_index(segment=-1)
    with pytest.raises(ValueError, match='num_workers must be at least 0'):
        RetrievalInferencer('eaglenet_story', num_workers=-1)


def test_names_of_configs(weights: str) -> None:
    named = RetrievalInferencer('eaglenet_story', weights)
    assert type(named.encoder.head).__name__ == 'EagleNetHead'
    with pytest.raises(FileNotFoundError, match=r'names: .*eaglenet_story'):
        RetrievalInferencer('eaglenet_toi', weights)


def test_weights_are_needed(cfg: Config, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match='text_encoder and video_encoder and '
    ):
        RetrievalInferencer(cfg)
    with pytest.raises(FileNotFoundError, match='checkpoint was expected'):
        RetrievalInferencer(cfg, str(tmp_path / 'gone.pth'))


def test_weights_must_fit(cfg: Config, weights: str) -> None:
    cfg.model.head.num_candidates = 7
    with pytest.raises(ValueError, match='does not fit the model'):
        RetrievalInferencer(cfg, weights)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_random_weights_are_told(
    cfg: Config, videos: list[str], tmp_path: Path, logged: Any
) -> None:
    one = RetrievalInferencer(cfg, untrained=True, num_workers=0)
    words = 'RANDOM WEIGHTS in text_encoder, video_encoder, head'
    assert logged.text.count(words) == 1
    with one.new_index(tmp_path / 'index') as index:
        one.encode_videos(videos[:2], index=index)
        expected = one.search(QUERY)
    torch.manual_seed(99)
    # always the same ones, or the index would be of no use
    other = RetrievalInferencer.of_index(tmp_path / 'index', num_workers=0)
    assert other.search(QUERY) == expected
    assert logged.text.count(words) == 2


def test_a_trained_model_is_built_in_silence(
    cfg: Config, weights: str, logged: Any
) -> None:
    RetrievalInferencer(cfg, weights)
    assert 'andom weights' not in logged.text
    told = [record for record in logged.records if record.levelno > 10]
    assert len(told) < 3


def test_an_index_of_other_weights(
    cfg: Config, inferencer: RetrievalInferencer, videos: list[str]
) -> None:
    index = inferencer.encode_videos(videos[:1])
    other = RetrievalInferencer(cfg, untrained=True, num_workers=0)
    with pytest.raises(
        OtherModelError, match='another model: weights of the encoders differ'
    ):
        other.use(index)
    with pytest.raises(
        OtherModelError, match='weights of the encoders differ'
    ):
        other.encode_videos(videos, index=index)


def test_an_index_of_other_frames(
    cfg: Config, weights: str, inferencer: RetrievalInferencer
) -> None:
    index = inferencer.new_index()
    cfg.test_dataloader.dataset.pipeline[1].fps = 2
    other = RetrievalInferencer(cfg, weights)
    with pytest.raises(OtherModelError, match='choice or size of frames'):
        other.use(index)


def test_any_head_on_the_same_encoders(
    inferencer: RetrievalInferencer,
    videos: list[str],
    tmp_path: Path,
    repository: Path,
) -> None:
    """Scores are those of a model with that head from the beginning."""
    where = tmp_path / 'index'
    with inferencer.new_index(where) as index:
        inferencer.encode_videos(videos, index=index)
    with pytest.raises(ValueError, match='XPoolHead has parameters'):
        RetrievalInferencer.of_index(where, head='x_pool_story')
    other = RetrievalInferencer.of_index(
        where, head='mean_pooling_story', num_workers=0
    )
    expected = other.scores(QUERY, videos)[0]
    for hit in other.search(QUERY, 99, shortlist=0):
        column = videos.index(hit.path)
        assert hit.score == pytest.approx(float(expected[column]), abs=1e-6)
    # a head with weights, trained on these encoders
    cfg = other.encoder.cfg
    cfg.model.head = Config.fromfile(
        repository / 'configs/x_pool_story.py'
    ).model.head
    model = MODELS.build(cfg.model)
    encoders = inferencer.encoder.model.state_dict()
    model.load_state_dict(
        {k: v for k, v in encoders.items() if not k.startswith('head.')},
        strict=False,
    )
    weights = tmp_path / 'x_pool.pth'
    torch.save(dict(state_dict=model.state_dict()), weights)
    third = RetrievalInferencer.of_index(
        where, str(weights), head='x_pool_story', num_workers=0
    )
    expected = third.scores(QUERY, videos)[0]
    for hit in third.search(QUERY, 99, shortlist=0):
        column = videos.index(hit.path)
        assert hit.score == pytest.approx(float(expected[column]), abs=1e-6)


def test_memory_and_losses_do_not_matter(
    cfg: Config, weights: str, inferencer: RetrievalInferencer
) -> None:
    cfg.model.head.type = 'eaglenet_mm.EagleNetHead'  # the same by its scope
    cfg.model.head.memory_budget = 2**20
    cfg.model.head.support_weight = 0.3
    RetrievalInferencer(cfg, weights).use(inferencer.new_index())


def test_weights_that_have_moved(
    cfg: Config, weights: str, videos: list[str], tmp_path: Path
) -> None:
    moved = shutil.copy(weights, tmp_path / 'here.pth')
    inferencer = RetrievalInferencer(cfg, str(moved), num_workers=0)
    with inferencer.new_index(tmp_path / 'index') as index:
        inferencer.encode_videos(videos[:1], index=index)
    Path(moved).unlink()
    with pytest.raises(FileNotFoundError, match=r'here\.pth.*--checkpoint'):
        RetrievalInferencer.of_index(tmp_path / 'index')
    opened = RetrievalInferencer.of_index(tmp_path / 'index', weights)
    assert len(opened.search(QUERY)) == 1


def test_parts_of_others_need_their_config(
    inferencer: RetrievalInferencer, tmp_path: Path
) -> None:
    identity = inferencer.encoder.identity
    config = dict(identity.config)
    config['model'] = {**config['model'], 'head': dict(type='SomebodysHead')}
    foreign = dataclasses.replace(identity, config=config)
    rows = inferencer.encoder.example_rows()
    VideoIndex.create(tmp_path / 'index', foreign, rows).close()
    with pytest.raises(VideoIndexError, match=r'SomebodysHead.*--config'):
        RetrievalInferencer.of_index(tmp_path / 'index')


@pytest.mark.parametrize(
    'name',
    [
        'ts2_net',
        *(
            pytest.param(name, marks=pytest.mark.nightly)
            for name in (
                'mean_pooling',
                'clip4clip_seqlstm',
                'clip4clip_tighttransf',
                'x_pool',
                't_mass',
                'text_proxy',
                'wti',
            )
        ),
    ],
)
def test_every_kind_of_state(
    name: str, repository: Path, videos: list[str]
) -> None:
    """Heads differ in what they prepare; an index keeps it all."""
    cfg = Config.fromfile(repository / f'configs/{name}_story.py')
    one = RetrievalInferencer(cfg, untrained=True, num_workers=0)
    one.encode_videos(videos[:3])
    expected = one.scores(QUERY, videos[:3])[0]
    hits = one.search(QUERY)
    assert len(hits) == 3
    for hit in hits:
        column = videos.index(hit.path)
        assert hit.score == pytest.approx(float(expected[column]), abs=2e-6)


def test_a_head_that_needs_captions(repository: Path) -> None:
    cfg = Config.fromfile(
        repository / 'configs/t_mass_msrvtt_published-evaluation.py'
    )
    assert cfg.model.head.evaluation == 'published'
    story = Config.fromfile(repository / 'configs/t_mass_story.py')
    story.model.head.evaluation = 'published'
    with pytest.raises(ValueError, match=r"caption.*evaluation='pairwise'"):
        RetrievalInferencer(story, untrained=True)


def test_links_to_nowhere_are_reported(
    inferencer: RetrievalInferencer, videos: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / 'videos'
    folder.mkdir()
    shutil.copy(videos[0], folder)
    (folder / 'gone.mp4').symlink_to(tmp_path / 'nowhere.mp4')
    os.mkfifo(folder / 'pipe.mp4')
    index = inferencer.encode_videos(folder)
    assert len(index) == 1
    assert inferencer.report is not None
    assert list(inferencer.report.unreadable) == [str(folder / 'gone.mp4')]


def _count_calls(
    inferencer: RetrievalInferencer, monkeypatch: pytest.MonkeyPatch
) -> list:
    """Note the calls of the video encoder."""
    model, calls = inferencer.encoder.model, []
    encode = model.encode_video

    def counted(pixels: torch.Tensor, mask: torch.Tensor) -> Any:
        calls.append(len(pixels))
        return encode(pixels, mask)

    monkeypatch.setattr(model, 'encode_video', counted)
    return calls


def test_videos_in_batches(
    cfg: Config,
    weights: str,
    videos: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = tmp_path / 'broken.mp4'
    broken.touch()
    paths = [*videos[:5], str(broken)]
    found, calls = [], []
    count = 10  # two segments a file
    for batch in (1, 4):
        one = RetrievalInferencer(
            cfg, weights, num_workers=0, video_batch=batch
        )
        calls.append(_count_calls(one, monkeypatch))
        index = one.encode_videos(paths, segment=3.0)
        assert len(index) == count
        assert one.report is not None
        assert list(one.report.unreadable) == [str(broken)]
        found.append(
            {(hit.path, hit.start): hit.score for hit in one.search(QUERY, 10)}
        )
    assert found[0] == pytest.approx(found[1], abs=2e-6)
    # ten segments, two a file, and one call for the shapes of features
    assert [len(own) for own in calls] == [11, 4]


def test_times_of_an_encoder_of_clips() -> None:
    """A vector of several frames is shown when they are, on average."""
    nan = float('nan')
    found = pad_times([[0, 1, 2, 3, 4, 5], [0, 2]], 3, 6)
    assert torch.equal(found[0], torch.tensor([0.5, 2.5, 4.5]))
    assert torch.allclose(
        found[1], torch.tensor([1.0, nan, nan]), equal_nan=True
    )
    same = pad_times([[0, 1]], 3, 3)
    assert torch.allclose(
        same, torch.tensor([[0.0, 1.0, nan]]), equal_nan=True
    )


def test_a_checkpoint_on_a_network_is_not_fetched(
    inferencer: RetrievalInferencer, tmp_path: Path
) -> None:
    remote = dataclasses.replace(
        inferencer.encoder.identity, checkpoint='http://evil/x.pth'
    )
    rows = inferencer.encoder.example_rows()
    VideoIndex.create(tmp_path / 'index', remote, rows).close()
    with pytest.raises(VideoIndexError, match=r'on a network.*--checkpoint'):
        RetrievalInferencer.of_index(tmp_path / 'index')


def test_thumbnails_show_the_whole_picture(
    inferencer: RetrievalInferencer, videos: list[str]
) -> None:
    """Not what is cut and made small for the model."""
    index = inferencer.encode_videos(videos[:1])
    image = Image.open(io.BytesIO(index.thumbnail(int(index.ids[0]))))
    with open_video(videos[0]) as reader:
        height, width, _ = reader.get_batch([0])[0].shape
    assert image.size == (width, height)
    assert image.size != (32, 32)  # of the pipeline

"""Every benchmark runs and writes sane figures; none of them is a time."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from eaglenet_mm.apis import VideoIndex
from eaglenet_mm.datasets.toy import write_toy_dataset
from eaglenet_mm.models.heads.eaglenet_head import CompiledScore
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import (
    RetrievalDataSample,
    TextFeatures,
    VideoFeatures,
)

TINY = ('--dim', 16, '--candidates', 4, '--threads', 1, '--repeats', 1)
PEAK = ('--peak-size', 32)
Run = Callable[..., dict[str, Any]]


def command(
    repository: Path, name: str, *options: object, as_user: bool = False
) -> list[str]:
    script, *mode = name.split()
    file = repository / 'tools' / 'benchmark' / f'{script}.py'
    before = [Path(__file__).with_name('as_user.py')] if as_user else []
    return [sys.executable, *map(str, (*before, file, *mode, *options))]


@pytest.fixture
def benchmark(repository: Path, start_tool: Any, tmp_path: Path) -> Run:
    """Run a benchmark in a process and give its JSON."""

    def run(name: str, *options: object) -> dict[str, Any]:
        file = tmp_path / 'folder' / f'{name}.json'
        output = start_tool(
            *command(repository, name, *options, '--json', file)
        )
        report = json.loads(file.read_text())
        assert report['benchmark'] == name
        machine = report['machine']
        assert {'processor', 'cores', 'torch', 'capability'} <= set(machine)
        assert machine['threads'] == 1
        assert report['options']['threads'] == 1
        assert '| ---' in output or '| -' in output, output
        assert_finite(report)
        return report

    return run


def assert_finite(value: Any) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            assert_finite(item)
    elif isinstance(value, float):
        assert math.isfinite(value)


@pytest.mark.slow
def test_pair_scoring(benchmark: Run) -> None:
    sizes = ('--texts', 7, '--videos', 5, '--frames', 3)
    report = benchmark(
        'pair_scoring', *TINY, *PEAK, *sizes, '--reference-texts', 5
    )
    (row,) = report['rows']
    assert row['texts x videos x frames'] == '7x5x3'
    assert row['ours pairs/s'] == pytest.approx(7 * 5 / row['ours s'])
    assert row['ratio'] == pytest.approx(
        row['ours pairs/s'] / row['reference pairs/s']
    )
    assert row['s at that peak'] == pytest.approx(
        row['ours s'] * row['of peak']
    )
    found, other = row['ours'], row['reference']
    assert other['seconds'] * other['pairs_per_second'] == pytest.approx(25)
    assert found['gflop'] == pytest.approx(row['MFLOP/pair'] * 35 / 1e3)
    assert other['gflop'] == pytest.approx(
        row['reference MFLOP/pair'] * 25 / 1e3
    )
    assert row['FLOP ratio'] > 3
    assert row['difference'] <= 1e-6
    assert row['to float64'] <= 1e-6
    assert row['reference to float64'] <= 1e-6
    # the embedding alone, and the unit frames alone
    assert row['bytes of a prepared text'] >= 4 * 16
    assert row['bytes of a prepared video'] >= 4 * 3 * 16
    assert row['bytes of a pair in a chunk'] >= 4 * 4 * 16


STEP = (*TINY, *PEAK, '--batch', 4, '--frames', 3)


@pytest.mark.nightly
@pytest.mark.slow
def test_reading_segments(benchmark: Run) -> None:
    report = benchmark(
        'video_loading segments', '--lengths', 4, 8, '--piece', 2, '--segment',
        2, '--size', 64, 48, '--repeats', 1,
    )  # fmt: skip
    kinds = ['hevc', 'h264', 'vp9', 'av1', 'ts']
    rows = report['rows']
    assert [(row['kind'], row['length']) for row in rows] == [
        (kind, length) for kind in kinds for length in (4, 8)
    ]
    for row in rows:
        # a file is the piece, repeated without a gap
        assert row['frames'] == 25 * row['length']
        assert row['segments'] == row['length'] / 2
        assert row['to decoding'] == pytest.approx(
            row['reading'] / row['decoding']
        )
    for short, long in zip(rows[::2], rows[1::2], strict=True):
        assert short['reading grew by'] is None
        assert long['length grew by'] == 2
        assert long['reading grew by'] == pytest.approx(
            long['reading'] / short['reading']
        )


@pytest.mark.nightly
@pytest.mark.slow
def test_readers(benchmark: Run) -> None:
    report = benchmark(
        'video_loading readers', '--kinds', 'h264', 'ts', '--length', 2,
        '--frames', 3, '--size', 64, 48, '--repeats', 1,
    )  # fmt: skip
    assert [(row['kind'], row['way']) for row in report['rows']] == [
        (kind, way)
        for kind in ('h264', 'ts')
        for way in ('spread', 'in order')
    ]
    for row in report['rows']:
        assert row['pyav'] > 0
        assert row['opencv'] > 0
        # MPEG-TS, which decord reads wrongly, is refused
        assert (row['decord'] is None) == (row['kind'] == 'ts')


@pytest.mark.nightly
@pytest.mark.slow
def test_training_step(benchmark: Run) -> None:
    (row,) = benchmark('training step', *STEP)['rows']
    for name in ('ours', 'reference'):
        assert row[f'{name} s'] > 0
        assert set(row['losses'][name]) == {
            'loss_match', 'loss_support', 'loss_energy', 'loss_energy_support',
        }  # fmt: skip
    assert row['losses finite'] is True
    assert row['ratio'] == pytest.approx(row['reference s'] / row['ours s'])
    assert row['FLOP ratio'] > 1
    assert row['GFLOP/s'] == pytest.approx(row['GFLOP'] / row['ours s'])


@pytest.mark.nightly
@pytest.mark.slow
def test_training_memory(benchmark: Run) -> None:
    report = benchmark(
        'training memory', *TINY, '--frames', 3, '--batches', 8, 24,
        '--reference-up-to', 8,
    )  # fmt: skip
    small, large = report['rows']
    assert (small['batch'], large['batch']) == (8, 24)
    # three times the batch, nine times the pairs
    assert large['ours MiB'] > small['ours MiB'] > 0
    assert large['batch grew by'] == 3
    assert large['ours grew by'] == pytest.approx(
        large['ours MiB'] / small['ours MiB']
    )
    assert small['ratio'] == pytest.approx(
        small['reference MiB'] / small['ours MiB']
    )
    if small['exact']:
        assert small['ratio'] > 1
    # nodes of all pairs, at the least
    kept = small['reference kept KiB a pair']
    assert kept > 4 * 16 * (3 + 5) / 1024
    assert 0 < small['ours kept KiB a pair'] < kept
    assert large['reference kept KiB a pair'] is None
    assert large['reference MiB'] is None
    assert large['ratio'] is None


CAPTIONS = ('--frames', 3, '--videos', 12, '--captions', 40, '--sample', 9)


@pytest.mark.nightly
@pytest.mark.slow
def test_multi_caption(benchmark: Run) -> None:
    report = benchmark(
        'multi_caption', *TINY, *CAPTIONS, '--shortlist', 4, '--noise', 2
    )
    reference, exact, short = report['rows']
    for stage in (exact, short):
        assert stage['captions'] == 40
        assert stage['pairs/s'] == pytest.approx(40 * 12 / stage['s'])
        assert stage['interrupted'] is False
        assert stage['peak extra MiB'] >= 0
        assert stage['scores MiB'] == 4 * 40 * 12 / 2**20
        assert {'t2v/R1', 'v2t/R1', 'Rsum'} <= set(stage['metrics'])
        assert 0 < stage['t2v R1'] < 100
    assert short['t2v R1'] <= short['recall at k'] < 100
    comparison = report['comparison']
    assert comparison['t2v_R1_change'] == pytest.approx(
        short['t2v R1'] - exact['t2v R1']
    )
    assert comparison['ratio_to_reference'] == pytest.approx(
        exact['pairs/s'] / reference['pairs/s']
    )
    assert comparison['two_stage_ratio'] > 0
    assert reference['stage'] == 'reference (by 9 pairs)'
    assert reference['difference'] <= 1e-6
    assert reference['s'] == pytest.approx(40 * 12 / reference['pairs/s'])


@pytest.mark.nightly
@pytest.mark.slow
def test_an_interrupted_evaluation_keeps_what_it_has(
    repository: Path, environment: dict, tmp_path: Path
) -> None:
    file = tmp_path / 'partial.json'
    process = subprocess.Popen(
        command(
            repository, 'multi_caption', *TINY, '--frames', 3, '--videos', 30,
            '--captions', 300000, '--sample', 4, '--json', file,
            as_user=True,
        ),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    seen = b''
    try:
        # the bar is drawn empty first, and then with what has been scored
        while seen.count(b'/300000') < 2:
            part = os.read(process.stdout.fileno(), 4096)
            assert part, seen.decode()
            seen += part
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, (seen + rest).decode()
    report = json.loads(file.read_text())
    _, stage = report['rows']
    assert stage['stage'].startswith('all_pairs')
    assert stage['interrupted'] is True
    assert 0 < stage['captions'] < 300000
    assert stage['pairs/s'] > 0
    assert 0 <= stage['metrics']['t2v/R1'] <= 100


@pytest.mark.nightly
@pytest.mark.slow
def test_training_iteration(benchmark: Run, tmp_path: Path) -> None:
    write_toy_dataset(tmp_path / 'toy', renderings=2, limit=2, workers=1)
    report = benchmark(
        'training_iteration', '--threads', 1, '--repeats', 1, '--batch', 4,
        '--data-root', f'{tmp_path / "toy"}/', '--checkpointing', 'off', 'on',
    )  # fmt: skip
    assert report['sizes']['batch'] == 4
    rows = report['rows']
    assert [(row['checkpointing'], row['head']) for row in rows] == [
        (checkpointing, head)
        for checkpointing in ('off', 'on')
        for head in ('ours', 'reference')
    ]
    for row in rows:
        assert row['type'] == 'float32'
        assert row['loss finite'] is True
        spent = {k: v / 1e3 for k, v in row.items() if k.endswith(' ms')}
        assert len(spent) == 8
        assert all(value > 0 for value in spent.values())
        assert row['s'] == pytest.approx(sum(spent.values()))
        head = spent['head forward ms'] + spent['head backward ms']
        assert row['head %'] == pytest.approx(100 * head / row['s'])
    for ours, reference in (rows[:2], rows[2:]):
        assert ours['to ours'] == ours['head to ours'] == pytest.approx(1)
        assert reference['to ours'] == pytest.approx(
            reference['s'] / ours['s']
        )
        assert reference['head to ours'] == pytest.approx(
            reference['s'] * reference['head %'] / ours['s'] / ours['head %']
        )


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.timeout(120)
def test_scaling(benchmark: Run) -> None:
    report = benchmark(
        'training scaling', '--dim', 16, '--candidates', 4, '--threads', 1,
        '--repeats', 1, '--frames', 3, '--batch', 8, '--processes', 2, 4,
    )  # fmt: skip
    alone, *others = report['rows']
    assert [row['processes'] for row in report['rows']] == [1, 2, 4]
    assert alone['gradient difference'] == 0
    for row in others:
        assert row['gradient difference'] <= 1e-4
        assert row['least GFLOP'] == row['GFLOP of a process']
        # operations do not depend on the machine
        assert row['share x W'] == pytest.approx(1, abs=0.1)
        assert row['speed-up'] > 0


@pytest.fixture
def in_process(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Import from the folder of the benchmarks for the length of a test."""
    folder = repository / 'tools' / 'benchmark'
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for file in folder.glob('*.py'):  # their names are too plain to stay
        sys.modules.pop(file.stem, None)


@pytest.mark.parametrize(
    ('frames', 'layers'),
    [(3, 2), (9, 2), (3, 1)],
    ids=['few frames', 'many frames', 'one layer'],
)
@pytest.mark.parametrize('brute_force', [False, True])
def test_formulas_are_what_the_counters_count(
    in_process: Path, frames: int, layers: int, brute_force: bool
) -> None:
    """The terms of a pair, apart from what is computed once a side."""
    harness, rates, scores = (
        importlib.import_module(name)
        for name in ('harness', 'rates', 'pair_scoring')
    )
    options = ('--dim', '64', '--candidates', '5', '--layers', str(layers))
    args = harness.make_parser('', 'head').parse_args(options)
    head = harness.build_head(args, frames).eval()

    @torch.no_grad()
    def count(texts: int, videos: int) -> int:
        text, video = harness.random_features(args, texts, videos, frames)
        if brute_force:
            return rates.count_flops(
                lambda: scores.score_by_brute_force(
                    head, text.embeds, video.frames, texts
                )
            )
        return rates.count_flops(
            lambda: head.score_chunked(
                head.prepare_text(text), head.prepare_video(video)
            )
        )

    # what is computed once, once a text or once a video cancels
    pairs = count(4, 6) - count(4, 3) - count(2, 6) + count(2, 3)
    terms = (
        scores.brute_force_terms if brute_force else scores.factorised_terms
    )(64, frames, 5, 4, layers)
    assert all(value >= 0 for value in terms.values())
    assert pairs == 6 * sum(terms.values())


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('multi_caption', ('--captions', 3), 'fewer than --videos'),
        (
            'training',
            ('scaling', '--batch', 6, '--processes', 4),
            'cannot be dealt',
        ),
        (
            'video_loading',
            ('segments', '--lengths', 30, '--piece', 20),
            'multiples of --piece 20',
        ),
        ('wide_gallery', ('no/seed0',), 'no/seed0 is no folder of a run'),
    ],
)
def test_what_cannot_be_measured_is_refused(
    in_process: Path,
    call_tool: Any,
    capsys: pytest.CaptureFixture,
    name: str,
    options: tuple,
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        call_tool(f'benchmark/{name}.py', *options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.nightly
@pytest.mark.parametrize(
    ('name', 'sizes', 'bound'),
    [
        ('training', ('step', *STEP), None),
        ('pair_scoring', (*TINY, *PEAK), 0.05),
    ],
)
def test_half_precision(
    in_process: Path, call_tool: Any, tmp_path: Path, name: str,
    sizes: tuple, bound: float | None,
) -> None:  # fmt: skip
    file = tmp_path / 'half.json'
    options = [*sizes, '--dtype', 'bfloat16', '--json', file]
    if bound:
        options += ['--texts', 3, '--videos', 4, '--frames', 3]
    threads = torch.get_num_threads()
    try:
        call_tool(f'benchmark/{name}.py', *options)
    finally:
        torch.set_num_threads(threads)
    (row,) = json.loads(file.read_text())['rows']
    if bound:
        # the reference it is compared with is not of half precision
        assert 1e-5 < row['difference'] < bound
        assert row['reference to float64'] <= 1e-6
    else:
        assert row['losses finite'] is True


def test_scoring_in_several_precisions_and_compiled(
    in_process: Path, call_tool: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What a GPU is asked for; the compiler itself would take a minute."""
    monkeypatch.setattr(CompiledScore.__init__, '__defaults__', ('eager',))
    file = tmp_path / 'scoring.json'
    threads = torch.get_num_threads()
    try:
        call_tool(
            'benchmark/pair_scoring.py', *TINY, *PEAK, '--texts', 3,
            '--videos', 4, '--frames', 3, '--dtype', 'float32', 'tf32',
            'bfloat16', '--json', file,
        )  # fmt: skip
        report = json.loads(file.read_text())
        call_tool(
            'benchmark/pair_scoring.py', *TINY, *PEAK, '--texts', 3,
            '--videos', 4, '--frames', 3, '--compiled', '--json', file,
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    assert [row['type'] for row in report['rows']] == [
        'float32',
        'tf32',
        'bfloat16',
    ]
    assert torch.get_float32_matmul_precision() == 'highest'
    (compiled,) = json.loads(file.read_text())['rows']
    assert compiled['compiled'] == 'yes'
    assert compiled['difference'] <= 1e-6
    assert compiled['s without'] > 0
    assert compiled['ours pairs/s'] == pytest.approx(12 / compiled['ours s'])


def test_products_in_place_are_counted(in_process: Path) -> None:
    """Those that torch's own table leaves out."""
    rates = importlib.import_module('rates')
    left, right = torch.ones(2, 3, 4), torch.ones(2, 4, 5)
    out = torch.zeros(2, 3, 5)
    counts = {
        2 * 2 * 3 * 4 * 5: lambda: out.baddbmm_(left, right),
        2 * 3 * 4 * 5: lambda: out[0].addmm_(left[0], right[0]),
        2 * 3 * 4: lambda: left[0] @ right[0, :, 0],
    }
    for expected, run in counts.items():
        assert rates.count_flops(run) == expected


def test_results_are_counted_and_views_are_not(in_process: Path) -> None:
    rates = importlib.import_module('rates')
    x, out, one = torch.ones(4, 6), torch.empty(3, 4), torch.ones(1, 1)
    # what is written, what is read
    counts = {
        (0, 0): lambda: x.t().unflatten(0, (2, 3)).expand(5, 2, 3, 4).split(1),
        (4 * 24, 4 * 24): lambda: x + 1,
        # an expanded one is not read more often than it is there
        (4 * 24, 4 * 24 + 4): lambda: x * one.expand(4, 6),
        (4 * 12, 4 * 12): lambda: torch.mul(x[:3, :4], 2, out=out),
        (4 * 8, 4 * 8): lambda: x[:, 1:3].mul_(3),
        (4 * 12, 0): lambda: out.zero_(),
        (8 * 4 + 4 * 4, 4 * 24): lambda: x.max(dim=1),
    }
    for expected, run in counts.items():
        assert rates.count_work(run)[1:] == expected
        assert rates.count_work(run).flops == 0


@pytest.mark.nightly
@pytest.mark.slow
def test_video_loading(benchmark: Run) -> None:
    report = benchmark(
        'video_loading ways', '--clips', 1, '--repeats', 1, '--reads', 4,
        '--size', 32, '--threads', 1,
    )  # fmt: skip
    rows = {row['way']: row for row in report['rows']}
    assert set(rows) == {'release', 'mmaction2', 'decoding', 'cache'}
    assert all(row['frames/s'] > 0 for row in rows.values())
    assert rows['release']['to release'] == 1
    # the very pixels of the release
    assert report['difference'] == 0
    assert report['cache_bytes'] == 10 * 3 * 32 * 32
    assert len(report['resident']) == 4


@pytest.mark.nightly
@pytest.mark.slow
def test_loader_throughput(benchmark: Run) -> None:
    report = benchmark(
        'video_loading loader', '--clips', 2, '--items', 6, '--batch', 4,
        '--size', 32, '--workers', 1, '--repeats', 1, '--threads', 1,
    )  # fmt: skip
    assert {'pyav', 'frame cache'} <= {row['way'] for row in report['rows']}
    # one frame a second of clips of 10 and 20 seconds, 12 at most
    assert {row['frames'] for row in report['rows']} == {3 * (10 + 12)}
    assert all(row['frames/s'] > 0 for row in report['rows'])


@pytest.mark.nightly
def test_video_search(benchmark: Run, tmp_path: Path) -> None:
    report = benchmark(
        'video_search speed', '--config', 'eaglenet_toy', '--rows', 700,
        '--queries', 3, '--threads', 1, '--index', tmp_path / 'index',
    )  # fmt: skip
    assert len(VideoIndex.load(tmp_path / 'index')) == 700
    rows = {row['stage']: row for row in report['rows']}
    size = rows['on the disk, 700 rows']['MiB']
    assert size > 700 * 6 * 96 * 2 / 2**20
    assert size < 700 * (6 * 96 * 2 + 4000) * 2 / 2**20
    assert rows['one query, median, 700 rows']['s'] > 0


@pytest.mark.nightly
def test_search_recall(
    benchmark: Run, repository: Path, tmp_path: Path
) -> None:
    write_toy_dataset(tmp_path / 'toy', limit=6, renderings=1, workers=1)
    cfg = Config.fromfile(repository / 'configs/x_pool_toy.py')
    torch.manual_seed(0)
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), weights)
    report = benchmark(
        'video_search recall', 'x_pool_toy', weights, '--data-root',
        f'{tmp_path}/toy/', '--shortlists', 3, 6, '--threads', 1,
    )  # fmt: skip
    *precisions, half, all_of_them = report['rows']
    assert [row['index'] for row in precisions] == [
        'float32',
        'float16',
    ]
    assert precisions[0]['rankings of the test'] == precisions[0]['captions']
    assert 0 < half['of the ten best let through'] <= 100
    # all six are on the shortlist, which has ten places at least
    assert all_of_them['of the ten best let through'] == 100
    told = benchmark(
        'video_search reject', 'x_pool_toy', weights, '--data-root',
        f'{tmp_path}/toy/', '--splits', 20, '--alphas', 0.2, '--threads', 1,
    )['rows']  # fmt: skip
    assert 0 <= told[0]['AUROC'] <= 1
    assert told[1]['good queries that pass'] >= 70


@pytest.mark.nightly
def test_wide_gallery(
    repository: Path, benchmark: Run, tmp_path: Path
) -> None:
    """Two runs of a config, with one video of each combination."""
    data = tmp_path / 'toy'
    write_toy_dataset(data, limit=3, renderings=2, workers=1)
    config = Config.fromfile(repository / 'configs/mean_pooling_toy.py')
    runs = [tmp_path / 'mean-1234' / f'seed{seed}' for seed in (0, 1)]
    for seed, run in enumerate(runs):
        (run / 'train').mkdir(parents=True)
        config.dump(run / 'config.py')
        torch.manual_seed(seed)
        weights = MODELS.build(config.model).state_dict()
        torch.save(dict(state_dict=weights), run / 'train/best_epoch_1.pth')
    report = benchmark(
        'wide_gallery', *runs, '--data-root', data, '--threads', 1
    )
    *found, mean = report['rows']
    assert [row['run'] for row in found] == ['seed0', 'seed1']
    for row in (*found, mean):
        assert row['config'] == 'mean-1234'
        assert row['videos'] == 3 * 3
        assert 0 <= row['R1'] <= row['R5'] <= row['R10'] == 100
        assert row['times chance'] == 1
    for key in ('R1', 'R5'):
        assert mean[key] == pytest.approx(sum(row[key] for row in found) / 2)


def test_captions_are_ranked_among_all_videos(in_process: Path) -> None:
    """Test videos come first; distractors have no captions."""
    wide_gallery = importlib.import_module('wide_gallery')

    class Head:
        def prepare_text(self, text: TextFeatures) -> torch.Tensor:
            return text.embeds

        def prepare_video(self, video: VideoFeatures) -> torch.Tensor:
            return video.frames.squeeze(1)

        def score_chunked(self, text: Any, video: Any) -> torch.Tensor:
            return -(text - video.T).abs()

    class Model:
        head = Head()

        def data_preprocessor(self, data: dict) -> dict:
            inputs = {key: data[key][0] for key in ('pixels', 'token_ids')}
            return dict(inputs=dict(inputs, frame_mask=None))

        def encode_text(self, ids: torch.Tensor) -> TextFeatures:
            return TextFeatures(ids)

        def encode_video(self, pixels: Any, mask: None) -> VideoFeatures:
            real = torch.ones(1, 1, dtype=torch.bool)
            return VideoFeatures(pixels, real)

    def item(place: float, *captions: float) -> dict:
        sample = RetrievalDataSample(
            metainfo=dict(
                video_id=str(place), caption_indices=list(range(len(captions)))
            )
        )
        return dict(
            data_samples=sample,
            pixels=torch.tensor([[[place]]]),
            token_ids=torch.tensor(captions).reshape(-1, 1),
        )

    test = [item(0, 0.1, 4.0), item(10, 9.0)]
    others = [item(place, 0.0) for place in (3.0, 5.0, 8.9)]
    ranks = wide_gallery.rank(Model(), test, others)
    assert ranks.tolist() == [1, 3, 2]

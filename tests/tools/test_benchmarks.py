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
RATES = {
    'seconds', 'pairs', 'pairs_per_second', 'gflop', 'mflop_per_pair',
    'written_bytes_per_pair', 'moved_bytes_per_pair', 'gflop_per_second',
    'peak_fraction', 'seconds_at_peak', 'gbyte_per_second',
    'seconds_at_bandwidth',
}  # fmt: skip
Run = Callable[..., dict[str, Any]]


def command(
    repository: Path, name: str, *options: object, as_user: bool = False
) -> list[str]:
    script = repository / 'tools' / 'benchmark' / f'{name}.py'
    before = [Path(__file__).with_name('as_user.py')] if as_user else []
    return [sys.executable, *map(str, (*before, script, *options))]


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


def assert_rates(found: dict[str, float]) -> None:
    assert set(found) >= RATES
    assert all(found[key] > 0 for key in RATES)
    assert found['pairs_per_second'] == pytest.approx(
        found['pairs'] / found['seconds']
    )
    assert found['seconds_at_peak'] == pytest.approx(
        found['seconds'] * found['peak_fraction']
    )


@pytest.mark.slow
def test_pair_scoring(benchmark: Run) -> None:
    sizes = ('--texts', 7, '--videos', 5, '--frames', 3)
    report = benchmark(
        'pair_scoring', *TINY, *PEAK, *sizes, '--reference-texts', 5
    )
    (case,) = report['cases']
    assert (case['texts'], case['videos'], case['frames']) == (7, 5, 3)
    for name, texts in (('ours', 7), ('reference', 5)):
        assert_rates(case[name])
        assert case[name]['pairs'] == texts * 5
        # what is computed once a side comes on top
        least = case['formula_mflop_per_pair'][name]
        assert least <= case[name]['mflop_per_pair'] <= 1.5 * least
    assert case['ratio'] > 0
    assert case['flop_ratio'] > 3
    assert case['largest_difference'] <= 1e-6
    assert case['error_float64']['ours'] <= 1e-6
    assert case['error_float64']['reference'] <= 1e-6
    # the embedding alone, and the unit frames alone
    assert case['bytes_per_text'] >= 4 * 16
    assert case['bytes_per_video'] >= 4 * 3 * 16
    assert case['bytes_per_pair'] >= 4 * 4 * 16


STEP = (*TINY, *PEAK, '--batch', 4, '--frames', 3)


@pytest.mark.nightly
@pytest.mark.slow
def test_indexing_time(benchmark: Run) -> None:
    report = benchmark(
        'indexing_time', '--lengths', 4, 8, '--piece', 2, '--segment', 2,
        '--size', 64, 48, '--repeats', 1,
    )  # fmt: skip
    kinds = ['hevc', 'h264', 'vp9', 'av1', 'ts']
    cases = report['cases']
    assert [(case['kind'], case['seconds']) for case in cases] == [
        (kind, seconds) for kind in kinds for seconds in (4, 8)
    ]
    for case in cases:
        # a file is the piece, repeated without a gap
        assert case['frames'] == 25 * case['seconds']
        assert case['segments'] == case['seconds'] / 2
        assert case['to_decoding'] == pytest.approx(
            case['reading'] / case['decoding']
        )
    assert [growth['lengths'] for growth in report['growths']] == ['8/4'] * 5


@pytest.mark.nightly
@pytest.mark.slow
def test_reader_speed(benchmark: Run) -> None:
    report = benchmark(
        'reader_speed', '--kinds', 'h264', 'ts', '--seconds', 2, '--frames', 3,
        '--size', 64, 48, '--repeats', 1,
    )  # fmt: skip
    cases = report['cases']
    assert [(case['kind'], case['way']) for case in cases] == [
        (kind, way)
        for kind in ('h264', 'ts')
        for way in ('spread', 'in order')
    ]
    for case in cases:
        assert case['pyav'] > 0
        assert case['opencv'] > 0
        # MPEG-TS, which decord reads wrongly, is refused
        assert (case['decord'] is None) == (case['kind'] == 'ts')


@pytest.mark.nightly
@pytest.mark.slow
def test_training_step(benchmark: Run) -> None:
    (case,) = benchmark('training_step', *STEP)['cases']
    for name in ('ours', 'reference'):
        assert_rates(case[name])
        assert case[name]['pairs'] == 16
        assert set(case['losses'][name]) == {
            'loss_match', 'loss_support', 'loss_energy', 'loss_energy_support',
        }  # fmt: skip
    assert case['losses_finite'] is True
    assert case['ratio'] > 0
    assert case['flop_ratio'] > 1


@pytest.mark.nightly
@pytest.mark.slow
def test_training_memory(benchmark: Run) -> None:
    report = benchmark(
        'training_memory', *TINY, '--frames', 3, '--batches', 8, 24,
        '--reference-up-to', 8,
    )  # fmt: skip
    small, large = report['cases']
    assert (small['batch'], large['batch']) == (8, 24)
    # three times the batch, nine times the pairs
    assert large['ours'] > small['ours'] > 0
    assert large['batch_growth'] == 3
    assert large['growth'] == pytest.approx(large['ours'] / small['ours'])
    assert small['ratio'] == pytest.approx(small['reference'] / small['ours'])
    if small['exact']:
        assert small['ratio'] > 1
    # nodes of all pairs, at the least
    assert small['kept_per_pair']['reference'] > 4 * 16 * (3 + 5)
    assert small['kept_per_pair']['ours'] > 0
    assert large['kept_per_pair']['reference'] is None
    assert large['reference'] is None
    assert large['ratio'] is None


CAPTIONS = ('--frames', 3, '--videos', 12, '--captions', 40, '--sample', 9)


@pytest.mark.nightly
@pytest.mark.slow
def test_multi_caption(benchmark: Run) -> None:
    report = benchmark(
        'multi_caption', *TINY, *CAPTIONS, '--shortlist', 4, '--noise', 2
    )
    exact = report['stages']['all_pairs']
    short = report['stages']['two_stage']
    for stage in (exact, short):
        assert stage['captions'] == 40
        assert stage['interrupted'] is False
        assert stage['peak_extra_bytes'] >= 0
        assert {'t2v/R1', 'v2t/R1', 'Rsum'} <= set(stage['metrics'])
        assert 0 < stage['metrics']['t2v/R1'] < 100
    recall = short['metrics']['t2v/shortlist_recall']
    assert short['metrics']['t2v/R1'] <= recall < 100
    comparison = report['comparison']
    assert comparison['shortlist_recall'] == recall
    assert comparison['t2v_R1_change'] == pytest.approx(
        short['metrics']['t2v/R1'] - exact['metrics']['t2v/R1']
    )
    assert comparison['two_stage_ratio'] > 0
    reference = report['reference']
    assert reference['sample_pairs'] == 9
    assert reference['largest_difference'] <= 1e-6
    assert reference['extrapolated_seconds'] == pytest.approx(
        40 * 12 / reference['pairs_per_second']
    )


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
    assert list(report['stages']) == ['all_pairs']
    stage = report['stages']['all_pairs']
    assert stage['interrupted'] is True
    assert 0 < stage['captions'] < 300000
    assert stage['pairs_per_second'] > 0
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
    plain, recomputing = report['cases']
    assert plain['dtype'] == 'float32'
    assert (plain['checkpointing'], recomputing['checkpointing']) == (
        'off', 'on',
    )  # fmt: skip
    for case in report['cases']:
        assert case['losses_finite'] is True
        for name in ('ours', 'reference'):
            spent = case['seconds'][name]
            assert len(spent) == 8
            assert all(value > 0 for value in spent.values())
            total = case['total_seconds'][name]
            assert total == pytest.approx(sum(spent.values()))
            head = spent['head forward'] + spent['head backward']
            assert case['head_percent'][name] == pytest.approx(
                100 * head / total
            )
        assert case['ratio'] > 0
        assert case['head_ratio'] > 0


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.timeout(120)
def test_scaling(benchmark: Run) -> None:
    report = benchmark(
        'scaling', *TINY, '--frames', 3, '--batch', 8, '--processes', 2, 4
    )
    alone, *others = report['cases']
    assert [case['processes'] for case in report['cases']] == [1, 2, 4]
    assert alone['gradient_difference'] == 0
    for case in others:
        assert case['gradient_difference'] <= 1e-4
        assert len(set(case['flops_per_process'])) == 1
        # operations do not depend on the machine
        share = case['flop_share_times_processes']
        assert share == pytest.approx(1, abs=0.1)
        assert case['speed_up'] > 0


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
    arithmetic, harness, rates, scores = (
        importlib.import_module(name)
        for name in ('arithmetic', 'harness', 'rates', 'brute_force_scores')
    )
    options = ('--dim', '64', '--candidates', '5', '--layers', str(layers))
    args = harness.make_parser('').parse_args(options)
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
        arithmetic.brute_force_terms
        if brute_force
        else arithmetic.factorised_terms
    )(64, frames, 5, 4, layers)
    assert all(value >= 0 for value in terms.values())
    assert pairs == 6 * sum(terms.values())


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('multi_caption', ('--captions', 3), 'fewer than --videos'),
        ('scaling', ('--batch', 6, '--processes', 4), 'cannot be dealt'),
        ('scaling', ('--device', 'cuda'), 'compute on the CPU'),
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
    [('training_step', STEP, None), ('pair_scoring', (*TINY, *PEAK), 0.05)],
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
    (case,) = json.loads(file.read_text())['cases']
    if bound:
        # the reference it is compared with is not of half precision
        assert 1e-5 < case['largest_difference'] < bound
        assert case['error_float64']['reference'] <= 1e-6
    else:
        assert case['losses_finite'] is True


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
    assert [case['dtype'] for case in report['cases']] == [
        'float32',
        'tf32',
        'bfloat16',
    ]
    assert torch.get_float32_matmul_precision() == 'highest'
    (compiled,) = json.loads(file.read_text())['cases']
    assert compiled['failed'] is False
    assert compiled['largest_difference'] <= 1e-6
    assert compiled['seconds_without'] > 0
    assert compiled['pairs_per_second'] == pytest.approx(
        12 / compiled['seconds']
    )


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
        'video_loading', '--clips', 1, '--repeats', 1, '--reads', 4,
        '--size', 32, '--threads', 1,
    )  # fmt: skip
    rows = {row['way']: row for row in report['rows']}
    assert set(rows) == {'release', 'mmaction2', 'decoding', 'cache'}
    assert all(row['frames_per_second'] > 0 for row in rows.values())
    assert rows['release']['to_release'] == 1
    # the very pixels of the release
    assert report['largest_difference'] == 0
    assert report['cache_bytes'] == 10 * 3 * 32 * 32
    assert len(report['memory']['resident_mib']) == 4


@pytest.mark.nightly
@pytest.mark.slow
def test_loader_throughput(benchmark: Run) -> None:
    report = benchmark(
        'loader_throughput', '--clips', 2, '--items', 6, '--batch', 4,
        '--size', 32, '--workers', 1, '--repeats', 1, '--threads', 1,
    )  # fmt: skip
    assert {'pyav', 'frame cache'} <= {row['way'] for row in report['rows']}
    # one frame a second of clips of 10 and 20 seconds, 12 at most
    assert {row['frames'] for row in report['rows']} == {3 * (10 + 12)}
    assert all(row['frames_per_second'] > 0 for row in report['rows'])


@pytest.mark.nightly
def test_video_search(benchmark: Run, tmp_path: Path) -> None:
    report = benchmark(
        'video_search', '--config', 'eaglenet_toy', '--rows', 700,
        '--queries', 3, '--threads', 1, '--folder', tmp_path / 'index',
    )  # fmt: skip
    assert len(VideoIndex.load(tmp_path / 'index')) == 700
    assert report['bytes']['on the disk'] > 700 * 6 * 96 * 2
    assert report['seconds']['one query, median'] > 0


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
        'search_recall', 'x_pool_toy', weights, '--data-root',
        f'{tmp_path}/toy/', '--shortlists', 3, 6, '--threads', 1,
    )  # fmt: skip
    assert [row['index'] for row in report['precision']] == [
        'float32',
        'float16',
        'int8',
    ]
    half, all_of_them = report['shortlist']
    assert 0 < half['of the ten best'] <= 100
    # all six are on the shortlist, which has ten places at least
    assert all_of_them['of the ten best'] == 100


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
    assert [row['run'] for row in report['runs']] == ['seed0', 'seed1']
    (mean,) = report['means']
    for row in (*report['runs'], mean):
        assert row['config'] == 'mean-1234'
        assert row['videos'] == 3 * 3
        assert 0 <= row['R1'] <= row['R5'] <= row['R10'] == 100
        assert row['times chance'] == 1
    for key in ('R1', 'R5'):
        assert mean[key] == pytest.approx(
            sum(row[key] for row in report['runs']) / 2
        )


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

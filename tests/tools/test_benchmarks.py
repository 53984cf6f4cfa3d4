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
from eaglenet_mm.datasets.story import write_story_dataset
from eaglenet_mm.models.heads.eaglenet_head import CompiledScore
from eaglenet_mm.registry import MODELS
from tests.started import run_script

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
def benchmark(repository: Path, tmp_path: Path) -> Run:
    """Run a benchmark in a process and give its JSON."""

    def run(name: str, *options: object) -> dict[str, Any]:
        file = tmp_path / 'folder' / f'{name}.json'
        script, *mode = name.split()
        output = run_script(
            repository / 'tools' / 'benchmark' / f'{script}.py',
            *(*mode, *options, '--json', file),
            folder=tmp_path,
        )
        report = json.loads(file.read_text())
        assert report['benchmark'] == name
        machine = report['machine']
        assert {'processor', 'cores', 'torch', 'capability'} <= set(machine)
        assert machine['threads'] == 1
        assert report['options']['threads'] == 1
        assert '| ---' in output or '| -' in output, output
        assert_finite(report)
        return {**report, 'output': output}

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
    ours, reference = report['rows']
    assert ours['texts x videos x frames'] == '7x5x3'
    assert ours['pairs/s'] == pytest.approx(7 * 5 / ours['s'])
    assert reference['pairs/s'] == pytest.approx(5 * 5 / reference['s'])
    assert ours['to ours'] == 1
    assert reference['to ours'] == pytest.approx(
        ours['pairs/s'] / reference['pairs/s']
    )
    for row, pairs in ((ours, 35), (reference, 25)):
        assert row['s at that peak'] == pytest.approx(
            row['s'] * row['of peak']
        )
        assert row['GFLOP/s'] == pytest.approx(
            row['MFLOP/pair'] * pairs / 1e3 / row['s']
        )
    assert reference['FLOP to ours'] > 3
    assert ours['difference'] <= 1e-6
    assert ours['to float64'] <= 1e-6
    assert reference['to float64'] <= 1e-6
    # the embedding alone, and the unit frames alone
    sizes = ours['bytes']
    assert sizes['prepared text, B'] >= 4 * 16
    assert sizes['prepared video, B'] >= 4 * 3 * 16
    assert sizes['pair in a chunk, B'] >= 4 * 4 * 16
    assert sizes['reference, B'] > sizes['written a pair, B'] > 0


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
    ours, reference = benchmark('training step', *STEP)['rows']
    for row in (ours, reference):
        assert row['s'] > 0
        assert set(row['losses']) == {
            'loss_match', 'loss_support', 'loss_energy', 'loss_energy_support',
        }  # fmt: skip
        assert row['losses finite'] is True
        assert row['GFLOP/s'] == pytest.approx(
            row['MFLOP/pair'] * 16 / 1e3 / row['s']
        )
    assert reference['to ours'] == pytest.approx(reference['s'] / ours['s'])
    assert reference['FLOP to ours'] > 1


@pytest.mark.nightly
@pytest.mark.slow
def test_training_memory(benchmark: Run) -> None:
    report = benchmark(
        'training memory', *TINY, '--frames', 3, '--batches', 8, 24,
        '--reference-up-to', 8,
    )  # fmt: skip
    small, reference, large = report['rows']
    assert [(row['batch'], row['head']) for row in report['rows']] == [
        (8, 'ours'),
        (8, 'reference'),
        (24, 'ours'),
    ]
    assert large['MiB'] > small['MiB'] > 0
    assert small['grew by'] is reference['grew by'] is None
    assert large['grew by'] == pytest.approx(large['MiB'] / small['MiB'])
    assert reference['to ours'] == pytest.approx(
        reference['MiB'] / small['MiB']
    )
    if 'could not be reset' not in report['output']:
        assert reference['to ours'] > 1
    # nodes of all pairs, at the least
    kept = reference['kept KiB a pair']
    assert kept > 4 * 16 * (3 + 5) / 1024
    assert 0 < small['kept KiB a pair'] < kept


CAPTIONS = ('--frames', 3, '--videos', 12, '--captions', 40, '--sample', 9)


@pytest.mark.nightly
@pytest.mark.slow
def test_multi_caption(benchmark: Run) -> None:
    report = benchmark('multi_caption', *TINY, *CAPTIONS, '--shortlist', 4)
    reference, exact, short = report['rows']
    for stage in (exact, short):
        assert stage['captions'] == 40
        assert stage['pairs/s'] == pytest.approx(40 * 12 / stage['s'])
        assert 'interrupted' not in stage
        assert stage['peak extra MiB'] >= 0
        assert stage['scores MiB'] == 4 * 40 * 12 / 2**20
        assert {'t2v/R1', 'v2t/R1', 'Rsum'} <= set(stage['metrics'])
        assert 0 < stage['t2v R1'] < 100
    assert short['t2v R1'] <= short['recall at k'] < 100
    assert reference['stage'] == 'reference, by 9 pairs'
    assert reference['s'] == pytest.approx(40 * 12 / reference['pairs/s'])
    assert report['difference'] <= 1e-6


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
    write_story_dataset(tmp_path / 'story', limit=2, workers=1)
    report = benchmark(
        'training_iteration', '--threads', 1, '--repeats', 1, '--batch', 4,
        '--data-root', f'{tmp_path / "story"}/',
        '--checkpointing', 'off', 'on',
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


# Operations of a pair, see docs/performance.md: a product of m x k and k x n
# numbers counts 2 m k n. Work done once a text or once a video and elementwise
# operations are left out.


def brute_force_terms(
    dim: int, frames: int, candidates: int, heads: int, layers: int
) -> dict[str, int]:
    """Operations of a pair when every pair is expanded to a graph."""
    nodes = frames + 1 + candidates
    hidden, narrow = layers - 1, dim // heads
    return {
        'hidden projections': hidden * 3 * 2 * nodes * dim * dim,
        'hidden self projection': hidden * 2 * nodes * dim * narrow,
        'hidden logits': hidden * 3 * 2 * 2 * nodes * dim,
        'hidden messages': hidden * 3 * 2 * nodes * nodes * dim,
        'last projections': 3 * 2 * nodes * dim * heads * dim,
        'last self projection': 2 * nodes * dim * dim,
        'last logits': 3 * 2 * 2 * nodes * heads * dim,
        'last messages': 3 * 2 * nodes * nodes * heads * dim,
        'radius': 2 * frames * dim + 2 * frames * dim,
        'pooling': 3 * 2 * dim * dim + 2 * 2 * frames * dim,
    }


def factorised_terms(
    dim: int, frames: int, candidates: int, heads: int, layers: int
) -> dict[str, int]:
    """Operations of a pair in the head; of 1 or 2 layers."""
    nodes = 1 + candidates
    terms = {
        'radius': 2 * frames * dim + 2 * frames * dim,
        'enriched text': 2 * candidates * dim,
        'pooling': 2 * dim * dim + 2 * 2 * frames * dim,
    }
    if layers == 1:
        return {'last logits': 2 * candidates * dim * heads, **terms}
    projects_first = frames > candidates
    width = dim + dim // heads + 4 * heads + projects_first * dim
    sums = 1 if projects_first else heads
    return {
        'candidate products': 2 * candidates * dim * width,
        'text-text messages': 2 * nodes * candidates * dim,
        'frame-to-text messages': 2 * nodes * frames * dim,
        'text-to-frame sums': 2 * frames * candidates * dim * sums,
        'text-to-frame projection': (not projects_first)
        * (2 * frames * dim * dim),
        'last logits': 2 * (nodes + frames) * dim * heads,
        **terms,
    }


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
    harness, rates, reference = (
        importlib.import_module(name)
        for name in (
            'harness',
            'rates',
            'tools.benchmark.reference.brute_force_training',
        )
    )
    options = ('--dim', '64', '--candidates', '5')
    args = harness.make_parser('', 'head').parse_args(options)
    graph = dict(num_layers=layers, num_heads=4)
    head = harness.build_head(args, frames, graph=graph).eval()

    @torch.no_grad()
    def count(texts: int, videos: int) -> int:
        text, video = harness.random_features(args, texts, videos, frames)
        if brute_force:
            return rates.count_flops(
                lambda: reference.score_by_brute_force(
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
    terms = (brute_force_terms if brute_force else factorised_terms)(
        64, frames, 5, 4, layers
    )
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
    ours, reference = json.loads(file.read_text())['rows']
    if bound:
        # the reference it is compared with is not of half precision
        assert 1e-5 < ours['difference'] < bound
        assert reference['to float64'] <= 1e-6
    else:
        assert ours['losses finite'] is reference['losses finite'] is True


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
    assert [row['type'] for row in report['rows'][::2]] == [
        'float32',
        'tf32',
        'bfloat16',
    ]
    assert torch.get_float32_matmul_precision() == 'highest'
    ours, _, compiled = json.loads(file.read_text())['rows']
    assert compiled['head'] == 'compiled'
    assert compiled['difference'] <= 1e-6
    assert compiled['first s'] > 0
    assert compiled['to ours'] == pytest.approx(compiled['s'] / ours['s'])


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
        'video_search speed', '--config', 'eaglenet_story', '--rows', 700,
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
    write_story_dataset(tmp_path / 'story', limit=6, workers=1)
    cfg = Config.fromfile(repository / 'configs/x_pool_story.py')
    torch.manual_seed(0)
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), weights)
    report = benchmark(
        'video_search recall', 'x_pool_story', weights, '--data-root',
        f'{tmp_path}/story/', '--shortlists', 3, 6, '--threads', 1,
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
        'video_search reject', 'x_pool_story', weights, '--data-root',
        f'{tmp_path}/story/', '--splits', 20, '--alphas', 0.2, '--threads', 1,
    )['rows']  # fmt: skip
    assert 0 <= told[0]['AUROC'] <= 1
    assert told[1]['good queries that pass'] >= 70

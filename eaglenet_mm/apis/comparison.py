"""Train and test several configs under one budget, one run after another."""

from __future__ import annotations

import copy
import fcntl
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mmengine.config import Config

from eaglenet_mm.apis.model_cost import ModelCost, measure_cost_apart
from eaglenet_mm.apis.tool_process import RunError, run_tool
from eaglenet_mm.utils.durable_file import (
    replace_durably,
    write_text_durably,
)

#: Columns of the table that are metrics of the test.
METRICS = {
    't2v/R1': 't2v R@1',
    't2v/R5': 't2v R@5',
    't2v/R10': 't2v R@10',
    'v2t/R1': 'v2t R@1',
}
#: How long a config trains.
_UNITS = {'max_epochs': 'epochs', 'max_iters': 'iterations'}
_MISSING = '–'  # noqa: RUF001 a dash, as tables have it
_PREFIXES = ('', ' k', ' M', ' G', ' T')


@dataclass
class Run:
    """One training and test."""

    config: str
    seed: int
    folder: str
    status: str  # finished or failed
    metrics: dict[str, float] | None = None
    # of the training process: time by the clock and most resident memory; not
    # known where it went on from an interrupted one
    train_seconds: float | None = None
    peak_bytes: int | None = None
    checkpoint: str | None = None  # what was tested
    error: str | None = None


class Comparison:
    """Trains and tests configs with several seeds, and makes a table of it.

    Every run has a folder of its own, named after the config, a digest of
    all settings, and the seed: ``DIR/x_pool_story-3f9a01c2/seed0``. Has the
    settings as they were at the start, so that an edit meanwhile changes
    nothing. A run found finished there is taken up, an interrupted one goes
    on from its last checkpoint, a failed one is tried again; other settings
    have another folder. Runs follow each other, each in processes of its own:
    neither time nor memory of one depends on another, and one that fails ends
    no other.

    ``tools`` is the folder of ``train.py`` and ``test.py``; without
    ``epochs`` each config trains as long as it says; ``report`` gets a line
    about every run.
    """

    def __init__(
        self,
        configs: dict[str, Config],
        seeds: int,
        work_dir: str | Path,
        tools: str | Path,
        epochs: int | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        if seeds < 1 or (epochs is not None and epochs < 1):
            raise ValueError(
                'seeds and epochs must be at least 1, but got '
                f'seeds={seeds} and epochs={epochs}.'
            )
        self.configs = copy.deepcopy(configs)
        self.budget = _same_budget(self.configs, epochs)
        self.seeds = seeds
        self.work_dir = Path(work_dir)
        self.tools = Path(tools)
        self.report = report or (lambda line: None)
        self._lock = -1

    def run(self) -> dict[str, Any]:
        """Do what is not done yet; return what ``comparison.json`` holds.

        ``epochs`` or ``iterations``, ``seeds``, ``runs`` and, by config,
        ``costs``.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        with _locked(self.work_dir / 'lock') as self._lock:
            costs = {
                name: self._cost(name, config)
                for name, config in self.configs.items()
            }
            runs: list[Run] = []
            # seeds outside: an early stop leaves as many runs of each config
            for seed in range(self.seeds):
                for name, config in self.configs.items():
                    runs.append(self._run(name, config, seed))
                    result = dict(
                        **dict([self.budget]),
                        seeds=self.seeds,
                        costs={k: x and asdict(x) for k, x in costs.items()},
                        runs=[asdict(run) for run in runs],
                    )
                    _write(self.work_dir / 'comparison.json', result)
        return result

    def _cost(self, name: str, config: Config) -> ModelCost | None:
        """Measure a model; one that cannot be built fails when it trains."""
        try:
            return measure_cost_apart(config)
        except Exception as err:  # noqa: BLE001 whatever a config can raise
            self.report(f'{name}: its cost is not known: {_line(err)}')
            return None

    def _run(self, name: str, config: Config, seed: int) -> Run:
        folder = self.work_dir / f'{name}-{digest(config)}' / f'seed{seed}'
        title = f'{name}, seed {seed}'
        earlier = None
        if (folder / 'run.json').exists():
            earlier = Run(
                **json.loads((folder / 'run.json').read_text('utf-8'))
            )
        if earlier is not None and earlier.status == 'finished':
            self.report(f'{title}: finished already in {folder}')
            return earlier
        self.report(f'{title}: training in {folder}')
        run = Run(name, seed, str(folder), 'failed')
        if earlier is not None:  # its training may have ended well
            run.train_seconds = earlier.train_seconds
            run.peak_bytes = earlier.peak_bytes
        try:
            self._train_and_test(config, folder, run)
        except (RunError, OSError, ValueError, KeyError) as err:
            run.error = _line(err)
            self.report(f'{title}: FAILED: {run.error}')
        else:
            run.status = 'finished'
            values = ', '.join(
                f'{key} {(run.metrics or {}).get(key, float("nan")):.1f}'
                for key in METRICS
            )
            self.report(f'{title}: {values}')
        _write(folder / 'run.json', asdict(run))
        return run

    def _train_and_test(self, config: Config, folder: Path, run: Run) -> None:
        settings, train, test = (
            folder / name for name in ('config.py', 'train', 'test')
        )
        if not settings.exists():
            with replace_durably(settings) as part:
                part.write_text(config.pretty_text, encoding='utf-8')
        resumed = (train / 'last_checkpoint').exists()
        if not resumed:
            shutil.rmtree(train, ignore_errors=True)
        # A process that outlives this one keeps the lock, and so a second
        # comparison out of the folder.
        lock = (self._lock,)
        seconds, peak = run_tool(
            self.tools / 'train.py',
            [
                *(settings, '--work-dir', train, '--seed', run.seed),
                *(['--resume'] if resumed else []),
            ],
            folder / 'train.log',
            lock,
        )
        if not resumed:
            run.train_seconds, run.peak_bytes = seconds, peak
            _write(folder / 'run.json', asdict(run))
        run.checkpoint = str(chosen_checkpoint(train))
        run_tool(
            self.tools / 'test.py',
            [settings, run.checkpoint, '--work-dir', test],
            folder / 'test.log',
            lock,
        )
        metrics = json.loads((test / 'metrics.json').read_text('utf-8'))
        run.metrics = metrics['metrics']


def digest(config: Config) -> str:
    """Name all settings of a config by 8 characters."""
    text = json.dumps(config.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _same_budget(
    configs: dict[str, Config], epochs: int | None
) -> tuple[str, int]:
    """Set epochs, if given, and tell how long all train: unit and number."""
    budgets = {}
    for name, config in configs.items():
        settings = config.get('train_cfg') or {}
        key = next((key for key in _UNITS if settings.get(key)), None)
        if key is None:
            raise ValueError(
                f'{name} does not say how long it trains. Set max_epochs or '
                'max_iters in its train_cfg.'
            )
        if epochs is not None:
            if key != 'max_epochs':
                # its schedule counts iterations and cannot be translated
                raise ValueError(
                    f'{name} trains for {settings[key]} iterations (max_iters '
                    f'of its train_cfg), so --epochs {epochs} does not apply '
                    'to it. Leave --epochs out and set max_iters alike in all '
                    'configs, or give it a schedule with max_epochs.'
                )
            settings[key] = epochs
        budgets[name] = (_UNITS[key], settings[key])
    if len(set(budgets.values())) > 1:
        told = ', '.join(
            f'{name}: {number} {unit}'
            for name, (unit, number) in budgets.items()
        )
        raise ValueError(
            f'Configs of one comparison train equally long, but got {told}. '
            'Set --epochs, or max_iters alike where they count iterations.'
        )
    return next(iter(budgets.values()))


def chosen_checkpoint(folder: Path) -> Path:
    """Best checkpoint of a work directory, else the last, else RunError."""
    best = sorted(
        folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime
    )
    if best:
        return best[-1]
    last = folder / 'last_checkpoint'
    if not last.exists():
        raise RunError(
            f'The training left no checkpoint in {folder}. Set '
            'default_hooks.checkpoint of the config.'
        )
    return Path(last.read_text('utf-8').strip())


def _write(file: Path, content: dict[str, Any]) -> None:
    write_text_durably(file, f'{json.dumps(content, indent=2)}\n')


@contextmanager
def _locked(file: Path) -> Iterator[int]:
    """Keep a second comparison out of the folder; gives the open file."""
    with file.open('w') as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise RuntimeError(
                f'Another comparison is at work in {file.parent}. Wait for '
                'it, or give another --work-dir.'
            ) from err
        yield handle.fileno()


def _line(err: Exception) -> str:
    return ' '.join(f'{type(err).__name__}: {err}'.split())


def table_of(result: dict[str, Any]) -> str:
    """Make the Markdown table of a comparison, a line a config.

    A spread is the sample standard deviation over the runs; there is none of
    one run.
    """
    head = [
        *('config', 'runs', *METRICS.values()),
        *('training', 'memory', 'head / all parameters', 'FLOPs a pair'),
    ]
    rows = [head, ['---', *['--:'] * (len(head) - 1)]]
    for name, cost in result['costs'].items():
        own = [run for run in result['runs'] if run['config'] == name]
        rows.append([name, *_cells(own, cost)])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def mean_and_spread(values: Sequence[float]) -> str:
    """Write numbers as mean and sample standard deviation."""
    if not values:
        return _MISSING
    if not all(map(math.isfinite, values)):
        return 'not finite'
    spread = f' ± {stdev(values):.1f}' if len(values) > 1 else ''
    return f'{fmean(values):.1f}{spread}'


def rounded(number: float) -> str:
    """Write a number in three digits with a prefix: ``24.6 k``."""
    for prefix in _PREFIXES:
        if number < 999.5 or prefix == _PREFIXES[-1]:
            break
        number /= 1000
    return f'{number:.3g}{prefix}' if number < 1000 else f'{number:.0f} T'


def _cells(
    runs: Sequence[dict[str, Any]], cost: dict[str, Any] | None
) -> list[str]:
    """Cells of one config, but for its name."""
    done = [run for run in runs if run['status'] == 'finished']
    minutes, memory = (
        [run[key] / unit for run in done if run[key] is not None]
        for key, unit in (('train_seconds', 60), ('peak_bytes', 2**30))
    )
    sizes = [_MISSING, _MISSING]
    if cost is not None:
        head, total, flops = (
            rounded(cost[key])
            for key in ('head_parameters', 'parameters', 'flops_per_pair')
        )
        sizes = [f'{head} / {total}', flops]
    return [
        f'{len(done)} of {len(runs)}',
        *(
            mean_and_spread(
                [run['metrics'][key] for run in done if key in run['metrics']]
            )
            for key in METRICS
        ),
        f'{mean_and_spread(minutes)} min' if minutes else _MISSING,
        f'{fmean(memory):.2f} GiB' if memory else _MISSING,
        *sizes,
    ]

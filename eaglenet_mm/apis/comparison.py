"""Train and test several configs under one budget, one run after another."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .comparison_table import METRICS, comparison_table
from .model_cost import ModelCost, measure_cost_apart
from .run_folder import chosen_checkpoint, locked, write_whole
from .tool_process import RunError, run_tool


@dataclass
class Run:
    """One training and test.

    Args:
        config (str): Name of the config.
        seed (int): Of all its random numbers.
        folder (str): Where its files lie.
        status (str): ``'finished'`` or ``'failed'``.
        metrics (dict, optional): Of the test.
        train_seconds (float, optional): Wall clock of the training process,
            start, validation and checkpoints included. None where it went on
            from an interrupted one, whose time is not known.
        peak_bytes (int, optional): Most resident memory of that process; None
            likewise.
        checkpoint (str, optional): What was tested.
        error (str, optional): Why it failed.
    """

    config: str
    seed: int
    folder: str
    status: str
    metrics: dict[str, float] | None = None
    train_seconds: float | None = None
    peak_bytes: int | None = None
    checkpoint: str | None = None
    error: str | None = None


class Comparison:
    """Trains and tests configs with several seeds, and makes a table of it.

    Every run has a folder of its own, named after the config, a digest of
    all settings, and the seed: ``DIR/x_pool_toy-3f9a01c2/seed0``. It holds the
    settings as they were at the start, so that an edit meanwhile changes
    nothing. A run found finished there is taken up, an interrupted one goes
    on from its last checkpoint, a failed one is tried again; other settings
    have another folder. Runs follow each other, each in processes of its own:
    neither time nor memory of one depends on another, and one that fails ends
    no other.

    Args:
        configs (dict[str, Config]): By name; options are merged already.
        seeds (int): Runs a config, with seeds from 0.
        work_dir (str or Path): Folder of all runs and ``comparison.json``.
        tools (str or Path): Folder of ``train.py`` and ``test.py``.
        epochs (int, optional): Epochs for all of them. Default: None, the
            epochs or iterations of each config.
        report (Callable, optional): Gets a line about every run. Default:
            None.

    Raises:
        ValueError: If a number is below 1, configs train for different
            numbers of epochs or iterations, or ``epochs`` is set and one of
            them counts iterations.
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
        self.configs = {
            name: _with_epochs(name, config, epochs)
            for name, config in configs.items()
        }
        self.budget = _same_budget(self.configs)
        self.seeds = seeds
        self.work_dir = Path(work_dir)
        self.tools = Path(tools)
        self.report = report or (lambda line: None)
        self._lock = -1

    def run(self) -> dict[str, Any]:
        """Do what is not done yet.

        Returns:
            dict[str, Any]: What ``comparison.json`` holds: ``epochs`` or
            ``iterations``, ``seeds``, ``runs`` and, by config, ``costs``.

        Raises:
            RuntimeError: If another comparison is at work in the folder.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        with locked(self.work_dir / 'lock') as self._lock:
            costs = {
                name: self._cost(name, config)
                for name, config in self.configs.items()
            }
            runs: list[Run] = []
            # seeds outside: an early stop leaves as many runs of each config
            for seed in range(self.seeds):
                for name, config in self.configs.items():
                    runs.append(self._run(name, config, seed))
                    result = self._result(costs, runs)
                    write_whole(self.work_dir / 'comparison.json', result)
        return result

    def _result(
        self, costs: dict[str, ModelCost | None], runs: Sequence[Run]
    ) -> dict[str, Any]:
        return dict(
            **dict([self.budget]),
            seeds=self.seeds,
            costs={
                name: None if cost is None else asdict(cost)
                for name, cost in costs.items()
            },
            runs=[asdict(run) for run in runs],
        )

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
        earlier = _earlier(folder / 'run.json')
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
        write_whole(folder / 'run.json', asdict(run))
        return run

    def _train_and_test(self, config: Config, folder: Path, run: Run) -> None:
        settings, train, test = (
            folder / name for name in ('config.py', 'train', 'test')
        )
        folder.mkdir(parents=True, exist_ok=True)
        if not settings.exists():
            # written at the end, so that the file is whole if it is there
            part = folder / 'part.py'
            config.dump(part)
            os.replace(part, settings)
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
            write_whole(folder / 'run.json', asdict(run))
        run.checkpoint = str(chosen_checkpoint(train))
        run_tool(
            self.tools / 'test.py',
            [settings, run.checkpoint, '--work-dir', test],
            folder / 'test.log',
            lock,
        )
        metrics = json.loads((test / 'metrics.json').read_text('utf-8'))
        run.metrics = metrics['metrics']


def table_of(result: dict[str, Any]) -> str:
    """Make the Markdown table of a comparison.

    Args:
        result (dict[str, Any]): Of :meth:`Comparison.run`, or of its file.

    Returns:
        str: A line a config, in the order they were given.
    """
    return comparison_table(result['costs'], result['runs'])


def digest(config: Config) -> str:
    """Name all settings of a config by 8 characters."""
    text = json.dumps(config.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _with_epochs(name: str, config: Config, epochs: int | None) -> Config:
    """Copy a config, and set how long it trains."""
    config = copy.deepcopy(config)
    unit, number = _budget(name, config)
    if epochs is None:
        return config
    if unit != 'epochs':
        # its schedule counts iterations, too, and cannot be translated
        raise ValueError(
            f'{name} trains for {number} iterations (max_iters of its '
            f'train_cfg), so --epochs {epochs} does not apply to it. Leave '
            '--epochs out and set max_iters alike in all configs, or give it '
            'a schedule with max_epochs.'
        )
    config.train_cfg.max_epochs = epochs
    return config


def _budget(name: str, config: Config) -> tuple[str, int]:
    """Tell how long a config trains: unit and number."""
    settings = config.get('train_cfg') or {}
    for unit, key in (('epochs', 'max_epochs'), ('iterations', 'max_iters')):
        if settings.get(key):
            return unit, settings[key]
    raise ValueError(
        f'{name} does not say how long it trains. Set max_epochs or '
        'max_iters in its train_cfg.'
    )


def _same_budget(configs: dict[str, Config]) -> tuple[str, int]:
    """Refuse configs of different budgets."""
    budgets = {name: _budget(name, config) for name, config in configs.items()}
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


def _earlier(file: Path) -> Run | None:
    """Read the record of an earlier run, if there is one."""
    if not file.exists():
        return None
    return Run(**json.loads(file.read_text('utf-8')))


def _line(err: Exception) -> str:
    return ' '.join(f'{type(err).__name__}: {err}'.split())

"""What a test leaves behind: its metrics as JSON, on demand its scores."""

import json
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.logging import print_log


def dump_scores(cfg: Config, path: str) -> None:
    """Add MMEngine's ``DumpResults`` to the test evaluator, in place.

    Args:
        cfg (Config): Gets a second metric, which writes what the first one
            receives.
        path (str): File to write, ``.pkl`` or ``.pickle``.

    Raises:
        ValueError: If the file is to have another ending, or if the config
            has no test evaluator.
    """
    if not path.endswith(('.pkl', '.pickle')):
        raise ValueError(
            f'--dump writes a pickle, so its file must end with .pkl or '
            f'.pickle, but got {path!r}.'
        )
    evaluator = cfg.get('test_evaluator')
    if evaluator is None:
        raise ValueError(
            f'--dump needs a test_evaluator, but {cfg.filename} has none.'
        )
    if isinstance(evaluator, dict):
        evaluator = [evaluator]
    dump = dict(type='DumpResults', out_file_path=path)
    cfg.test_evaluator = [*evaluator, dump]


def start_metrics(cfg: Config) -> Path:
    """Choose the metrics file and remove the one of an earlier test.

    A test that is stopped then leaves none, rather than numbers of another
    checkpoint.

    Args:
        cfg (Config): Its ``work_dir`` will hold the file.

    Returns:
        Path: ``metrics.json`` in the work directory.
    """
    path = Path(cfg.work_dir) / 'metrics.json'
    path.unlink(missing_ok=True)
    return path


@master_only
def write_metrics(path: Path, metrics: dict[str, float], **about: Any) -> None:
    """Write metrics as JSON, complete or not at all.

    Args:
        path (Path): File to write; its folder is made.
        metrics (dict[str, float]): Of ``runner.test()``.
        **about (Any): Written beside the metrics: config, checkpoint.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {key: float(value) for key, value in metrics.items()}
    text = json.dumps({**about, 'metrics': values}, indent=2)
    part = path.with_name(f'{path.name}.part')
    part.write_text(f'{text}\n', encoding='utf-8')
    os.replace(part, path)
    print_log(f'Metrics written to {path}', logger='current')

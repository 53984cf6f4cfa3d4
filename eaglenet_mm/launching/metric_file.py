"""Output files of a test: metrics as JSON and, on request, scores."""

import json
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.logging import print_log

from eaglenet_mm.utils.durable_file import write_text_durably


def dump_scores(cfg: Config, path: str) -> None:
    """Add MMEngine's ``DumpResults`` to the test evaluator, in place."""
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
    """Choose the metrics file and remove that of an earlier test.

    An interrupted test then leaves no file instead of stale numbers.
    """
    path = Path(cfg.work_dir) / 'metrics.json'
    path.unlink(missing_ok=True)
    return path


@master_only
def write_metrics(path: Path, metrics: dict[str, float], **about: Any) -> None:
    """Write metrics as JSON, atomically."""
    values = {key: float(value) for key, value in metrics.items()}
    text = json.dumps({**about, 'metrics': values}, indent=2)
    write_text_durably(path, f'{text}\n')
    print_log(f'Metrics written to {path}', logger='current')

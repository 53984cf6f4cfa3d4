"""Start and end of trainings, tests and other tools."""

from eaglenet_mm.launching.runs import (
    add_config_arguments,
    add_launch_arguments,
    build_runner,
    check_checkpoint,
    load_config,
    merge_train_arguments,
    read_config,
    read_optional_config,
)
from eaglenet_mm.launching.scripts import run_script, spare_tracebacks

__all__ = [
    'add_config_arguments',
    'add_launch_arguments',
    'build_runner',
    'check_checkpoint',
    'load_config',
    'merge_train_arguments',
    'read_config',
    'read_optional_config',
    'run_script',
    'spare_tracebacks',
]

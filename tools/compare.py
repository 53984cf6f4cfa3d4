"""Compare methods: python tools/compare.py CONFIG... --seeds 3 [options].

Trains and tests every config with every seed under the same budget, one run
after another, and prints a Markdown table. The same command goes on where it
was stopped; after a change of the code, give another --work-dir.
"""

import argparse
from pathlib import Path

from eaglenet_mm.apis.comparison import Comparison, table_of
from eaglenet_mm.config import config_path
from eaglenet_mm.launching import add_config_arguments, read_config, run_script


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Train and test several configs under the same budget'
    )
    add = parser.add_argument
    add('configs', nargs='+', help='files or names')
    add('--seeds', type=int, default=3, help='runs a config; default: 3')
    add('--epochs', type=int, help='default: of the configs, which must agree')
    work_dir = 'folder of the runs and comparison.json; default: %(default)s'
    add('--work-dir', default='work_dirs/comparison', help=work_dir)
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> int:
    """Compare, print the table; 1 if a run failed."""
    args = parse_args()
    configs = {}
    for path in args.configs:
        name = Path(config_path(path)).stem
        if name in configs:
            raise ValueError(
                f'Configs are told apart by their names, but {name!r} is '
                'given twice.'
            )
        configs[name] = read_config(
            argparse.Namespace(**{**vars(args), 'config': path})
        )
    result = Comparison(
        configs,
        seeds=args.seeds,
        work_dir=args.work_dir,
        tools=Path(__file__).resolve().parent,
        epochs=args.epochs,
        report=lambda line: print(line, flush=True),
    ).run()
    unit = 'epochs' if 'epochs' in result else 'iterations'
    print(f'\n{result[unit]} {unit}, {result["seeds"]} seeds\n')
    print(table_of(result))
    return int(any(run['status'] == 'failed' for run in result['runs']))


if __name__ == '__main__':
    run_script(main, goes_on=True)

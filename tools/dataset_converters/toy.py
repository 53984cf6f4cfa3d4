"""Generate the toy data set of moving shapes.

    python tools/dataset_converters/toy.py --out data/toy

Does nothing if the folder holds the data of the same options already.
"""

import argparse
from pathlib import Path

from eaglenet_mm.datasets.toy import write_toy_dataset


def main() -> None:
    """Generate the data set unless it is complete."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    default = 'default: %(default)s'
    out = f'folder to write; {default}'
    add('--out', type=Path, default=Path('data/toy'), help=out)
    seed = f'of split, videos and captions; {default}'
    add('--seed', type=int, default=0, help=seed)
    renderings = f'training videos of a kind; {default}'
    add('--renderings', type=int, default=6, help=renderings)
    captions = f'captions of a video, 1-4; {default}'
    add('--captions', type=int, default=4, help=captions, dest='num_captions')
    add('--limit', type=int, help='combinations a split; default: all')
    workers = f'processes that draw; {default}'
    add('--workers', type=int, default=2, help=workers)
    args = parser.parse_args()
    options = vars(args)
    out = options.pop('out')
    try:
        made = write_toy_dataset(out, **options)
    except (FileExistsError, ValueError) as err:
        raise SystemExit(f'toy.py: {err}') from err
    told = f'{out} is complete already, nothing to do.'
    print(f'Wrote the toy data set to {out}.' if made else told)


if __name__ == '__main__':
    main()

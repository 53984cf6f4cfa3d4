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
    add('--out', type=Path, default=Path('data/toy'), help='folder to write')
    add('--seed', type=int, default=0, help='of split, videos and captions')
    add('--renderings', type=int, default=6, help='training videos of a kind')
    captions = dict(type=int, default=4, help='captions of a video, 1-4')
    add('--captions', **captions, dest='num_captions')
    add('--limit', type=int, help='combinations a split; default: all')
    add('--workers', type=int, default=2, help='processes that draw')
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

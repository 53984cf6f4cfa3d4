"""Generate the story set: videos of two and three scenes.

    python tools/dataset_converters/story.py --out data/story

Does nothing if the folder holds the data of the same options already.
"""

import argparse
from pathlib import Path

from eaglenet_mm.datasets.story import write_story_dataset


def main() -> None:
    """Generate the data set unless it is complete."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    default = 'default: %(default)s'
    out = f'folder to write; {default}'
    add('--out', type=Path, default=Path('data/story'), help=out)
    seed = f'of split, videos and captions; {default}'
    add('--seed', type=int, default=0, help=seed)
    add('--limit', type=int, help='videos of each split; default: all')
    workers = f'processes that draw; {default}'
    add('--workers', type=int, default=2, help=workers)
    args = parser.parse_args()
    options = vars(args)
    out = options.pop('out')
    try:
        made = write_story_dataset(out, **options)
    except (FileExistsError, ValueError) as err:
        raise SystemExit(f'story.py: {err}') from err
    told = f'{out} is complete already, nothing to do.'
    print(f'Wrote the story set to {out}.' if made else told)


if __name__ == '__main__':
    main()

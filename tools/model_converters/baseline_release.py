"""Turn a released checkpoint of another method into one for tools/test.py."""

import argparse
import os.path as osp

from mmengine.registry import init_default_scope
from torch import nn

from eaglenet_mm import __version__
from eaglenet_mm.config import open_config, skip_pretrained
from eaglenet_mm.models.converters import (
    METHODS,
    convert_baseline_release,
    read_release_file,
    write_converted,
)
from eaglenet_mm.registry import MODELS


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        'method',
        choices=list(METHODS),
        help="what it is of; mmaction2's CLIP4Clip is clip4clip_mean",
    )
    add('input', help="the authors' checkpoint")
    add('output', help='where ours is written')
    add('--config', help='config whose model it must fit')
    add(
        '--initialise-from-clip',
        action='store_true',
        help="start missing positions and blocks as CLIP's text tower",
    )
    add(
        '--trust-checkpoint',
        action='store_true',
        help='read the input as a plain pickle, which can run code',
    )
    args = parser.parse_args()
    if osp.realpath(args.input) == osp.realpath(args.output):
        parser.error(f'the output {args.output} is the input; name another')
    return args


def build_model(path: str) -> nn.Module:
    """Build the model of a config without fetching pretrained weights."""
    config = open_config(path)
    init_default_scope(config.get('default_scope', 'eaglenet_mm'))
    skip_pretrained(config)
    return MODELS.build(config.model)


def main() -> None:
    """Convert, check, write and report."""
    args = parse_args()
    ours, report = convert_baseline_release(
        read_release_file(args.input, trusted=args.trust_checkpoint),
        args.method,
        model=build_model(args.config) if args.config else None,
        initialise_from_clip=args.initialise_from_clip,
    )
    meta = dict(
        converted_from=osp.basename(args.input),
        eaglenet_mm_version=__version__,
        method=args.method,
    )
    write_converted(args.output, ours, meta)
    print(*report.lines(), sep='\n')
    print(f'{len(ours)} tensors written: {args.output}')


if __name__ == '__main__':
    main()

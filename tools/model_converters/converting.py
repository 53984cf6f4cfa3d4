"""Command line of the converters of released weights."""

import argparse
import os.path as osp
from typing import Any

from mmengine.registry import init_default_scope
from torch import nn

from eaglenet_mm import __version__
from eaglenet_mm.config import open_config, skip_pretrained
from eaglenet_mm.models.converters import read_release_file, write_converted
from eaglenet_mm.registry import MODELS


def make_parser(
    description: str | None, parents: Any = ()
) -> argparse.ArgumentParser:
    """Make a parser with the options of all converters."""
    parser = argparse.ArgumentParser(description=description, parents=parents)
    add = parser.add_argument
    add('input', help="the authors' checkpoint")
    add('output', help='where ours is written')
    add('--config', help='config whose model it must fit')
    add(
        '--trust-checkpoint',
        action='store_true',
        help='read the input as a plain pickle, which can run code',
    )
    return parser


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line; refuse to overwrite the input."""
    args = parser.parse_args()
    if osp.realpath(args.input) == osp.realpath(args.output):
        parser.error(f'the output {args.output} is the input; name another')
    return args


def read_input(args: argparse.Namespace) -> tuple[Any, nn.Module | None]:
    """Read the checkpoint; build the model of ``--config``, if given."""
    model = None
    if args.config:
        config = open_config(args.config)
        init_default_scope(config.get('default_scope', 'eaglenet_mm'))
        skip_pretrained(config)
        model = MODELS.build(config.model)
    return read_release_file(args.input, trusted=args.trust_checkpoint), model


def write_output(
    args: argparse.Namespace, ours: dict[str, Any], report: Any, **meta: Any
) -> None:
    """Write the checkpoint and report."""
    name = osp.basename(args.input)
    about = dict(converted_from=name, eaglenet_mm_version=__version__, **meta)
    write_converted(args.output, ours, about)
    print(*report.lines(), sep='\n')
    print(f'{len(ours)} tensors written: {args.output}')

"""Export a model: python tools/export.py CONFIG CHECKPOINT --out FOLDER.

Encoders become ONNX files, the scoring files of torch.export; export.json
says what was written, and how far it is from the model. See docs/export.md.
"""

import argparse
import os.path as osp

import torch
from rich.console import Console
from rich.table import Table

from eaglenet_mm.apis import load_retriever
from eaglenet_mm.export import PARTS, export_retriever
from eaglenet_mm.export.exported_file import hash_file
from eaglenet_mm.launching import (
    add_config_arguments,
    check_checkpoint,
    read_config,
    spare_tracebacks,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Export a model')
    add = parser.add_argument
    add('config', help='config file, or the name of one')
    add('checkpoint', help='checkpoint file')
    add('--out', required=True, help='folder of the files')
    parts = dict(default=list(PARTS[:3]), help='default: %(default)s')
    add('--parts', nargs='+', choices=PARTS, **parts)
    raw = 'let the video encoder take uint8 frames and normalise them'
    add('--raw-frames', action='store_true', help=raw)
    device = 'where the files of torch.export are to run; default: cpu'
    add('--device', choices=['cpu', 'cuda'], default='cpu', help=device)
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Export, and print a table of what was written."""
    args = parse_args()
    check_checkpoint(args.checkpoint)
    cfg = read_config(args)
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('--device cuda needs a GPU, but torch finds none.')
    model = load_retriever(cfg, args.checkpoint).to(args.device)
    about = dict(config=args.config, checkpoint=args.checkpoint)
    if osp.isfile(args.checkpoint):
        about['checkpoint_sha256'] = hash_file(args.checkpoint)
    files = export_retriever(
        model, args.out, args.parts, raw_frames=args.raw_frames, about=about
    )
    columns = ('file', 'MB', 'seconds', 'largest difference', 'share')
    table = Table(*columns, title=f'written to {args.out}')
    for file in files:
        measured = ['not measured', '']
        if file.parity is not None:
            numbers = file.parity.difference, file.parity.relative
            measured = [f'{number:.1e}' for number in numbers]
        size, seconds = f'{file.num_bytes / 1e6:.2f}', f'{file.seconds:.1f}'
        table.add_row(file.path.name, size, seconds, *measured)
    Console().print(table)


if __name__ == '__main__':
    spare_tracebacks()
    main()

"""Search an index from a browser and over HTTP: eaglenet-mm serve INDEX.

The index is made by tools/index.py. The page is at /, the description of the
interface at /docs. The token may also stand in EAGLENET_MM_TOKEN.
"""

import argparse
import os
import sys
from importlib.util import find_spec

from eaglenet_mm.apis import RetrievalInferencer
from eaglenet_mm.launching import (
    add_config_arguments,
    read_optional_config,
    run_script,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('index', help='file or address of the index')
    host = 'default: %(default)s, this machine alone'
    add('--host', default='127.0.0.1', help=host)
    add('--port', type=int, default=7860, help='default: 7860')
    add('--allowed-host', action='append', metavar='NAME')
    add('--root-path', help='path below which a proxy shows it')
    token = os.environ.get('EAGLENET_MM_TOKEN')
    add('--token', default=token, help='default: EAGLENET_MM_TOKEN')
    add('--max-upload', type=int, help='MB of a clip; default: 200')
    add('--time-limit', type=float, help='seconds; default: 120')
    add('--shortlist', type=int, help='default: 100; 0: all')
    stage = 'torch, lance, milvus[:URL]; default: %(default)s'
    add('--first-stage', default='auto', help=stage)
    add('--reject', type=float, metavar='ALPHA', help='say nothing was found')
    add('--example', action='append', metavar='TEXT', help='offered query')
    add('--config', help='file or name; default: what the index holds')
    add('--checkpoint', help='default: where it was when indexing')
    add('--head', metavar='CONFIG', help='another head on the same encoders')
    add('--device', help='default: the GPU if there is one')
    add('--no-access-log', action='store_true', help='list no requests')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Load the model, and serve."""
    args = parse_args()
    needed = ('fastapi', 'uvicorn', 'python_multipart')
    if missing := [name for name in needed if find_spec(name) is None]:
        raise ImportError(
            f'The service needs {" and ".join(missing)}. Install it with: '
            "pip install 'eaglenet_mm[serve]'."
        )
    import uvicorn

    from eaglenet_mm.service import Settings, is_loopback, make_app

    given = {name: vars(args)[name] for name in Settings.model_fields}
    given = {k: v for k, v in given.items() if v is not None}
    settings = Settings(**given)
    inferencer = RetrievalInferencer.of_index(
        args.index,
        args.checkpoint,
        args.device,
        model=read_optional_config(args),
        head=args.head,
        first_stage=args.first_stage,
    )
    if not settings.token and not is_loopback(args.host):
        sys.stderr.write(
            f'WARNING: everyone who reaches {args.host}:{args.port} can '
            'search and watch the videos of the index. Set a token with '
            'EAGLENET_MM_TOKEN.\n'
        )
    app = make_app(inferencer, settings)
    shown = f'[{args.host}]' if ':' in args.host else args.host
    sys.stderr.write(f'Open http://{shown}:{args.port} (Ctrl+C ends it)\n')
    uvicorn.run(
        app,
        host=args.host,
        port=args.port,
        log_level='warning' if args.no_access_log else 'info',
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=2**18,  # a long query in the address
        timeout_graceful_shutdown=3,  # a video that plays may not hold us
    )


if __name__ == '__main__':
    run_script(main)

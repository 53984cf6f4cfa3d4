"""Search your own videos in a browser: python demo/app.py INDEX.

The index is made by tools/index.py. One plain page is served by Starlette
instead of Gradio: exactly what is listed in server.py leaves the machine's
disk, nothing is asked of another host, and two small packages are enough.
"""

import argparse
import sys
from importlib.util import find_spec

from eaglenet_mm.apis import RetrievalInferencer
from eaglenet_mm.launching import add_config_arguments, read_optional_config


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('index', help='folder of the index')
    add('--config', help='file or name; default: what the index holds')
    add('--checkpoint', help='default: where it was when indexing')
    add('--host', default='127.0.0.1', help='default: this machine alone')
    add('--port', type=int, default=7860, help='default: 7860')
    add('--device', help='default: the GPU if there is one')
    add('--shortlist', type=int, default=100, help='rows scored; 0: all')
    add('--first-stage', default='auto', help='torch, faiss, milvus[:URL]')
    add('--max-upload', type=int, default=200, help='MB of a clip')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Load the model, and serve the page."""
    args = parse_args()
    needed = ('starlette', 'uvicorn', 'python_multipart')
    if missing := [name for name in needed if find_spec(name) is None]:
        raise ImportError(
            f'The demo needs {" and ".join(missing)}. Install it with: pip '
            "install 'eaglenet_mm[demo]'."
        )
    import uvicorn
    from guards import is_loopback
    from server import make_app

    inferencer = RetrievalInferencer.of_index(
        args.index,
        args.checkpoint,
        args.device,
        model=read_optional_config(args),
        first_stage=args.first_stage,
    )
    settings = dict(shortlist=args.shortlist, max_upload=args.max_upload)
    app = make_app(inferencer, host=args.host, **settings)
    if not is_loopback(args.host):
        sys.stderr.write(
            f'WARNING: everyone who reaches {args.host}:{args.port} can '
            'search and watch the videos of the index, without a password.\n'
        )
    shown = f'[{args.host}]' if ':' in args.host else args.host
    sys.stderr.write(f'Open http://{shown}:{args.port} (Ctrl+C ends it)\n')
    uvicorn.run(
        app,
        host=args.host,
        port=args.port,
        log_level='warning',
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=3,  # a video that plays may not hold us
    )


if __name__ == '__main__':
    try:
        main()
    except (ValueError, KeyError, OSError, ImportError, RuntimeError) as err:
        sys.stderr.write(f'app.py: {type(err).__name__}: {err}\n')
        sys.exit(2)

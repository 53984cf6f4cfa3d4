"""The command ``eaglenet-mm``: the tools of the package under one name.

It is not part of the package, because importing the package imports torch,
which takes seconds. A command runs its file in ``tools`` in this process, as
``python FILE`` would.
"""

from __future__ import annotations

import os
import sys
import types
from importlib.util import find_spec
from pathlib import Path

#: Command: file below ``tools``, description.
COMMANDS = {
    'train': ('train.py', 'train a model, or resume training'),
    'test': ('test.py', 'evaluate a checkpoint; --show-dir writes a page'),
    'dist-train': ('dist_train.sh', 'train with several processes'),
    'dist-test': ('dist_test.sh', 'evaluate with several processes'),
    'index': ('index.py', 'index your videos, or update an index'),
    'search': ('search.py', 'search an index by sentence or clip'),
    'serve': ('serve.py', 'serve an index: web page and HTTP API'),
    'extract-features': (
        'extract_features.py',
        'write features of texts and videos to a file',
    ),
    'export': ('export.py', 'export a model to ONNX and torch.export'),
    'compare': ('compare.py', 'train and evaluate several configs alike'),
    'show-compare': (
        'show_compare.py',
        'write a page that compares results of models',
    ),
    'check': ('check_videos.py', 'find videos that training would fail on'),
    'compress': ('compress_videos.py', 'write small copies of videos'),
    'cache-frames': ('cache_frames.py', 'decode the frames of a config once'),
    'convert didemo': (
        'dataset_converters/didemo.py',
        'annotations of DiDeMo',
    ),
    'convert msrvtt': (
        'dataset_converters/msrvtt.py',
        'annotations of MSR-VTT',
    ),
    'convert msvd': ('dataset_converters/msvd.py', 'annotations of MSVD'),
    'convert vatex': ('dataset_converters/vatex.py', 'annotations of VATEX'),
    'convert story': (
        'dataset_converters/story.py',
        'generate the story videos',
    ),
    'convert eaglenet-release': (
        'model_converters/eaglenet_release.py',
        'checkpoint of the EagleNet release',
    ),
    'convert baseline-release': (
        'model_converters/baseline_release.py',
        'released checkpoint of another method',
    ),
}


def main() -> int:
    """Run the command in ``sys.argv``, or list the commands."""
    words = sys.argv[1:]
    if words[:1] in (['--version'], ['-V']):
        print(_version())  # noqa: T201
        return 0
    asks = words[:1] in (['--help'], ['-h'], ['help'])
    if asks or not words:
        print(_help(COMMANDS))  # noqa: T201
        return 0 if asks else 2
    for count in (2, 1):
        name = ' '.join(words[:count])
        if name in COMMANDS:
            return _run(name, words[count:])
    below = {k: v for k, v in COMMANDS.items() if k.startswith(f'{words[0]} ')}
    if below and (not words[1:] or words[1] in ('--help', '-h')):
        print(_help(below))  # noqa: T201
        return 0 if words[1:] else 2
    print(_refusal(words, below), file=sys.stderr)  # noqa: T201
    return 2


def _run(name: str, arguments: list[str]) -> int:
    """Run a tool as ``__main__``."""
    path = _tools() / COMMANDS[name][0]
    if path.suffix == '.sh':
        os.environ.setdefault('PYTHON', sys.executable)
        os.execvp('bash', ['bash', str(path), *arguments])
    sys.argv = [f'eaglenet-mm {name}', *arguments]
    sys.path.insert(0, str(path.parent))
    # spawned processes import the file of __main__
    module = types.ModuleType('__main__')
    module.__file__ = str(path)
    sys.modules['__main__'] = module
    exec(compile(path.read_bytes(), str(path), 'exec'), vars(module))
    return 0


def _package() -> Path:
    """Return the folder of the package without importing it."""
    spec = find_spec('eaglenet_mm')
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            'eaglenet-mm needs the package eaglenet_mm, which is not '
            f'installed for {sys.executable}. Install it there.'
        )
    return Path(spec.origin).parent


def _tools() -> Path:
    """Return the folder of the tools: installed, or of the checkout."""
    package = _package()
    for folder in (package / '.mim' / 'tools', package.parent / 'tools'):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f'The tools were expected in {package / ".mim" / "tools"}, but there '
        'is no such folder. Install the package again.'
    )


def _version() -> str:
    content: dict[str, str] = {}
    exec((_package() / 'version.py').read_text('utf-8'), content)
    return f'eaglenet_mm {content["__version__"]}'


def _help(commands: dict[str, tuple[str, str]]) -> str:
    width = max(map(len, commands))
    lines = [f'  {k:{width}}  {about}' for k, (_, about) in commands.items()]
    return '\n'.join(
        (
            'usage: eaglenet-mm COMMAND [options]',
            '',
            *lines,
            '',
            'eaglenet-mm COMMAND --help lists its options; eaglenet-mm '
            '--version',
        )
    )


def _refusal(words: list[str], below: dict[str, tuple[str, str]]) -> str:
    """Return the message for an unknown command."""
    import difflib

    name = ' '.join(words[: 2 if below else 1])
    last = {k.rpartition(' ')[2]: k for k in COMMANDS}
    near = difflib.get_close_matches(name, COMMANDS, 3, 0.6)
    near += [
        last[k]
        for k in difflib.get_close_matches(name.split()[-1], last, 3, 0.6)
    ]
    known = list(dict.fromkeys(near)) or list(below or COMMANDS)
    return (
        f'eaglenet-mm: unknown command {name!r}. '
        f'{"Did you mean" if near else "There are"}: {", ".join(known)}? '
        'eaglenet-mm --help lists all.'
    )


if __name__ == '__main__':
    sys.exit(main())

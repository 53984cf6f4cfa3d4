"""Every command and Python block of the documentation works.

Blocks of ``docs/`` are run page by page, in a folder with a few tiny videos
and a checkpoint. Before a block that cannot run there stands what it needs:
``<!-- needs: data -->``, ``gpu``, ``network`` or ``time``. Its commands are
checked: the tool exists and takes the options, the config takes those of
``--cfg-options``, and its model builds. Trainings and services are checked in
the same way everywhere, and not run, and so is every command outside of
``docs/``. ``<!-- example -->`` stands before blocks with a test of their own,
``<!-- file: NAME -->`` before the content of a file.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope, Registry, root
from mmengine.visualization import Visualizer

import eaglenet_mm_cli
from eaglenet_mm.config import open_config, skip_pretrained
from eaglenet_mm.datasets import write_annotation
from eaglenet_mm.registry import MODELS
from eaglenet_mm.utils import register_all_modules

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(REPOSITORY.glob('docs/*.md')),
    *sorted(REPOSITORY.glob('configs/*/README.md')),
    *(REPOSITORY / name for name in ('README.md', 'CONTRIBUTING.md')),
]
NEEDS = ('data', 'gpu', 'network', 'time')
LANGUAGES = ('', 'bash', 'python', 'json', '{toctree}', '{include}')
#: What stands for a name of the reader's, in the folder of the tests.
NAMES = {
    'CONFIG': 'eaglenet_story',
    'CHECKPOINT': 'best.pth',
    'work_dirs/mine/eaglenet_msrvtt.py': 'eaglenet_msrvtt',
}
#: Tools that go on until they are stopped, or for long.
NEVER_RUN = ('train.py', 'compare.py', 'serve.py')
#: Scripts that hand a config on to a tool: the tool, and where its
#: arguments stand.
LAUNCHERS = {
    'tools/dist_train.sh': ('train.py', slice(0, 1), 2),
    'tools/dist_test.sh': ('test.py', slice(0, 2), 3),
    'tools/slurm_train.sh': ('train.py', slice(2, 3), 3),
    'tools/slurm_test.sh': ('test.py', slice(2, 4), 4),
}
FENCE = re.compile(r'^( *)(`{3,})(\S*)\n(.*?)^\1\2 *$', re.M | re.S)
MARK = re.compile(r'<!-- (needs|file|example)(?:: (\S+))? -->\n *$')


@dataclass
class Block:
    """A fenced block of a page, and its mark."""

    page: Path
    line: int
    language: str
    text: str
    mark: str | None
    value: str | None

    def __str__(self) -> str:
        return f'{self.page.relative_to(REPOSITORY)}:{self.line}'

    @property
    def runs(self) -> bool:
        return self.mark is None and self.page.parent.name == 'docs'

    def commands(self) -> list[list[str]]:
        lines = self.text.replace('\\\n', ' ').splitlines()
        found = [shlex.split(line, comments=True) for line in lines]
        return [
            [part for word in words for part in expanded(word)]
            for words in found
            if words
        ]


def expanded(word: str) -> list[str]:
    """What bash makes of a word with braces; the names a page stands for."""
    match = re.fullmatch(r'([\w/]*)\{([\w,]+)\}(\S*)', word)
    if match is None:
        return [NAMES.get(word, word)]
    start, middle, end = match.groups()
    return [f'{start}{part}{end}' for part in middle.split(',')]


@functools.cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    text = page.read_text('utf-8')
    found = []
    for fence in FENCE.finditer(text):
        indent, _, language, content = fence.groups()
        mark = MARK.search(text, 0, fence.start())
        if mark and '```' in text[mark.start() : fence.start()]:
            mark = None
        found.append(
            Block(
                page,
                text.count('\n', 0, fence.start()) + 1,
                language,
                re.sub(rf'^{indent}', '', content, flags=re.M),
                *(mark.groups() if mark else (None, None)),
            )
        )
    return tuple(found)


class Parsed(BaseException):
    """Ends a tool behind its command line, past its own handlers."""


def start(script: Path, arguments: list[str]) -> None:
    """Run a tool in this process, as Python would."""
    for kind in (DefaultScope, MessageHub, MMLogger, Visualizer):
        # MMEngine names them by the second, and two runs may share one
        kind._instance_dict.clear()
    before = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    try:
        runpy.run_path(str(script), run_name='__main__')
    except SystemExit as end:
        if end.code:
            pytest.fail(f'{shlex.join(sys.argv)} ended with {end.code}')
    finally:
        sys.argv, sys.path[:] = before


def parsed(script: Path, arguments: list[str]) -> argparse.Namespace:
    """The command line as the tool reads it."""
    read = argparse.ArgumentParser.parse_args

    def stop(*args: Any, **kwargs: Any) -> None:
        raise Parsed(read(*args, **kwargs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        with pytest.raises(Parsed) as info:
            start(script, arguments)
    return info.value.args[0]


def registries() -> list[Registry]:
    roots = [x for x in vars(root).values() if isinstance(x, Registry)]
    return [y for x in roots for y in (x, *x.children.values())]


def types_in(value: Any) -> Iterator[str]:
    """The types that settings name."""
    if isinstance(value, dict):
        if isinstance(value.get('type'), str):
            yield value['type']
        for part in value.values():
            yield from types_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from types_in(part)


def check_types(settings: Any) -> None:
    register_all_modules()
    known = {key for registry in registries() for key in registry.module_dict}
    for kind in types_in(settings):
        # mmaction.ResNet and others are looked up when they are built; names
        # such as dsl of post_process are no classes
        if kind[0].isupper() and '.' not in kind:
            assert kind in known, f'{kind} is not registered'


@functools.cache
def builds(config: str, options: str) -> None:
    """Read a config with options and build its model, without weights."""
    cfg = open_config(config, json.loads(options))
    check_types(cfg.to_dict())
    skip_pretrained(cfg)
    try:
        with torch.device('meta'):
            MODELS.build(cfg.model)
    except RuntimeError as err:
        # a few backbones read numbers while they are built, which only real
        # tensors have; tests/configs/test_backbone_mixes.py builds them small
        if 'on meta tensors' not in str(err):
            raise


def tool_of(words: list[str]) -> tuple[Path, list[str]] | None:
    """The tool that a command starts, and its arguments."""
    program, *rest = words
    if program == 'bash':
        program, *rest = rest
    if program == 'python' and rest[0].endswith('.py'):
        program, *rest = rest
    elif program == 'eaglenet-mm':
        if rest[0].startswith('--'):
            return None
        count = 2 if rest[0] == 'convert' else 1
        name = ' '.join(rest[:count])
        file, _ = eaglenet_mm_cli.COMMANDS[name]
        program, rest = f'tools/{file}', rest[count:]
    if program in LAUNCHERS:
        name, kept, behind = LAUNCHERS[program]
        program, rest = f'tools/{name}', [*rest[kept], *rest[behind:]]
    script = REPOSITORY / program
    return (script, rest) if program.startswith(('tools/', '.ci/')) else None


def check(script: Path, arguments: list[str]) -> None:
    """Check options, config and model of a command."""
    assert script.is_file(), f'there is no {script}'
    if script.suffix != '.py' or arguments == ['--help']:
        return
    args = parsed(script, arguments)
    configs = [getattr(args, 'config', None), *getattr(args, 'configs', ())]
    for config in configs:
        if config and not config.endswith('.json'):
            options = getattr(args, 'cfg_options', None) or {}
            builds(config, json.dumps(options))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the pages name: videos, annotations, a checkpoint."""
    import av

    records = []
    for place in ('data/story', 'data/mine'):
        (tmp_path / place / 'videos').mkdir(parents=True)
    for number in range(4):
        name = f'{number}.mp4'
        path = tmp_path / 'data/story/videos' / name
        with av.open(str(path), 'w') as container:
            stream = container.add_stream('libx264', rate=8)
            stream.width = stream.height = 64
            stream.pix_fmt = 'yuv420p'
            for row in range(3 * 8):
                picture = np.full((64, 64, 3), 40 * number, np.uint8)
                picture[row : row + 8] = 250
                container.mux(
                    stream.encode(av.VideoFrame.from_ndarray(picture))
                )
            container.mux(stream.encode())
        (tmp_path / 'data/mine/videos' / name).symlink_to(path)
        captions = [f'a red square {number}', 'a blue ring']
        records.append(
            dict(
                video_id=str(number),
                video=name,
                captions=captions,
                moments=[[[0, 0.5]]] * 2,
            )
        )
    for place in ('data/story', 'data/mine'):
        for split in ('train', 'val', 'test'):
            header = dict(dataset='story', split=split, protocol='all')
            path = tmp_path / place / f'{split}.json'
            write_annotation(path, header, records)
    cfg = open_config('eaglenet_story')
    torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'best.pth')
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setenv('EAGLENET_MM_TRUST_CHECKPOINTS', '0')
    monkeypatch.syspath_prepend(str(tmp_path))
    register_all_modules()
    kept = [(x.module_dict, set(x.module_dict)) for x in registries()]
    yield tmp_path
    for modules, names in kept:
        for name in set(modules) - names:
            del modules[name]


def run_python(block: Block, names: dict[str, Any]) -> None:
    path = Path(block.value or 'block.py')
    path.write_text(block.text, 'utf-8')
    if '_base_ =' in block.text:
        builds.__wrapped__(str(path), '{}')
        return
    if block.mark == 'file':
        sys.modules.pop(path.stem, None)
        importlib.import_module(path.stem)
        return
    before = set(names)
    exec(compile(block.text, str(block), 'exec'), names)
    for name in set(names) - before - {'__builtins__'}:
        check_types(names[name])


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    while re.match(r'[A-Z_]+=', words[0]):
        monkeypatch.setenv(*words.pop(0).split('=', 1))
    found = tool_of(words)
    if found is None:
        assert words == ['eaglenet-mm', '--version'], (
            'only commands of this package run without a mark'
        )
        return
    check(*found)
    script, arguments = found
    if script.name not in NEVER_RUN:
        start(script, arguments)


@pytest.mark.parametrize(
    'page', PAGES, ids=lambda x: f'{x.parent.name}/{x.stem}'
)
def test_blocks_are_of_known_kinds(page: Path) -> None:
    text = page.read_text('utf-8')
    for block in blocks_of(page):
        assert block.language in LANGUAGES, block
        assert block.mark != 'needs' or block.value in NEEDS, block
        if block.language == 'json':
            json.loads(block.text)
    outside = FENCE.sub('', text)
    hidden = re.findall(r'^ {4,}(?:python|bash|eaglenet-mm) .*', outside, re.M)
    assert not hidden, 'commands stand in fenced blocks'
    assert not re.findall(r'^ *<!-- needs:.*-->(?!\n *```)', text, re.M)


@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md'])
def test_links_of_pages_outside_the_site_lead_to_files(name: str) -> None:
    text = (REPOSITORY / name).read_text('utf-8')
    links = re.findall(r'(?:\]\(|src=")(?!https?:|#)([^)"#]+)', text)
    assert links
    assert not [link for link in links if not (REPOSITORY / link).exists()]


CHECKED = [
    block
    for page in PAGES
    for block in blocks_of(page)
    if block.language == 'bash' and not block.runs
]


@pytest.mark.parametrize('block', CHECKED, ids=str)
def test_marked_commands_have_their_tools_options_and_models(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    for words in block.commands():
        while re.match(r'[A-Z_]+=', words[0]):
            words.pop(0)
        found = tool_of(words)
        if found is not None:
            check(*found)
        elif words[0] == 'pip':
            setup = (REPOSITORY / 'setup.py').read_text('utf-8')
            for extras in re.findall(r'\[([\w,]+)\]', ' '.join(words)):
                for extra in extras.split(','):
                    assert f"        '{extra}': " in setup


RUN = [page for page in PAGES if any(x.runs for x in blocks_of(page))]


@pytest.mark.parametrize('page', RUN, ids=lambda x: x.stem)
def test_blocks_run_in_order(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {'__name__': page.stem}
    for block in blocks_of(page):
        if block.language == 'python' and block.mark in (None, 'file'):
            run_python(block, names)
        elif block.language == 'bash' and block.runs:
            for words in block.commands():
                run(words, monkeypatch)

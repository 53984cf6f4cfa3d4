"""The house keeps its shape: imports go one way, bases have heirs."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / 'eaglenet_mm'
#: Bases that are made for classes of users, who are further heirs.
EXTENSION_POINTS: set[str] = set()


def modules(folder: Path) -> dict[str, ast.Module]:
    return {
        '.'.join(path.relative_to(REPOSITORY).with_suffix('').parts): (
            ast.parse(path.read_text('utf-8'))
        )
        for path in sorted(folder.rglob('*.py'))
        if '.mim' not in path.parts
    }


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'a relative import of {node.module}'
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


@pytest.mark.parametrize(
    ('room', 'foreign', 'allowed'),
    [
        ('eaglenet_mm/utils', 'eaglenet_mm', 'eaglenet_mm.utils'),
        ('tools', 'tests', ()),
        ('eaglenet_mm/structures', 'eaglenet_mm', 'eaglenet_mm.structures'),
        (
            'eaglenet_mm/evaluation/functional',
            'eaglenet_mm',
            'eaglenet_mm.evaluation.functional',
        ),
        ('eaglenet_mm/models', 'eaglenet_mm.datasets', ()),
        ('eaglenet_mm/models', 'eaglenet_mm.engine', ()),
        ('eaglenet_mm/models', 'eaglenet_mm.apis', ()),
        ('eaglenet_mm/engine', 'eaglenet_mm.apis', ()),
        ('eaglenet_mm/search', 'eaglenet_mm.apis', ()),
        ('eaglenet_mm/search', 'eaglenet_mm.service', ()),
        ('eaglenet_mm/apis', 'eaglenet_mm.service', ()),
    ],
)
def test_imports_go_one_way(room, foreign, allowed):
    wrong = {
        f'{name} imports {other}'
        for name, tree in modules(REPOSITORY / room).items()
        for other in imported(tree)
        if f'{other}.'.startswith(f'{foreign}.')
        and not f'{other}.'.startswith(allowed or '\0')
    }
    assert not wrong


@functools.cache
def classes() -> dict[str, ast.ClassDef]:
    return {
        node.name: node
        for tree in modules(PACKAGE).values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def base_names(node: ast.ClassDef) -> list[str]:
    heads = [
        x.value if isinstance(x, ast.Subscript) else x for x in node.bases
    ]
    return [getattr(x, 'id', getattr(x, 'attr', '')) for x in heads]


def ancestors(node: ast.ClassDef) -> set[str]:
    own = set(base_names(node))
    found = classes()
    return own.union(*(ancestors(found[x]) for x in own if x in found))


def test_a_base_has_at_least_two_heirs():
    found = classes()
    heirs = defaultdict(set)
    for name, node in found.items():
        for base in base_names(node):
            if base in found and not base.endswith('Error'):
                heirs[base].add(name)
    single = {base: heirs[base] for base in heirs if len(heirs[base]) == 1}
    assert not set(single) - EXTENSION_POINTS, single


def test_no_attribute_is_declared_for_others_to_set():
    declared = {}
    for name, node in classes().items():
        plain = {'Protocol', 'NamedTuple', 'TypedDict', 'BaseModel'}
        if plain & ancestors(node) or any(
            'dataclass' in ast.dump(x) for x in node.decorator_list
        ):
            continue
        own = {
            x.target.id
            for x in node.body
            if isinstance(x, ast.AnnAssign) and x.value is None
        }
        kept = {
            x.attr
            for x in ast.walk(node)
            if isinstance(x, ast.Attribute) and isinstance(x.ctx, ast.Store)
        }
        buffers = {
            x.args[0].value
            for x in ast.walk(node)
            if isinstance(x, ast.Call)
            and getattr(x.func, 'attr', '').startswith('register_')
            and x.args
            and isinstance(x.args[0], ast.Constant)
        }
        if own - kept - buffers:
            declared[name] = own - kept - buffers
    assert not declared


def test_a_head_has_two_ancestors_at_most():
    from eaglenet_mm.models import heads

    for name in heads.__all__:
        if not isinstance(getattr(heads, name), type):
            continue
        own = [
            base.__name__
            for base in getattr(heads, name).__mro__[1:]
            if base.__module__.startswith('eaglenet_mm')
        ]
        assert len(own) <= 2, f'{name} stands on {own}'

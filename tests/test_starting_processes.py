"""How processes are started, here and in the package."""

import ast

import pytest


@pytest.mark.parametrize('folder', ['eaglenet_mm', 'tools', 'tests'])
def test_nothing_is_run_between_fork_and_exec(repository, folder):
    """Threads of libraries do not live on in a fork, but their locks do."""
    found = [
        f'{path}:{node.value.lineno}'
        for path in (repository / folder).rglob('*.py')
        if 'preexec_fn' in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.keyword) and node.arg == 'preexec_fn'
    ]
    assert found == []

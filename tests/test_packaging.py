"""What an installation carries, and that its description is complete."""

import re
import shutil
import stat
import subprocess
import sys
import zipfile
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import eaglenet_mm

BUILD = [
    *(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps'),
    *('--no-build-isolation', '--no-index', '--disable-pip-version-check'),
]


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """Copy what a build needs, so that the repository gets no build files."""
    source = Path(__file__).resolve().parents[1]
    target = tmp_path_factory.mktemp('checkout') / 'eaglenet_mm'
    ignored = shutil.ignore_patterns('__pycache__', '.mim')
    target.mkdir()
    for name in ('eaglenet_mm', 'configs', 'tools'):
        shutil.copytree(source / name, target / name, ignore=ignored)
    for path in source.iterdir():
        if path.is_file():
            shutil.copy2(path, target)
    return target


def shipped_files(checkout):
    """List configs, tools and descriptions as paths below ``.mim``."""
    names = {'model-index.yml', 'constraints.txt'}
    for folder in ('configs', 'tools'):
        for path in (checkout / folder).rglob('*'):
            if path.is_file():
                names.add(path.relative_to(checkout).as_posix())
    return names


@pytest.fixture(scope='module')
def editable(checkout):
    """Install the checkout as editable; give the folder it went to."""
    target = checkout.parent / 'site'
    subprocess.run([*BUILD, '--target', target, '-e', checkout], check=True)
    return target


@pytest.fixture(scope='module')
def wheel(checkout, editable):
    """A wheel of the checkout with the links of its editable install."""
    linked = checkout / 'eaglenet_mm' / '.mim'
    (linked / 'stale.txt').write_text('left behind')
    wheels = checkout.parent / 'wheels'
    command = [*BUILD, '--wheel-dir', wheels, checkout]
    command[command.index('install')] = 'wheel'
    subprocess.run(command, check=True)
    (path,) = wheels.glob('*.whl')
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_a_wheel_carries_configs_tools_and_every_module(checkout, wheel):
    for name in shipped_files(checkout):
        copy = f'eaglenet_mm/.mim/{name}'
        assert wheel.read(copy) == (checkout / name).read_bytes(), name
        assert not stat.S_ISLNK(wheel.getinfo(copy).external_attr >> 16)
    names = set(wheel.namelist())
    for path in (checkout / 'eaglenet_mm').rglob('*.*'):
        name = path.relative_to(checkout).as_posix()
        assert name in names or '/.mim/' in f'{name}/', (
            f'{name} is missing from the wheel; has its folder an __init__.py?'
        )
    assert not [name for name in names if Path(name).match('test_*.py')]
    assert 'eaglenet_mm_cli.py' in names
    (points,) = [name for name in names if name.endswith('/entry_points.txt')]
    assert b'eaglenet-mm = eaglenet_mm_cli:main' in wheel.read(points)


@pytest.mark.slow
def test_an_editable_install_links_configs_and_tools(checkout, editable):
    assert not (editable / 'eaglenet_mm').exists()
    linked = checkout / 'eaglenet_mm' / '.mim'
    for name in shipped_files(checkout):
        assert (linked / name).read_bytes() == (checkout / name).read_bytes()
    new = checkout / 'configs' / 'added_later.py'
    new.write_text('')
    assert (linked / 'configs' / 'added_later.py').is_file()
    new.unlink()


def test_a_wheel_of_a_linked_checkout_holds_copies(wheel):
    """Links of an earlier editable install must not end in the wheel."""
    names = wheel.namelist()
    assert 'eaglenet_mm/.mim/model-index.yml' in names
    assert not [name for name in names if 'stale' in name]
    assert [name for name in names if name.endswith('/LICENSE')]


@pytest.mark.slow
def test_an_incomplete_checkout_does_not_build(checkout, tmp_path):
    incomplete = tmp_path / 'incomplete'
    shutil.copytree(checkout, incomplete)
    (incomplete / 'model-index.yml').unlink()
    command = [*BUILD, '--target', tmp_path / 'site', incomplete]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode != 0
    assert 'lacks model-index.yml' in result.stdout + result.stderr


def _pins(repository):
    lines = (repository / 'constraints.txt').read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith('#')]
    return {
        re.sub('[-_.]+', '-', name).lower(): version
        for name, version in (pin.split('==') for pin in pins)
    }


def _requirements(repository):
    text = (repository / 'setup.py').read_text()
    found = re.findall(r"'([a-z][\w-]*(?:\[\w+\])?[<>=!][^']*)'", text, re.I)
    return [Requirement(item) for item in found]


def test_pins_lie_in_the_declared_ranges(repository):
    pins = _pins(repository)
    checked = []
    for requirement in _requirements(repository):
        name = re.sub('[-_.]+', '-', requirement.name).lower()
        if name in pins:
            assert requirement.specifier.contains(pins[name]), requirement
            checked.append(name)
    assert {'torch', 'mmengine', 'mmcv-lite', 'mmaction2'} <= set(checked)


def test_the_image_holds_what_a_wheel_is_built_from(repository):
    ignored = (repository / '.dockerignore').read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith('!')}
    assert '*' in ignored
    assert kept == {
        *('LICENSE', 'README.md', 'pyproject.toml', 'setup.py'),
        *('configs', 'constraints.txt', 'model-index.yml', 'tools'),
        *('eaglenet_mm', 'eaglenet_mm_cli.py'),
    }
    steps = (repository / 'Dockerfile').read_text()
    installs = re.findall(r'^RUN pip install (.*)', steps, re.M)
    assert all(x.startswith('-c constraints.txt') for x in installs)
    (extras,) = re.findall(r'\.\[(.+?)\]', steps)
    setup = (repository / 'setup.py').read_text()
    for extra in extras.split(','):
        assert f"        '{extra}': " in setup
    assert steps.index('\nUSER 1000\n') < steps.index('\nCMD ["serve"')
    assert '/healthz' in steps[steps.index('\nHEALTHCHECK') :]


def test_build_requirements_agree_with_the_pins(repository):
    text = (repository / 'pyproject.toml').read_text()
    (requires,) = re.findall(r'requires = \[(.*)\]', text)
    for item in re.findall('"([^"]+)"', requires):
        requirement = Requirement(item)
        pinned = _pins(repository)[requirement.name]
        assert requirement.specifier.contains(pinned)


def test_the_version_is_the_one_of_the_changelog_rules(repository):
    assert re.fullmatch(r'\d+\.\d+\.\d+(rc\d+)?', eaglenet_mm.__version__)
    assert '## [Unreleased]' in (repository / 'CHANGELOG.md').read_text()
    assert installed_version('mmaction2') == '1.2.0'


def test_the_licence_is_complete(repository):
    text = (repository / 'LICENSE').read_text()
    assert 'Version 2.0, January 2004' in text
    assert 'END OF TERMS AND CONDITIONS' in text


def _metafiles(repository):
    index = yaml.safe_load((repository / 'model-index.yml').read_text())
    return [repository / name for name in index['Import']]


def test_the_model_index_names_every_metafile(repository):
    named = {path.relative_to(repository) for path in _metafiles(repository)}
    there = {
        path.relative_to(repository)
        for path in (repository / 'configs').rglob('metafile.yml')
    }
    assert named == there


def test_metafiles_and_configs_name_each_other(repository):
    for metafile in _metafiles(repository):
        content = yaml.safe_load(metafile.read_text())
        named = {repository / model['Config'] for model in content['Models']}
        assert named == set(metafile.parent.glob('*.py'))
        collections = {item['Name'] for item in content['Collections']}
        for model in content['Models']:
            assert model['In Collection'] in collections
            assert model['Metadata']

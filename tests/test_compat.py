"""Each repair on an installation that needs it, and on one that does not."""

import importlib.metadata
import os
import subprocess
import sys

import pytest
from mmengine.runner import CheckpointLoader, checkpoint, loops

import eaglenet_mm
from eaglenet_mm import compat
from eaglenet_mm.utils.safe_checkpoint import (
    load_checkpoint_for_runner,
    load_checkpoint_url,
)

DRN = 'mmaction.models.localizers.drn'


def run_python(code, repository, *folders):
    """Run code in a process whose path begins with these folders."""
    path = os.pathsep.join(map(str, [*folders, repository]))
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def make_package(tmp_path):
    """Write a package: file names to contents, with a version on demand."""

    def make(name, files=(), version=None):
        for file, text in dict(files, **{'__init__.py': ''}).items():
            target = tmp_path / name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(dict(files).get(file, text))
        if version is not None:
            about = tmp_path / f'{name}-{version}.dist-info'
            about.mkdir()
            (about / 'METADATA').write_text(
                f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
            )
        return tmp_path / name

    return make


# -- the real installation --------------------------------------------------


@pytest.mark.slow
def test_import_is_light_and_lets_mmaction_models_import(repository):
    result = run_python(
        'import sys, eaglenet_mm\n'
        'assert "mmaction.models" not in sys.modules\n'
        'assert "open_clip" not in sys.modules\n'
        'import mmaction.models\n'
        'print(mmaction.models.DRN.__name__)',
        repository,
    )
    assert result.returncode == 0, result.stderr
    assert 'DRN' in result.stdout


@pytest.mark.nightly  # the real ones import in the test above
@pytest.mark.slow
def test_mmaction_models_import_beside_transformers_5(
    make_package, repository
):
    modeling = 'class PreTrainedModel: ...\n'
    folder = make_package(
        'transformers',
        {'modeling_utils.py': modeling, 'activations.py': 'ACT2FN = {}\n'},
        version='5.23.0',
    ).parent
    code = 'import eaglenet_mm, mmaction.models\nprint("imported")'
    result = run_python(code, repository, folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == 'imported'
    # without this repair it fails, so the fake package shows the defect
    start = 'import mmaction\nfrom eaglenet_mm import compat\n'
    unrepaired = (
        'import mmaction.utils.dependency as d\nd.WITH_MULTIMODAL = 1\n'
    )
    result = run_python(
        f'{start}{unrepaired}import mmaction.models', repository, folder
    )
    assert result.returncode != 0
    assert 'vindlu' in result.stderr


def test_apply_twice_changes_nothing():
    before = dict(sys.modules), dict(CheckpointLoader._schemes)
    compat.apply()
    assert (dict(sys.modules), dict(CheckpointLoader._schemes)) == before


def test_the_package_exports_its_version():
    assert eaglenet_mm.__all__ == ['__version__', 'compat']
    assert eaglenet_mm.__version__.count('.') == 2


# -- mmcv --------------------------------------------------------------------


def test_missing_mmcv_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(compat, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'eaglenet_mm\[lite\]"):
        compat.require_mmcv()


# -- importlib_metadata ------------------------------------------------------


def test_alias_where_the_back_port_is_missing(monkeypatch):
    monkeypatch.delitem(sys.modules, 'importlib_metadata', raising=False)
    monkeypatch.setattr(compat, 'find_spec', lambda name: None)
    assert compat.alias_importlib_metadata()
    assert sys.modules['importlib_metadata'] is importlib.metadata
    assert not compat.alias_importlib_metadata()
    monkeypatch.delitem(sys.modules, 'importlib_metadata')


def test_no_alias_where_the_back_port_is_there(monkeypatch):
    monkeypatch.delitem(sys.modules, 'importlib_metadata', raising=False)
    monkeypatch.setattr(compat, 'find_spec', lambda name: object())
    assert not compat.alias_importlib_metadata()
    assert 'importlib_metadata' not in sys.modules


# -- localizers --------------------------------------------------------------


@pytest.fixture
def no_drn(monkeypatch):
    for name in (DRN, f'{DRN}.drn'):
        monkeypatch.setitem(sys.modules, name, None)  # restored afterwards
        monkeypatch.delitem(sys.modules, name)


def fake_mmaction(make_package, monkeypatch, files):
    folder = make_package('mmaction', files)
    monkeypatch.setattr(
        compat,
        '_package_folder',
        lambda name: str(folder) if name == 'mmaction' else None,
    )


LOCALIZERS = {'models/localizers/__init__.py': 'from .drn.drn import DRN\n'}


def test_stub_where_the_wheel_is_incomplete(make_package, monkeypatch, no_drn):
    fake_mmaction(make_package, monkeypatch, LOCALIZERS)
    assert compat.complete_localizers()
    with pytest.raises(ImportError, match='DRN is not part of the published'):
        sys.modules[f'{DRN}.drn'].DRN(num_classes=2)
    assert not compat.complete_localizers()


@pytest.mark.parametrize(
    'files',
    [
        {**LOCALIZERS, 'models/localizers/drn/drn.py': 'DRN = None\n'},
        {'models/localizers/__init__.py': 'from .bmn import BMN\n'},
    ],
    ids=['complete', 'not asked for'],
)
def test_no_stub_on_a_healthy_installation(
    make_package, monkeypatch, no_drn, files
):
    fake_mmaction(make_package, monkeypatch, files)
    assert not compat.complete_localizers()
    assert DRN not in sys.modules


def test_nothing_to_repair_without_mmaction(monkeypatch, no_drn):
    monkeypatch.setattr(compat, '_package_folder', lambda name: None)
    assert not compat.complete_localizers()
    assert not compat.disable_broken_multimodal()


# -- transformers ------------------------------------------------------------


@pytest.fixture
def dependency(monkeypatch):
    from mmaction.utils import dependency

    monkeypatch.setattr(dependency, 'WITH_MULTIMODAL', True)
    return dependency


def fake_transformers(monkeypatch, version):
    monkeypatch.setattr(compat, 'find_spec', lambda name: object())

    def find_version(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, 'version', find_version)


VINDLU = 'models/multimodal/vindlu/modeling_bert.py'
BROKEN_VINDLU = {VINDLU: 'from x import apply_chunking_to_forward\n'}


@pytest.mark.parametrize('version', ['4.56.0', '4.57.6', '5.0', '5.23.0rc1'])
def test_placeholders_for_new_transformers(
    make_package, monkeypatch, dependency, version
):
    fake_mmaction(make_package, monkeypatch, BROKEN_VINDLU)
    fake_transformers(monkeypatch, version)
    assert compat.disable_broken_multimodal()
    assert dependency.WITH_MULTIMODAL is False
    assert not compat.disable_broken_multimodal()


@pytest.mark.parametrize(
    ('version', 'files'),
    [
        ('4.55.4', BROKEN_VINDLU),
        ('4.40.0', BROKEN_VINDLU),
        ('5.23.0', {VINDLU: 'from transformers import BertModel\n'}),
        (None, BROKEN_VINDLU),
    ],
    ids=['4.55', '4.40', 'mended mmaction2', 'no metadata'],
)
def test_multimodal_stays_on_a_healthy_installation(
    make_package, monkeypatch, dependency, version, files
):
    fake_mmaction(make_package, monkeypatch, files)
    fake_transformers(monkeypatch, version)
    assert not compat.disable_broken_multimodal()
    assert dependency.WITH_MULTIMODAL is True


# -- checkpoints -------------------------------------------------------------


@pytest.fixture
def original_loaders(monkeypatch):
    schemes = {**CheckpointLoader._schemes, '': checkpoint.load_from_local}
    monkeypatch.setattr(CheckpointLoader, '_schemes', schemes)
    monkeypatch.setattr(checkpoint, 'load_url', checkpoint.load_url)
    return schemes


def test_checkpoint_loaders_are_replaced(original_loaders, monkeypatch):
    from torch.hub import load_state_dict_from_url

    monkeypatch.setattr(checkpoint, 'load_url', load_state_dict_from_url)
    assert compat.read_checkpoints_safely()
    assert CheckpointLoader._schemes[''] is load_checkpoint_for_runner
    assert checkpoint.load_url is load_checkpoint_url
    assert not compat.read_checkpoints_safely()


def test_a_loader_of_somebody_else_stays(original_loaders):
    def loader(filename, map_location):
        return {}

    original_loaders[''] = loader
    assert not compat.read_checkpoints_safely()
    assert CheckpointLoader._schemes[''] is loader


def test_a_mended_mmengine_is_left_alone(original_loaders, monkeypatch):
    def load_from_local(filename, map_location):
        import torch

        return torch.load(filename, map_location, weights_only=True)

    monkeypatch.setattr(checkpoint, 'load_from_local', load_from_local)
    original_loaders[''] = load_from_local
    assert not compat.read_checkpoints_safely()
    assert CheckpointLoader._schemes[''] is load_from_local


def test_package_folder_of_real_packages():
    assert compat._package_folder('mmengine').endswith('mmengine')
    assert compat._package_folder('no_such_package') is None


def test_iteration_loops_start_their_loader_at_the_first_batch():
    started = []

    class Loader:
        def __iter__(self):
            started.append(True)
            return iter([1, 2])

    iterator = loops._InfiniteDataloaderIterator(Loader())
    assert not started
    assert [next(iterator), next(iterator)] == [1, 2]
    assert started == [True]
    assert not compat.start_loaders_late()  # done already


def test_a_loop_that_waits_is_left_alone(monkeypatch):
    class Waits:
        def __init__(self, dataloader):
            self.dataloader = dataloader

    class Hurries(Waits):
        def __init__(self, dataloader):
            self.dataloader = iter(dataloader)

    for kind, needed in ((Waits, False), (Hurries, True), (Hurries, False)):
        monkeypatch.setattr(loops, '_InfiniteDataloaderIterator', kind)
        assert compat.start_loaders_late() is needed


def test_the_latest_checkpoint_is_looked_for(tmp_path):
    """MMEngine's own function answers with whatever the file says."""
    from mmengine.runner import find_latest_checkpoint, runner

    assert runner.find_latest_checkpoint is find_latest_checkpoint
    folder, other = tmp_path / 'copy', tmp_path / 'first'
    for place in (folder, other):
        place.mkdir()
        (place / 'epoch_1.pth').touch()
    assert find_latest_checkpoint(str(tmp_path)) is None
    with pytest.raises(FileNotFoundError, match=r'holds epoch_1\.pth, which'):
        find_latest_checkpoint(str(folder))
    note = folder / 'last_checkpoint'
    note.write_text(str(other / 'epoch_1.pth'))
    assert find_latest_checkpoint(str(folder)) == str(folder / 'epoch_1.pth')
    # out_dir of CheckpointHook puts them elsewhere
    note.write_text(str(other / 'epoch_2.pth'))
    (other / 'epoch_2.pth').touch()
    assert find_latest_checkpoint(str(folder)) == str(other / 'epoch_2.pth')
    (other / 'epoch_2.pth').unlink()
    with pytest.raises(FileNotFoundError, match=r'epoch_2.*epoch_1\.pth'):
        find_latest_checkpoint(str(folder))
    assert not compat.resume_from_own_folder()

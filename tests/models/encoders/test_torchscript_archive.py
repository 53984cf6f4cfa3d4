import os
import pickle
import zipfile

import pytest
import torch

from eaglenet_mm.models.encoders.clip_weights import (
    is_torchscript_archive,
    read_torchscript_tensors,
)
from tests.models.encoders.tiny_clip import openai_archive

pytestmark = pytest.mark.filterwarnings('ignore:.*torch.jit')


@pytest.mark.parametrize(
    'half', [True, pytest.param(False, marks=pytest.mark.nightly)]
)
def test_equals_what_torch_reads(tmp_path, half):
    path = str(tmp_path / 'clip.pt')
    weights = openai_archive(path, half=half)
    expected = torch.jit.load(path, map_location='cpu').state_dict()
    tensors = read_torchscript_tensors(path)
    for name, value in expected.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value), name
    for name, value in weights.items():
        assert torch.equal(tensors[name], value), name


class Mixed(torch.nn.Module):
    """Attributes of many types, shared and strided tensors."""

    sizes: list[int]
    table: dict[str, float]

    def __init__(self):
        super().__init__()
        self.sizes = [1, 2]
        self.table = {'a': 1.0}
        self.pair = (1, 'b')
        self.layers = torch.nn.ModuleList([torch.nn.Linear(2, 3)])
        self.tied = torch.nn.Linear(2, 3)
        self.tied.weight = self.layers[0].weight
        self.register_buffer('turned', torch.arange(6.0).view(2, 3).t())
        self.register_buffer('tail', torch.arange(6.0)[2:])  # an offset
        self.register_buffer('empty', torch.zeros(0, 4))
        self.register_buffer('flag', torch.tensor(True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(x) + self.sizes[0] + self.table['a']


def test_scripted_module(tmp_path):
    path = str(tmp_path / 'mixed.pt')
    torch.jit.script(Mixed()).save(path)
    tensors = read_torchscript_tensors(path)
    expected = torch.jit.load(path).state_dict()
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        assert torch.equal(tensors[name], value), name


def test_which_files_are_archives(tmp_path):
    archive, plain, text = (str(tmp_path / n) for n in ('a', 'b', 'c'))
    torch.jit.script(torch.nn.Linear(2, 2)).save(archive)
    torch.save({'a': torch.zeros(2)}, plain)
    (tmp_path / 'c').write_text('no weights')
    assert is_torchscript_archive(archive)
    assert not is_torchscript_archive(plain)
    assert not is_torchscript_archive(text)


class Touch:
    """Leaves a file behind when an ordinary unpickler reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def write_archive(path, content):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('clip/constants.pkl', pickle.dumps(()))
        archive.writestr('clip/data.pkl', content)


def test_nothing_is_executed(tmp_path):
    trace, path = tmp_path / 'trace', str(tmp_path / 'evil.pt')
    write_archive(path, pickle.dumps({'weight': Touch(str(trace))}))
    assert read_torchscript_tensors(path) == {}
    assert not trace.exists()
    pickle.loads(pickle.dumps(Touch(str(trace))))
    assert trace.exists()  # the bait works


def test_damaged_archive(tmp_path):
    path = str(tmp_path / 'clip.pt')
    write_archive(path, b'\x80\x02garbage')
    with pytest.raises(ValueError, match=r'clip\.pt.*cannot be read'):
        read_torchscript_tensors(path)


def test_archive_without_a_storage(tmp_path):
    whole, path = str(tmp_path / 'whole.pt'), str(tmp_path / 'part.pt')
    torch.jit.script(torch.nn.Linear(2, 2)).save(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, 'w') as out:
        for name in source.namelist():
            if '/data/' not in name:
                out.writestr(name, source.read(name))
    with pytest.raises(ValueError, match=r'cannot be read.*data/0'):
        read_torchscript_tensors(path)


def test_tensor_larger_than_its_storage(tmp_path):
    whole, path = str(tmp_path / 'whole.pt'), str(tmp_path / 'part.pt')
    torch.jit.script(torch.nn.Linear(2, 2)).save(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, 'w') as out:
        for name in source.namelist():
            content = source.read(name)
            out.writestr(name, content[:4] if '/data/' in name else content)
    with pytest.raises(ValueError, match='out of bounds'):
        read_torchscript_tensors(path)

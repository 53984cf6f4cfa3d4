import pytest
import torch

from eaglenet_mm.models.converters import (
    convert_baseline_release,
    read_release_file,
    write_converted,
)
from eaglenet_mm.registry import MODELS
from eaglenet_mm.utils.safe_checkpoint import UnsafeCheckpointError
from tests.models.converters.baseline_checkpoint import model_config
from tests.models.encoders.tiny_clip import openai_archive


def test_openai_archive(tmp_path):
    weights = openai_archive(str(tmp_path / 'clip.pt'))
    content = read_release_file(str(tmp_path / 'clip.pt'))
    model = MODELS.build(model_config('clip4clip_mean'))
    ours, report = convert_baseline_release(
        content, 'clip4clip_mean', model=model
    )
    model.load_state_dict(ours, strict=True)
    assert torch.equal(
        ours['video_encoder.tower.proj'], weights['visual.proj'].float()
    )
    assert 'clip.vocab_size' in report.dropped


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        read_release_file(str(tmp_path / 'none.pth'))
    path = tmp_path / 'module.bin'
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(UnsafeCheckpointError, match='Linear'):
        read_release_file(str(path))
    assert isinstance(read_release_file(str(path), True), torch.nn.Linear)


def test_written_whole(tmp_path):
    path = tmp_path / 'new' / 'ours.pth'
    write_converted(str(path), {'weight': torch.ones(2)}, {'method': 'wti'})
    assert [p.name for p in path.parent.iterdir()] == ['ours.pth']
    content = torch.load(path, weights_only=True)
    assert content['meta'] == {'method': 'wti'}
    assert content['state_dict']['weight'].tolist() == [1, 1]

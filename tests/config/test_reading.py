"""Names of configs, and variables that a config or an option changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config, get_model
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from eaglenet_mm.apis import find_config
from eaglenet_mm.config import reading
from eaglenet_mm.config.datasets import load_datasets
from eaglenet_mm.config.knobs import walk
from eaglenet_mm.config.reading import config_path, open_config
from eaglenet_mm.config.variables import read_sources
from eaglenet_mm.datasets import write_annotation
from eaglenet_mm.models import TextVideoRetriever
from eaglenet_mm.utils import register_all_modules

FULL = 'eaglenet_vit-tiny-p8-res24_1xb32-u8-12e_story-rgb'
PIPELINE = 'pipeline.1.num_frames'
SETTINGS = (
    'train_dataloader.dataset.dataset.data_root',
    'val_dataloader.dataset.data_root',
    'test_dataloader.dataset.data_root',
)


@pytest.fixture
def child(tmp_path):
    """Write a config over the story config."""

    def write(text, base='eaglenet_story', name='child'):
        path = tmp_path / f'{name}.py'
        path.write_text(f'_base_ = {config_path(base)!r}\n{text}\n')
        return path

    return write


@pytest.mark.parametrize(
    'given', ['persistent_workers=True, prefetch_factor=4, timeout=9', '']
)
def test_no_workers_need_no_other_setting(child, given):
    """torch refuses each of these, and fork as well, without workers."""
    loader = f'dict({given or "persistent_workers=True"})'
    context = "train_dataloader.update(multiprocessing_context='fork')"
    path = child(f'train_dataloader = {loader}\n{context if given else ""}')
    cfg = open_config(path, {'train_dataloader.num_workers': 0})
    options = cfg.train_dataloader
    for key in ('dataset', 'sampler', 'batch_sampler', 'collate_fn'):
        options.pop(key, None)
    assert len(list(DataLoader(range(64), **options))) == 2
    kept = open_config(path, {'train_dataloader.num_workers': 1})
    assert kept.train_dataloader.persistent_workers


@pytest.mark.parametrize(
    'name', ['eaglenet_msvd', 'eaglenet_msrvtt', 'eaglenet_didemo']
)
def test_shipped_loaders_run_without_workers(name):
    loaders = 'train_dataloader', 'val_dataloader', 'test_dataloader'
    cfg = open_config(name, {f'{x}.num_workers': 0 for x in loaders})
    for loader in loaders:
        rest = {k: v for k, v in cfg[loader].items() if 'worker' in k}
        list(DataLoader([1], **rest))


@pytest.mark.parametrize(
    'name',
    [
        'eaglenet_story',
        'eaglenet_story.py',
        FULL,
        f'eaglenet/{FULL}',
        f'eaglenet/{FULL}.py',
        f'eaglenet_mm::eaglenet/{FULL}.py',
        'eaglenet_mm::eaglenet_story',
    ],
)
def test_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = open_config('eaglenet_story').to_dict()
    assert open_config(name).to_dict() == expected
    assert find_config(name).to_dict() == expected


def test_a_file_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'eaglenet_story').write_text('')
    assert config_path('eaglenet_story') == 'eaglenet_story'
    assert config_path(tmp_path / 'eaglenet_story') == str(
        tmp_path / 'eaglenet_story'
    )


@pytest.mark.parametrize(
    ('name', 'near'),
    [
        ('eaglenet_toi', 'eaglenet_story'),
        ('configs/eaglenet_tox.py', '_story'),
    ],
)
def test_no_such_config(name, near):
    with pytest.raises(FileNotFoundError, match=f'{name}.*{near}'):
        open_config(name)


def test_a_checkout_without_links(monkeypatch, repository):
    folders = (repository / 'missing', repository / 'configs')
    monkeypatch.setattr(reading, '_FOLDERS', folders)
    assert config_path(FULL).startswith(str(repository / 'configs'))


def test_mmengine_finds_our_configs(tmp_path):
    name = f'eaglenet_mm::eaglenet/{FULL}.py'
    expected = Config.fromfile(config_path(FULL)).model
    assert get_config(name).model == expected
    path = tmp_path / 'mine.py'
    path.write_text(
        f'_base_ = {name!r}\n'
        'model = dict(data_preprocessor=dict(num_frames={{_base_.num_frames}}'
        '), head=dict(num_candidates=5))\n'
    )
    model = Config.fromfile(path).model
    assert model.head.num_candidates == 5
    assert model.head.embed_dim == expected.head.embed_dim
    assert open_config(path, {'num_frames': 3}).model.head.num_frames == 3


def test_mmengine_builds_our_models():
    scope = DefaultScope.get_current_instance().scope_name
    model = get_model(f'eaglenet_mm::eaglenet/{FULL}.py')
    assert type(model) is TextVideoRetriever
    assert DefaultScope.get_current_instance().scope_name == scope


def test_register_all_modules():
    DefaultScope._instance_dict.clear()
    register_all_modules(init_default_scope=False)
    assert DefaultScope.get_current_instance() is None
    register_all_modules()
    assert DefaultScope.get_current_instance().scope_name == 'eaglenet_mm'


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize('kind', ['checkout', 'wheel', 'editable'])
def test_mmengine_finds_them_however_installed(tmp_path, repository, kind):
    """The package is copied, installed or linked; then used elsewhere."""
    checkout = tmp_path / 'checkout'
    ignored = shutil.ignore_patterns('__pycache__', '.git', '.venv', 'tests')
    shutil.copytree(repository, checkout, symlinks=True, ignore=ignored)
    site = checkout
    if kind != 'checkout':
        site = tmp_path / 'site'
        command = [*(sys.executable, '-m', 'pip', 'install', '--quiet')]
        command += ['--no-deps', '--no-build-isolation', '--no-index']
        command += ['--target', site]
        command += ['-e', checkout] if kind == 'editable' else [checkout]
        subprocess.run(command, check=True)
    code = (
        'import site, sys; site.addsitedir(sys.argv[1])\n'
        'sys.path.insert(0, sys.argv[1])\n'
        'import eaglenet_mm, mmengine.hub as hub\n'
        'from mmengine.utils import get_installed_path\n'
        f'name = "eaglenet_mm::eaglenet/{FULL}.py"\n'
        'print(eaglenet_mm.__file__)\n'
        'print(hub.get_config(name).model.head.type)\n'
        'print(type(hub.get_model(name)).__name__)\n'
        'from eaglenet_mm.config.reading import open_config\n'
        'print(open_config("eaglenet_story").num_frames)\n'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, str(site)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(site)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(str(tmp_path))
    for found in ('EagleNetHead', 'TextVideoRetriever', '6'):
        assert found in lines


def test_a_variable_that_nothing_reads_is_refused():
    with pytest.raises(ValueError, match='vocabulary') as info:
        open_config('eaglenet_story', {'vocabulary': ['a']})
    where = 'dataset.pipeline.3.tokenizer.vocabulary'
    for loader in ('train_dataloader.dataset', 'val_dataloader'):
        assert f'{loader}.{where}' in str(info.value)


def test_a_copied_pipeline_is_named():
    with pytest.raises(ValueError, match='nothing reads') as info:
        open_config('eaglenet_story', {PIPELINE: 3})
    for loader in ('train_dataloader.dataset', 'test_dataloader'):
        assert f'{loader}.dataset.{PIPELINE}' in str(info.value)
    assert 'eaglenet_story.py' in str(info.value)


def test_a_computed_value_is_refused_too(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text('steps = 8\ntrain_cfg = dict(max_epochs=steps // 2)\n')
    with pytest.raises(ValueError, match=r"'steps'.*put into the settings"):
        open_config(path, {'steps': 12})


def test_a_variable_for_code_of_the_user_stays_free(tmp_path):
    """Hooks of the user may read it: it was put nowhere."""
    path = tmp_path / 'a.py'
    path.write_text('mine = 8\nk = 2\ntrain_cfg = dict(max_epochs=k)\n')
    assert open_config(path, {'mine': 12}).mine == 12


def test_a_dumped_config(tmp_path):
    """It holds copies alone: knobs work, other variables are refused."""
    path = tmp_path / 'dumped.py'
    open_config('eaglenet_story').dump(path)
    cfg = open_config(path, {'data_root': 'x', 'num_frames': 3})
    dataset = cfg.test_dataloader.dataset
    assert dataset.data_root == 'x'
    assert dataset.pipeline[1].num_frames == 3
    assert cfg.model.head.num_frames == 3
    for option in (PIPELINE, 'vocabulary'):
        with pytest.raises(ValueError, match=r'test_dataloader\.dataset'):
            open_config(path, {option: 3})


def test_what_is_dumped_is_what_was_used(tmp_path):
    path = tmp_path / 'dumped.py'
    options = {**dict.fromkeys(SETTINGS, 'mine'), 'num_frames': 3}
    open_config('eaglenet_story', options).dump(path)
    cfg = Config.fromfile(path)
    assert cfg.data_root == 'mine'
    assert cfg.num_frames == cfg.pipeline[1].num_frames == 3


def test_a_dumped_config_that_contradicts_itself_warns(tmp_path, capsys):
    path = tmp_path / 'dumped.py'
    cfg = Config.fromfile(config_path('eaglenet_story'))
    cfg.data_root = 'edited'
    cfg.dump(path)
    MMLogger._instance_dict.clear()  # others may write elsewhere
    assert open_config(path).data_root == 'edited'
    told = capsys.readouterr()
    text = told.out + told.err
    assert "says data_root='edited', which nothing reads" in text
    assert "test_dataloader.dataset.data_root='data/story/'" in text


def test_knobs_of_a_child_config(child):
    cfg = open_config(
        child(
            'num_frames = 3\nmax_words = 8\ndata_root = "x"\n'
            'batch_size = 4\nimage_size = 64\nann_file = dict(test="t.json")'
        )
    )
    assert cfg.model.head.num_frames == 3
    assert cfg.model.data_preprocessor.num_frames == 3
    assert cfg.model.text_encoder.max_words == 8
    assert cfg.model.video_encoder.arch.vision_cfg.image_size == 64
    train = cfg.train_dataloader
    assert train.batch_size == 4
    assert train.dataset.dataset.data_root == 'x'
    assert train.dataset.dataset.ann_file == 'train.json'
    assert cfg.test_dataloader.dataset.ann_file == 't.json'
    for pipeline in (train.dataset.dataset.pipeline, cfg.pipeline):
        assert pipeline[1].num_frames == 3
        assert pipeline[2].resize.size == 64
        assert pipeline[3].max_words == 8


def test_what_the_child_says_itself_wins(child):
    cfg = open_config(
        child(
            'data_root = "x"\nbatch_size = 4\n'
            'test_dataloader = dict(dataset=dict(data_root="own"))\n'
            'val_dataloader = dict(batch_size=1)'
        )
    )
    assert cfg.val_dataloader.dataset.data_root == 'x'
    assert cfg.test_dataloader.dataset.data_root == 'own'
    assert cfg.val_dataloader.batch_size == 1
    assert cfg.train_dataloader.batch_size == 4


KNOBS_OF_A_CHILD = (
    'data_root = "q/"\nnum_frames = 3\nimage_size = 64\n'
    'ann_file = dict(train="z.json")\n'
)
OLD_TRAIN = '{{_base_.train_dataloader.dataset}}'
OLD_TEST = '{{_base_.test_dataloader.dataset}}'


@pytest.mark.parametrize(
    ('loader', 'wrapper', 'places'),
    [
        (
            'train_dataloader',
            f'type="RepeatDataset", times=2, dataset={OLD_TRAIN}',
            ['dataset.dataset.dataset'],
        ),
        (
            'test_dataloader',
            f'type="SubsetDataset", indices=2, dataset={OLD_TEST}',
            ['dataset.dataset'],
        ),
        (
            'test_dataloader',
            f'type="ConcatDataset", datasets=[{OLD_TEST}, {OLD_TEST}]',
            ['dataset.datasets.0', 'dataset.datasets.1'],
        ),
    ],
)
def test_knobs_reach_what_a_child_wraps(child, loader, wrapper, places):
    text = f'{loader} = dict(dataset=dict(_delete_=True, {wrapper}))'
    found = dict(walk(open_config(child(KNOBS_OF_A_CHILD + text))))
    for place in places:
        dataset = found[f'{loader}.{place}']
        assert dataset.data_root == 'q/'
        assert dataset.pipeline[1].num_frames == 3
        assert dataset.pipeline[2].resize.size == 64
        split = 'z' if loader.startswith('train') else 'test'
        assert dataset.ann_file == f'{split}.json'


def test_a_set_of_the_child_beside_a_wrapped_one(child):
    own = 'dict(type="TextVideoDataset", data_root="data/story/", pipeline=[])'
    text = f'type="ConcatDataset", datasets=[{OLD_TEST}, {own}]'
    text = f'test_dataloader = dict(dataset=dict(_delete_=True, {text}))'
    cfg = open_config(child(f'data_root = "q/"\n{text}'))
    parts = cfg.test_dataloader.dataset.datasets
    assert [part.data_root for part in parts] == ['q/', 'data/story/']


@pytest.mark.parametrize(
    'text',
    [
        'train_dataloader = dict(batch_size=64)',
        'train_dataloader = {"batch_size": 64}',
        'n = 32\ntrain_dataloader = dict(batch_size=2 * n)',
        'mine = dict(batch_size=64)\ntrain_dataloader = mine',
        'train_dataloader: dict = dict(batch_size=64)',
        'train_dataloader = dict()\ntrain_dataloader["batch_size"] = 64',
        'train_dataloader = dict()\ntrain_dataloader.update(batch_size=64)',
    ],
)
def test_what_the_child_writes_wins_though_inherited(child, text):
    cfg = open_config(child(f'batch_size = 4\n{text}'))
    assert cfg.train_dataloader.batch_size == 64
    assert cfg.val_dataloader.batch_size == 4


def test_an_inherited_folder_that_the_child_writes(child):
    text = 'val_dataloader = dict(dataset=dict(data_root="data/story/"))'
    cfg = open_config(child(f'data_root = "q/"\n{text}'))
    assert cfg.val_dataloader.dataset.data_root == 'data/story/'
    assert cfg.test_dataloader.dataset.data_root == 'q/'
    one = child('batch_size = 8', name='one')
    two = child('train_dataloader = dict(batch_size=64)', one, 'two')
    cfg = open_config(two)
    assert cfg.train_dataloader.batch_size == 64
    assert cfg.val_dataloader.batch_size == 8


def test_a_child_in_yaml_writes_settings(tmp_path):
    path = tmp_path / 'child.yaml'
    path.write_text(
        f'_base_: {config_path("eaglenet_story")}\nbatch_size: 4\n'
        'train_dataloader:\n  batch_size: 64\n'
    )
    cfg = open_config(path)
    assert cfg.train_dataloader.batch_size == 64
    assert cfg.val_dataloader.batch_size == 4


def test_a_pipeline_in_a_tuple(child):
    steps = (
        'dict(type="OpenVideo"), dict(type="SampleFrames", num_frames={}), '
        'dict(type="PackRetrievalInputs")'
    )
    old = steps.format('{{_base_.num_frames}}')
    new = steps.format(5)
    path = child(
        'num_frames = 3\n'
        f'val_dataloader = dict(dataset=dict(pipeline=({old})))\n'
        f'test_dataloader = dict(dataset=dict(pipeline=({new})))'
    )
    cfg = open_config(path)
    assert cfg.val_dataloader.dataset.pipeline[1].num_frames == 3
    assert cfg.test_dataloader.dataset.pipeline[1].num_frames == 5
    option = {f'test_dataloader.dataset.{PIPELINE}': 2, 'data_root': 'x'}
    cfg = open_config(path, option)
    assert cfg.test_dataloader.dataset.pipeline[1].num_frames == 2


def test_a_variable_that_the_child_uses_itself(child):
    """As configs/_base_/datasets/msvd.py does."""
    cfg = open_config(
        child(
            'batch_size = 4\ntrain_dataloader = dict(batch_size=batch_size)\n'
            'vocabulary = ["a"]\nmodel = dict(words=vocabulary)'
        )
    )
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.val_dataloader.batch_size == 16
    assert cfg.model.words == ['a']


def test_knobs_over_several_levels(child):
    one = child('num_frames = 3', name='one')
    two = child('max_words = 8', base=one, name='two')
    cfg = open_config(two)
    assert cfg.model.head.num_frames == 3
    assert cfg.model.text_encoder.max_words == 8
    again = open_config(child('num_frames = 3', base=two, name='again'))
    assert again.model.head.num_frames == 3
    back = open_config(child('num_frames = 6', base=two, name='back'))
    assert back.model.head.num_frames == 6
    assert back.val_dataloader.dataset.pipeline[1].num_frames == 6
    options = {'num_frames': 2}
    assert open_config(two, options).model.head.num_frames == 2


def test_a_child_cannot_set_what_nothing_reads(child):
    for text in ('pipeline = []', 'vocabulary = ["a"]'):
        with pytest.raises(ValueError, match='over its _base_') as info:
            open_config(child(text))
        assert 'test_dataloader.dataset.pipeline' in str(info.value)
        assert 'child.py' in str(info.value)
    open_config(child('my_own = 3'))


def test_a_child_may_write_its_settings_out_as_well(child):
    loaders = [
        f'{loader}_dataloader = dict(dataset={dataset})'
        for loader, dataset in (
            ('train', 'dict(dataset=dict(pipeline=[]))'),
            ('val', 'dict(pipeline=[])'),
            ('test', 'dict(pipeline=[])'),
        )
    ]
    text = '\n'.join(['pipeline = []', *loaders])
    assert open_config(child(text)).val_dataloader.dataset.pipeline == []


def test_a_variable_outlives_the_settings_it_was_copied_to():
    options = {
        'train_dataloader': None,
        'val_dataloader': None,
        'test_dataloader': None,
    }
    cfg = open_config('eaglenet_story', options)
    assert cfg.data_root == 'data/story/'
    assert len(cfg.pipeline) == 5


def test_a_child_over_a_dumped_config(child, tmp_path):
    dumped = tmp_path / 'dumped.py'
    open_config('eaglenet_story').dump(dumped)
    cfg = open_config(child('num_frames = 3', base=dumped))
    assert cfg.model.head.num_frames == 3
    with pytest.raises(ValueError, match=r'test_dataloader\.dataset'):
        open_config(child('pipeline = []', base=dumped))


def test_a_child_cannot_ask_for_what_the_config_cannot(child):
    path = child('num_frames = 3', base='eaglenet_swin3d_msrvtt')
    with pytest.raises(ValueError, match='clips of 12 frames'):
        open_config(path)


def test_a_mistyped_knob_of_a_child(child):
    with pytest.raises(KeyError, match="did you mean 'num_frames'"):
        open_config(child('num_frame = 3'))
    with pytest.raises(KeyError, match="did you mean 'num_frames'"):
        open_config('eaglenet_story', {'num_frame': 3})


def test_a_child_in_yaml(tmp_path):
    path = tmp_path / 'child.yaml'
    path.write_text(
        f'_base_: {config_path("eaglenet_story")}\nnum_frames: 3\n'
    )
    assert open_config(path).model.head.num_frames == 3


def test_a_child_in_pure_python(tmp_path):
    (tmp_path / 'base.py').write_text(
        'from eaglenet_mm.datasets import TextVideoDataset\n'
        'from eaglenet_mm.datasets.transforms import SampleFrames\n'
        'num_frames = 6\n'
        'pipeline = [dict(type=SampleFrames, num_frames=num_frames)]\n'
        'val_dataloader = dict(dataset=dict(type=TextVideoDataset,\n'
        '    data_root="a", ann_file="v.json", pipeline=pipeline))\n'
        'test_dataloader = val_dataloader\n'
    )
    path = tmp_path / 'child.py'
    path.write_text(
        'from mmengine.config import read_base\n'
        'with read_base():\n    from .base import *\n'
        'num_frames = 3\n'
    )
    cfg = open_config(path, {'data_root': 'b'})
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.pipeline[0].num_frames == 3
        assert loader.dataset.data_root == 'b'
    path.write_text(path.read_text() + 'pipeline = []\n')
    with pytest.raises(ValueError, match=r'val_dataloader\.dataset'):
        open_config(path)


def test_tools_on_videos_read_alike(child, tmp_path):
    """check_videos.py and cache_frames.py."""
    (tmp_path / 'v').mkdir()
    (tmp_path / 'v' / 'a.mp4').write_bytes(b'')
    write_annotation(
        tmp_path / 'test.json',
        dict(dataset='own', split='test', protocol='own'),
        [dict(video_id='a', video='a.mp4', captions=['x'])],
    )
    options = {
        'data_root': str(tmp_path),
        'num_frames': 3,
        'test_dataloader.dataset.data_prefix.video': 'v',
    }
    found = load_datasets('eaglenet_story', splits=['test'], options=options)
    sampling = found['test'].pipeline.transforms[1]
    assert sampling.num_frames == 3
    assert found['test'].ann_file == str(tmp_path / 'test.json')
    with pytest.raises(ValueError, match='nothing reads'):
        load_datasets('eaglenet_story', options={PIPELINE: 3})


def test_settings_that_a_config_writes(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text(
        'n = 3\nx = dict(a=[dict(b=n, c=len(other))], **more)\n'
        'y = [1] + z\nz = [*y, 2]\nx.d.update(dict(e="f"), g=-1)\n'
        'x[n] = 1\nk = "{{_base_.x}}"\n'
    )
    written = {'n', 'x.a.0.b', 'y.0', 'x.d.e', 'x.d.g'}
    assert read_sources(str(path)).writes == written


def test_sources_of_a_config(repository):
    source = read_sources(str(repository / 'configs/eaglenet_story.py'))
    (full,) = source.bases
    assert Path(full.path).stem == FULL
    assert 'num_frames' in full.reads  # {{_base_.num_frames}}
    assert [Path(s.path).name for s in source.line_to('vocabulary')] == [
        *('eaglenet_story.py', f'{FULL}.py', 'story.py')
    ]
    assert source.line_to('nothing') == []

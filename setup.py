"""Build the package; ``pip install -e .`` and ``pip wheel .`` call this.

OpenMMLab's tools (MIM, ``_base_ = 'eaglenet_mm::...'``) expect configs and
tools inside of the installed package, in ``eaglenet_mm/.mim``. A wheel gets
copies; an editable install gets links into this folder, so that both always
show the same files.
"""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = 'eaglenet_mm'
SHIPPED = ('configs', 'tools', 'model-index.yml', 'constraints.txt')

MMCV_LITE = 'mmcv-lite>=2.0.1,<2.2'
VIDEO = ['av>=14.2']
HUGGING_FACE = ['transformers>=4.40']
# writes of pylance are of its lower level, and it changes every month
RAY = ['pylance>=14.0.2,<15', 'ray>=2.50,<3']
WATCH = ['watchfiles>=1.0']
MILVUS = ['pymilvus>=2.4.2', 'milvus-lite>=2.4.8']
SERVE = ['fastapi>=0.165', 'python-multipart>=0.0.9', 'uvicorn>=0.29']
LORA = ['peft>=0.17']  # the first with target_parameters
EXPORT = ['onnx>=1.16', 'onnxruntime>=1.18', 'onnxscript>=0.2']
TORCHCODEC = ['torchcodec']  # brings no FFmpeg; that of the system, 4 to 9
TENSORBOARD = ['tensorboard>=2.15']
DOCS = ['furo>=2024.8.6', 'myst-parser>=4', 'sphinx>=8']


class BuildWithConfigs(build_py):
    """Put configs and tools beside the modules, under ``.mim``."""

    def run(self):
        missing = [name for name in SHIPPED if not (ROOT / name).exists()]
        if missing:
            raise FileNotFoundError(
                f'{PACKAGE} ships {", ".join(SHIPPED)}, but {ROOT} lacks '
                f'{", ".join(missing)}. Build from a complete checkout.'
            )
        super().run()
        if getattr(self, 'editable_mode', False):
            place(ROOT / PACKAGE / '.mim', link=True)
        else:
            place(Path(self.build_lib) / PACKAGE / '.mim', link=False)


def place(folder, link):
    """Fill ``folder`` with links to what we ship, or with copies of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in SHIPPED:
        source, target = ROOT / name, folder / name
        if link:
            try:
                target.symlink_to(os.path.relpath(source, folder))
                continue
            except OSError:  # Windows without the right to make links
                pass
        if source.is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy2(source, target)


def version():
    text = (ROOT / PACKAGE / 'version.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '([^']+)'", text).group(1)


def long_description():
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


setup(
    name=PACKAGE,
    version=version(),
    description='EagleNet and other text-video retrieval on MMEngine',
    long_description=long_description(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='computer vision, text-video retrieval, OpenMMLab',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    # beside the package, whose import takes seconds
    py_modules=[f'{PACKAGE}_cli'],
    entry_points={'console_scripts': [f'eaglenet-mm = {PACKAGE}_cli:main']},
    package_data={
        f'{PACKAGE}.service': ['page/*'],
        f'{PACKAGE}.visualization': ['templates/*'],
    },
    python_requires='>=3.10,<3.14',
    # mmaction2 needs mmcv and importlib_metadata without declaring them.
    # mmcv comes as the extra [lite], because a compiled mmcv lives in the
    # same folder and must not be overwritten.
    install_requires=[
        'av>=14.2',  # the first with the rotation of a frame
        'decord>=0.6.0',
        'filelock>=4.2',  # leaves no lock to a forked child
        'ftfy',
        'importlib_metadata',
        'jinja2>=3.0',
        'lmdb>=1.2',
        'matplotlib>=3.7',
        'mmaction2==1.2.0',
        'mmengine>=0.10.6,<0.11',
        'numpy',
        'open_clip_torch>=2.26',
        'opencv-python',
        'pillow',
        'regex',
        'rich',
        'safetensors>=0.4',
        'setuptools<82',  # mmengine imports pkg_resources
        'torch>=2.6',  # the first whose safe_globals takes names
        'torchvision',
    ],
    extras_require={
        'lite': [MMCV_LITE],
        'huggingface': HUGGING_FACE,
        'milvus': MILVUS,
        'ray': RAY,
        'watch': WATCH,
        'serve': SERVE,
        'demo': SERVE,
        'lora': LORA,
        'export': EXPORT,
        'video': VIDEO,
        'torchcodec': TORCHCODEC,
        'tensorboard': TENSORBOARD,
        'docs': DOCS,
        'browser': ['playwright>=1.40'],  # tests of pages; needs a Chromium
        'dev': [
            'boto3',
            'build',
            'httpx',  # of starlette's test client
            'hypothesis',
            'flask',
            'flask-cors',
            'moto[s3]',  # with flask, object storage for tests
            'mypy',
            'pytest>=8',
            'pytest-timeout',
            'pytest-xdist',
            'ruff',
            'wheel',
            *DOCS,
            *EXPORT,
            *LORA,
            *MILVUS,
            *RAY,
            *SERVE,
            *TENSORBOARD,
            *TORCHCODEC,
            *WATCH,
        ],
    },
    cmdclass={'build_py': BuildWithConfigs},
    zip_safe=False,
    classifiers=[
        'Development Status :: 4 - Beta',
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)

"""Settings of the documentation, which tools/build_docs.sh builds.

Furo, and not the theme of OpenMMLab: that one is no package of PyPI, cannot
be pinned, and was made for older versions of Sphinx.

No page may be called search or genindex: Sphinx has pages of these names.
"""

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import eaglenet_mm  # noqa: E402  after its folder is on the path

project = 'eaglenet_mm'
copyright = '2026, the authors of eaglenet_mm'  # noqa: A001  a name of Sphinx
release = eaglenet_mm.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'eaglenet_mm {release}'
myst_heading_anchors = 4
linkcheck_ignore = [r'http://127\.0\.0\.1']

autodoc_typehints = 'none'  # docstrings state types, and shapes besides
autodoc_member_order = 'bysource'
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # no second entry beside that of a property

#: READMEs beside configs, each shown as a page of the site.
METHODS = {
    readme.parent.name: readme
    for readme in sorted(REPOSITORY.glob('configs/*/README.md'))
}


def write_method_pages(_app):
    """Write ``docs/configs/NAME.md`` for every README beside configs."""
    folder = REPOSITORY / 'docs/configs'
    folder.mkdir(exist_ok=True)
    for path in folder.glob('*.md'):
        if path.stem not in METHODS:
            path.unlink()
    for name in METHODS:
        page = f'```{{include}} ../../configs/{name}/README.md\n```\n'
        path = folder / f'{name}.md'
        if not path.is_file() or path.read_text('utf-8') != page:
            path.write_text(page, 'utf-8')


def point_into_the_site(_app, *arguments):
    """Let links to folders of configs, which suit GitHub, point to pages."""
    content = arguments[-1]
    for name in METHODS:
        content[0] = re.sub(
            rf'\]\((\.\./)+(configs/)?{name}(/README\.md)?(?=[)#])',
            f'](/configs/{name}.md',
            content[0],
        )


def setup(app):
    """Connect the functions above."""
    app.connect('builder-inited', write_method_pages)
    app.connect('source-read', point_into_the_site)
    app.connect('include-read', point_into_the_site)

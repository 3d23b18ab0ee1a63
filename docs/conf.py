"""How the site is built: `make docs`. Nothing is fetched, every warning is an error."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from aligntax import __version__  # noqa: E402

project = "aligntax"
author = "the aligntax contributors"
copyright = "the aligntax contributors, Apache-2.0"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "plain_docstrings",
    "commands",
    "verdicts",
    "measured_recipes",
    "accessible",
]
exclude_patterns = ["_ext"]
myst_enable_extensions = ["deflist", "colon_fence", "attrs_block"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
toc_object_entries = False

smartquotes = False  # --out must not become a dash

html_theme = "furo"
html_title = f"aligntax {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"

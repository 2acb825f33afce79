"""Sphinx configuration: guides in Markdown, the API from docstrings, a gallery executed at build."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tools"), str(ROOT / "docs/_extensions")]

project = "medbolt"
author = copyright = "The medbolt developers"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "exports",
]
exclude_patterns = ["_build", "gallery_src"]
suppress_warnings = ["config.cache"]  # sphinx-gallery's configuration cannot be pickled

html_theme = "furo"
html_title = "medbolt"
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shapes", "notes_style"), ("Source", "notes_style")]

sphinx_gallery_conf = {
    "examples_dirs": "gallery_src",
    "gallery_dirs": "gallery",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
}

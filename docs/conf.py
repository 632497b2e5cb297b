"""Sphinx configuration; `nox -s docs` builds the documentation with warnings as errors."""

from importlib.metadata import version as installed_version

project = "Flask-Bitmapist"
copyright = "2026, the Flask-Bitmapist contributors"  # noqa: A001
version = release = installed_version("flask-bitmapist")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "Flask-Bitmapist"

autodoc_member_order = "bysource"
autodoc_typehints = "description"

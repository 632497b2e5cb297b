"""Rendering, apart from the application's Jinja environment.

There autoescaping may be off and delimiters changed, its template names may be ours, and its
context processors may fail or query a database.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from flask import url_for
from jinja2 import Environment, PackageLoader, StrictUndefined

from . import drawing


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("flask_bitmapist.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawers = (drawing.sparkline, drawing.label, drawing.heat)
    environment.globals.update({drawer.__name__: drawer for drawer in drawers})
    environment.filters.update(thousands=drawing.thousands, percent=drawing.percent)
    return environment


def page(name: str, **values: Any) -> str:
    """The page from ``templates/bitmapist/<name>.html``."""
    template = _environment().get_template(f"bitmapist/{name}.html")
    return template.render(url_for=url_for, **values)

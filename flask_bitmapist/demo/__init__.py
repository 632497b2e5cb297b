"""Marginalia: a tiny blogging community with a year of history, to look at real activity.

``python -m flask_bitmapist.demo`` plays the year once, then serves the app and its dashboard.
Start reading at `app`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def create_app() -> Flask:
    """The app over the history that ``make demo`` has played, for ``flask --app``."""
    # Imported here, so that the package can be imported without the demo's extra.
    from .app import create_app as made

    return made()

"""A check for `FlaskBitmapist.ignore`: requests of people who ask for privacy."""

from __future__ import annotations

from flask import request


def asks_for_privacy() -> bool:
    """Whether the browser sends ``Sec-GPC: 1``, the signal of `Global Privacy Control
    <https://w3c.github.io/gpc/>`_."""
    return request.headers.get("Sec-GPC") == "1"

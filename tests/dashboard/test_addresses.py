"""Addresses are those that Flask makes, whatever the application does to them."""

from __future__ import annotations

from typing import Any

import flask
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.dashboard.addresses import url_for

values = st.dictionaries(
    st.sampled_from(["where", "event", "ende", "page", "clé &"]),
    st.one_of(
        st.none(),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.integers(),
        st.booleans(),
        st.dates(),
        st.lists(st.text("a &=", max_size=3), max_size=3),
        st.tuples(st.text("ab")),
    ),
)


def nothing(app: Flask) -> None:
    """An application that leaves addresses alone."""


def language(app: Flask) -> None:
    @app.url_defaults
    def add(endpoint: str, given: dict[str, object]) -> None:
        given.setdefault("lang", "en")


def sorting(app: Flask) -> None:
    app.url_map.sort_parameters = True


def hosts(app: Flask) -> None:
    app.url_map.host_matching = True


@pytest.fixture(params=[nothing, language, sorting, hosts])
def changed(request: pytest.FixtureRequest) -> Flask:
    """An application that does something to addresses."""
    app = Flask("addresses")
    app.config["BITMAPIST_ENABLED"] = False
    request.param(app)
    FlaskBitmapist(app)
    return app


@given(values)
def test_an_address_is_the_one_that_flask_makes(changed: Flask, given: dict[str, Any]) -> None:
    with changed.test_request_context("/", base_url="http://stats.example/root"):
        for endpoint in ("bitmapist.index", "bitmapist.people"):
            for told in (given, {}, given):
                assert url_for(endpoint, **told) == flask.url_for(endpoint, **told)
        static: Any = {"filename": "a b.css", "v": 1}
        assert url_for("bitmapist.static", **static) == flask.url_for("bitmapist.static", **static)

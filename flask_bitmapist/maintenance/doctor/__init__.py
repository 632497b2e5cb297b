"""Checks an application's analytics: its server, data, spool, settings and models.

It only reads. Each module has the checks of one part. A check is a function that yields findings.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask import Flask

from ...packed_periods import USUAL_AGE
from ...refusals import SERVER_ERRORS
from ...server import Server
from ...tracker import Tracker
from . import _bitmaps, _growth, _models, _names, _people, _server, _setup, _waiting
from ._findings import Diagnosis, Finding, Level, sized
from ._nodes import address_of, ask

__all__ = ["Diagnosis", "Finding", "Level", "examine", "sized"]


def examine(
    app: Flask, tracker: Tracker, watch: Callable[[int], None] = lambda keys: None
) -> Diagnosis:
    """Look at everything that belongs to `app`. A server that fails is a finding.

    :param watch: called now and then with the number of keys looked at since.
    """
    found = Diagnosis()
    client = _connect(found, tracker.server)
    if client is not None:
        try:
            _look_at_server(found, tracker, client, watch)
        except SERVER_ERRORS as error:
            found.findings.append(_failure("data", tracker.server, error))
    found.models = _models.models()
    found.findings += [
        *_waiting.check(tracker.settings, tracker.server),
        *_setup.check(app, tracker),
        *_models.check(found.models),
    ]
    return found


def _connect(found: Diagnosis, server: Server) -> Any:
    """The client to look with; None if the server cannot be used."""
    try:
        facts = server.facts
        client = server.patient
        begun = time.monotonic()
        server.quick.ping()
        latency = time.monotonic() - begun
    except SERVER_ERRORS as error:
        found.findings.append(_failure("server", server, error))
        return None
    found.findings += _server.connection(address_of(client), facts, latency, server.timeout)
    if replica := server.replica():
        found.findings.append(_server.reading(replica))
    return client


def _failure(part: str, server: Server, error: Exception) -> Finding:
    address = address_of(server.client)
    if reason := server.explain(error):
        told = f"{address} cannot be used: {reason}"
        return Finding(part, "error", told, "Do what the sentence says, and look again")
    return Finding(
        part,
        "error",
        f"{address} does not answer: {error}",
        "Start it, or set BITMAPIST_REDIS_URL. Marks wait in the spool meanwhile",
    )


def _look_at_server(
    found: Diagnosis, tracker: Tracker, client: Any, watch: Callable[[int], None]
) -> None:
    settings = tracker.settings
    nodes = ask(client)
    found.findings += _server.check_all(nodes, settings)
    names = _names.read(client)
    survey = _bitmaps.survey(client, settings, watch)
    found.events = survey.events(client, names.kinds)
    found.growth = _growth.growth(survey, settings, tracker.now())
    found.findings += [
        *_names.check(client, names, survey, settings),
        *_bitmaps.check(survey, found.events, settings),
        *_growth.check(found.growth, nodes),
        *_bitmaps.check_age(survey, settings, tracker.now() - USUAL_AGE),
        *_people.check(client),
    ]

"""A pytest plugin for MongoEngine's own tests: their documents get the mixin, and outcomes a file.

`mongoengine_suite.py` loads it with ``-p every_document`` and these variables:

* ``PEER_MIXIN``: ``none``, ``plain`` or ``bulk``;
* ``PEER_OUTCOMES``: the JSON file for ``{test: outcome}`` and the faults that we logged.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from mongoengine import Document
from mongoengine.base import TopLevelDocumentMetaclass
from mongoengine.context_managers import query_counter
from pymongo import monitoring

MIXIN = os.environ["PEER_MIXIN"]


class Outcomes:
    """What became of each test, and which faults of ours were logged in it."""

    def __init__(self) -> None:
        self.tests: dict[str, str] = {}
        self.faults: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.tests[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        outcomes = json.dumps({"tests": self.tests, "faults": self.faults})
        Path(os.environ["PEER_OUTCOMES"]).write_text(outcomes, encoding="utf-8")


class FaultLog(logging.Handler):
    """Notes what Flask-Bitmapist logs, by test."""

    def __init__(self, outcomes: Outcomes) -> None:
        super().__init__(logging.WARNING)
        self._outcomes = outcomes

    def emit(self, record: logging.LogRecord) -> None:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
        self._outcomes.faults.setdefault(test, []).append(record.getMessage())


class CountedCommands(monitoring.CommandListener):
    """The reads and writes of each database. The servers that we test on have no profiler."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in COUNTED:
            self.counts[event.database_name] += 1

    def succeeded(self, event: object) -> None: ...

    def failed(self, event: object) -> None: ...


COUNTED = {
    *("find", "getMore", "aggregate", "count", "distinct"),
    *("insert", "update", "delete", "findAndModify"),
}


def count_by_commands() -> None:
    """Let MongoEngine's `query_counter` count what PyMongo sends."""
    listener = CountedCommands()
    monitoring.register(listener)

    def start(counter: Any) -> None:
        counter.started_at = listener.counts[counter.db.name]

    def count(counter: Any) -> int:
        return int(listener.counts[counter.db.name] - counter.started_at)

    query_counter._turn_on_profiling = start
    query_counter._resets_profiling = lambda counter: None
    query_counter._get_count = count


def give_every_document_the_mixin() -> None:
    from flask_bitmapist import FlaskBitmapist
    from flask_bitmapist.adapters.mongoengine import MongoEngineBitmapistable

    class Everything(MongoEngineBitmapistable):
        __bitmapist_bulk__ = MIXIN == "bulk"

    app = Flask("peers", instance_path=tempfile.mkdtemp())
    app.config.update(BITMAPIST_REDIS_URL="embedded://", BITMAPIST_ID_MAP="always")
    FlaskBitmapist(app)
    original = TopLevelDocumentMetaclass.__new__

    def new(metaclass: Any, name: str, bases: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
        is_document = any(issubclass(base, Document) for base in bases)
        if is_document and not any(issubclass(base, Everything) for base in bases):
            bases = (Everything, *bases)
        return original(metaclass, name, bases, attributes)

    TopLevelDocumentMetaclass.__new__ = new


def pytest_configure(config: pytest.Config) -> None:
    outcomes = Outcomes()
    config.pluginmanager.register(outcomes)
    count_by_commands()
    if MIXIN != "none":
        give_every_document_the_mixin()
        logging.getLogger("flask_bitmapist").addHandler(FaultLog(outcomes))

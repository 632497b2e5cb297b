"""The adapter of ``docs/writing-an-adapter.md`` passes the contract, exactly as the page has it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import fakeredis
import pytest
from flask import Flask

from flask_bitmapist import FlaskBitmapist

from .contract import ServerMarks  # before the page imports flask_bitmapist.testing: see there

PAGE = Path(__file__).parents[2] / "docs" / "writing-an-adapter.md"
FILE = re.compile(r"^```\{code-block\} python\n:caption: (\w+)\.py\n\n(.*?)^```$", re.M | re.S)


def modules(page: Path) -> dict[str, ModuleType]:
    """The files that `page` shows, imported in the order of the page."""
    text = page.read_text()
    found = {}
    for file in FILE.finditer(text):
        name, code = file.groups()
        found[name] = sys.modules[name] = ModuleType(name)
        # At the page's own lines, so that a traceback leads there.
        lines = "\n" * text.count("\n", 0, file.start(2))
        exec(compile(lines + code, page, "exec"), vars(found[name]))
    return found


TestTinyStore = modules(PAGE)["test_tinystore"].TestTinyStore


class TestTinyStoreOnFakeRedis(TestTinyStore):  # type: ignore[misc, valid-type]
    """The same where an application's tests give it an in-process stand-in for Redis."""

    @pytest.fixture
    def fake(self) -> fakeredis.FakeRedis:
        return fakeredis.FakeRedis()

    @pytest.fixture(autouse=True)
    def app(self, fake: fakeredis.FakeRedis, tmp_path: Path) -> Flask:
        app = Flask("contract", instance_path=str(tmp_path / "instance"))
        FlaskBitmapist(app, redis_client=fake)
        return app

    @pytest.fixture
    def marked(self, fake: fakeredis.FakeRedis) -> ServerMarks:
        return ServerMarks(fake)

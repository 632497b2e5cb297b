"""peewee's own test suite, with our mixin on every model: it must not notice.

Run on demand, in an environment with the test dependencies, such as nox's::

    git clone --branch 4.5.3 https://github.com/coleifer/peewee /tmp/peewee
    python tests/adapters/peers/peewee_suite.py /tmp/peewee [TEST ...]

Only a checkout has the suite: peewee's source distribution leaves it out. It is run against the
peewee that is installed, over SQLite or PEEWEE_TEST_BACKEND, three times: as it is, with the mixin,
and with ``__bitmapist_bulk__`` too. Opting in costs a RETURNING, which is no difference here (see
`RETURNING_KEYS`). The tests of async databases, which the mixin refuses, are left out. The exit
code is 1 if a test ends differently with the mixin, or if the mixin logs an error.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]
MODES = ("plain", "mixin", "bulk")

#: Tests that compare the SQL of a bulk statement, to which opting in adds a RETURNING of the keys.
RETURNING_KEYS = {
    "tests.models.TestDeleteInstance.test_delete_instance_recursive",
    "tests.models.TestDeleteInstance.test_delete_nullable",
    "tests.models.TestDeleteInstanceDFS.test_delete_instance_dfs",
    "tests.models.TestDeleteInstanceDFS.test_delete_instance_dfs_nullable",
    "tests.models.TestDeleteInstanceRegression.test_delete_instance_regression",
}


class Outcomes(unittest.TextTestResult):
    """The tests that did not pass, each with the last line of what it said."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: dict[str, str] = {}

    def _tell(self, test: unittest.TestCase, error: Any) -> None:
        self.told[test.id()] = f"{error[0].__name__}: {error[1]}".partition("\n")[0]

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._tell(test, err)

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._tell(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._tell(subtest, err)


class Logged(logging.Handler):
    """The errors that the mixin logged, each message once."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.messages[record.getMessage()] = None


def put_base_under_every_model(mode: str, folder: Path) -> None:
    """Before the suite, or any module of playhouse, imports `Model`.

    Without the mixin too: models of a base are not quite those of peewee's own `Model`.
    """
    import peewee
    from flask import Flask

    from flask_bitmapist import FlaskBitmapist
    from flask_bitmapist.adapters.peewee import PeeweeBitmapistable

    options = {
        "BITMAPIST_REDIS_URL": f"embedded://{folder / 'valkey'}",
        # Models of one name have keys of several kinds.
        "BITMAPIST_ID_MAP": "always",
    }
    FlaskBitmapist(Flask("suite"), options)
    bases = (peewee.Model,) if mode == "plain" else (PeeweeBitmapistable, peewee.Model)
    body = {"__bitmapist_bulk__": True} if mode == "bulk" else {}
    metaclass: Any = type(peewee.Model)
    setattr(peewee, "Model", metaclass("Model", bases, body))  # noqa: B010


def run(mode: str, tests: list[str], folder: Path) -> dict[str, Any]:
    """In a process of its own, whose current folder holds the suite."""
    sys.path[:0] = [str(Path.cwd()), str(REPOSITORY)]
    logged = Logged()
    logging.getLogger("flask_bitmapist").addHandler(logged)
    sys.modules["tests.pwasyncio"] = None  # type: ignore[assignment]
    put_base_under_every_model(mode, folder)
    if tests:
        suite = unittest.defaultTestLoader.loadTestsFromNames([f"tests.{name}" for name in tests])
    else:
        suite = unittest.defaultTestLoader.loadTestsFromName("tests")
    result: Any = unittest.TextTestRunner(sys.stderr, resultclass=Outcomes, verbosity=0).run(suite)
    return {"ran": result.testsRun, "failed": result.told, "logged": list(logged.messages)}


def in_a_process(mode: str, checkout: Path, tests: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tests").symlink_to(checkout.absolute() / "tests")
        command = [sys.executable, __file__, str(checkout), *tests, "--mode", mode]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return outcome


def differences(plain: dict[str, Any], other: dict[str, Any], expected: set[str]) -> Iterator[str]:
    before, now = plain["failed"], other["failed"]
    if plain["ran"] != other["ran"]:
        yield f"{other['ran']} tests instead of {plain['ran']}"
    for test in sorted((before.keys() ^ now.keys()) - expected):
        yield f"{test}: {now.get(test, 'passes now')}"
    for message in other["logged"]:
        yield f"logged: {message}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkout", type=Path, help="a checkout of peewee")
    parser.add_argument("tests", nargs="*", help="such as models.TestModelAPIs; default: all")
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.mode:
        print(json.dumps(run(arguments.mode, arguments.tests, Path.cwd())))
        return 0
    outcomes = {mode: in_a_process(mode, arguments.checkout, arguments.tests) for mode in MODES}
    same = True
    for mode, outcome in outcomes.items():
        print(f"{mode}: {outcome['ran']} tests, {len(outcome['failed'])} failed")
        expected = RETURNING_KEYS if mode == "bulk" else set()
        for difference in differences(outcomes["plain"], outcome, expected):
            print(f"    {difference}")
            same = False
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

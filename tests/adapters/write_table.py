"""Write docs/adapters.md, what each adapter sees, from the contract's results.

python tests/adapters/write_table.py
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from flask_bitmapist.testing import AdapterContract

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "adapters.md"
COLUMNS = {
    "SQLAlchemy": "test_contract_sqlalchemy.py::TestSQLite",
    "peewee": "test_contract_peewee.py::TestSQLite",
    "MongoEngine": "test_contract_mongoengine.py::TestServer",
    "MongoEngine in a transaction": "test_contract_mongoengine.py::TestBoundSession",
}
INTRODUCTION = """\
# What each adapter sees

One contract, `flask_bitmapist.testing.AdapterContract`, runs unchanged over every adapter. This
table is written from its results, with SQLAlchemy and peewee on SQLite; PostgreSQL and MariaDB give
the same. What the contract leaves out is on each adapter's own page: {doc}`sqlalchemy`,
{doc}`peewee`, {doc}`mongoengine`. {doc}`writing-an-adapter` shows how to make another one.
"""


def title(test: Any) -> str:
    """The first line of the docstring of a test."""
    return (inspect.getdoc(test) or "").splitlines()[0]


class Results:
    """What became of each test of the contract, for each column."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], set[str]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function) -> Generator[None, Any, Any]:
        report = yield
        row = title(item.function)
        for column, place in COLUMNS.items():
            if f"{place}::" in item.nodeid and (report.when == "call" or not report.passed):
                skipped = report.longrepr[2].removeprefix("Skipped: ") if report.skipped else ""
                outcome = skipped or report.outcome
                self.outcomes.setdefault((row, column), set()).add(outcome)
        return report


def rows() -> list[str]:
    """The first line of the docstring of each test of the contract, in order."""
    tests = vars(AdapterContract).items()
    return [title(test) for name, test in tests if name.startswith("test_")]


def page(outcomes: dict[tuple[str, str], set[str]]) -> str:
    reasons: list[str] = []

    def cell(row: str, column: str) -> str:
        found = outcomes[row, column]
        if "passed" in found:
            return "yes"
        (reason,) = found
        if reason not in reasons:
            reasons.append(reason)
        return f"[^{reasons.index(reason) + 1}]"

    lines = [
        INTRODUCTION,
        "| | " + " | ".join(COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
        *(f"| {row} | " + " | ".join(cell(row, c) for c in COLUMNS) + " |" for row in rows()),
        "",
        *(f"[^{number}]: {reason}" for number, reason in enumerate(reasons, 1)),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    results = Results()
    paths = [str(HERE / place) for place in COLUMNS.values()]
    code = pytest.main(["-q", "-p", "no:randomly", *paths], plugins=[results])
    if code == 0:
        PAGE.write_text(page(results.outcomes))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

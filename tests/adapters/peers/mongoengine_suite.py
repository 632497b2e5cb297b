"""MongoEngine's own tests, with the mixin on every document: they must end as they do without it.

Run on demand, in an environment with the test dependencies, with a checkout of MongoEngine (its
source distribution lacks most of the tests)::

    git clone --branch v0.29.3 https://github.com/MongoEngine/mongoengine /tmp/mongoengine
    python tests/adapters/peers/mongoengine_suite.py /tmp/mongoengine [pytest's options]

The tests run three times: without the mixin, with it, and with bulk statements too. They need port
27017, where a SecantusDB is started for each run. It lacks features that MongoDB has, so some
tests fail each time. What pytest printed is kept in the folder for temporary files.

The exit code is 1 if a test ends differently with the mixin. What we log is no failure: the tests
have keys that are no ids.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import secantus

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
PORT = 27017  # the tests connect to MongoDB's default one
SECONDS = 1_800  # of one run


@dataclass(frozen=True)
class Run:
    """The outcomes of one run of the suite, and the faults that we logged, by test."""

    tests: dict[str, str]
    faults: dict[str, list[str]]

    @property
    def summary(self) -> str:
        counts = Counter(self.tests.values())
        return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))

    def differences(self, other: Run) -> list[str]:
        tests = sorted(self.tests.keys() | other.tests.keys())
        return [
            f"{test}: {self.tests.get(test)} -> {other.tests.get(test)}"
            for test in tests
            if self.tests.get(test) != other.tests.get(test)
        ]


def run_suite(checkout: Path, mixin: str, options: list[str]) -> Run:
    """Run the tests of `checkout` with ``plain`` or ``bulk`` mixins, or ``none``."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder, "outcomes.json")
        environment = os.environ | {
            # The mixin is to meet the MongoEngine of the checkout.
            "PYTHONPATH": os.pathsep.join(map(str, (checkout, REPOSITORY, HERE))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PEER_MIXIN": mixin,
            "PEER_OUTCOMES": str(outcomes),
        }
        quiet = ["-q", "--tb=short", "-W", "ignore", "-p", "no:cacheprovider", "-p", "no:randomly"]
        command = [sys.executable, "-m", "pytest", "-p", "every_document", *quiet, *options]
        done = subprocess.run(
            command,
            cwd=checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        Path(tempfile.gettempdir(), f"mongoengine-{mixin}.txt").write_text(done.stdout)
        if not outcomes.exists():
            sys.exit(f"the tests did not run:\n{done.stdout}")
        return Run(**json.loads(outcomes.read_text(encoding="utf-8")))


def drop_databases(url: str) -> None:
    client: pymongo.MongoClient[Any]
    with pymongo.MongoClient(url) as client:
        for name in client.list_database_names():
            if name not in {"admin", "config", "local"}:
                client.drop_database(name)


def main(checkout: str, *options: str) -> int:
    with secantus.SecantusDBServer(port=PORT, storage_path=":memory:") as server:
        runs = {}
        for mixin in ("none", "plain", "bulk"):
            drop_databases(server.uri)
            runs[mixin] = run_suite(Path(checkout).resolve(), mixin, list(options))
    without = runs.pop("none")
    print(f"without the mixin: {without.summary}", flush=True)
    differences = 0
    for mixin, with_mixin in runs.items():
        print(f"{mixin}: {with_mixin.summary}", flush=True)
        for difference in without.differences(with_mixin):
            print(f"    {difference}", flush=True)
            differences += 1
        for test, faults in with_mixin.faults.items():
            print(f"    logged in {test}, {len(faults)} in all: {faults[0][:120]}")
    return 1 if differences else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))

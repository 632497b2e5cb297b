"""The documentation's own examples, as written there, each page run from top to bottom."""

from __future__ import annotations

import doctest
import inspect
import re
from datetime import datetime
from pathlib import Path
from types import ModuleType

import pytest

from flask_bitmapist import ids, periods
from flask_bitmapist.testing import AdapterContract

ROOT = Path(__file__).parent.parent
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if EXAMPLE.search(page.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_as_written(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # instance folders, and the servers in them, are made here
    program = ModuleType("example")
    for example in EXAMPLE.finditer(page.read_text()):
        line = page.read_text()[: example.start(1)].count("\n")
        code = compile("\n" * line + example[1], page, "exec")
        exec(code, program.__dict__)


@pytest.mark.parametrize("module", [ids, periods], ids=lambda module: module.__name__)
def test_the_examples_of_docstrings_hold(module: ModuleType) -> None:
    found = doctest.testmod(module, extraglobs={"datetime": datetime})
    assert found.attempted > 0
    assert found.failed == 0


def test_the_table_of_adapters_has_every_test_of_the_contract() -> None:
    tests = [test for name, test in vars(AdapterContract).items() if name.startswith("test_")]
    table = (ROOT / "docs" / "adapters.md").read_text()
    for test in tests:
        assert f"| {(inspect.getdoc(test) or '').splitlines()[0]} |" in table


#: What stands in an example, and what its page must tell to install for it.
NEEDED = {
    "embedded://": "embedded",
    "Bitmapistable": "sqlalchemy",
    "flask_sqlalchemy": "flask-sqlalchemy",
    "flask_login": "login",
}


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_what_the_first_pages_install_is_enough_for_their_examples(page: str) -> None:
    text = (ROOT / page).read_text()
    (line,) = re.findall(r'^\$ pip install "flask-bitmapist\[(.*)$', text, re.MULTILINE)
    installed = set(re.split(r"[^\w-]+", line))
    examples = "".join(EXAMPLE.findall(text))
    assert {what for word, what in NEEDED.items() if word in examples} <= installed

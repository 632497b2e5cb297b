"""The table of the mutation check fits the source of the adapters."""

from __future__ import annotations

from pathlib import Path

from mutate_adapters import FIRST, MUTANTS, TESTS

import flask_bitmapist.adapters

ADAPTERS = Path(flask_bitmapist.adapters.__file__).parent
HERE = Path(__file__).parent
ROWS = [mutant for mutants in MUTANTS.values() for mutant in mutants]


def test_each_row_changes_one_place_of_the_source() -> None:
    sources = {row.file: (ADAPTERS / row.file).read_text(encoding="utf-8") for row in ROWS}
    faults = {f"{row.file}: {row.name}": row.fault(sources[row.file]) for row in ROWS}
    assert {row: fault for row, fault in faults.items() if fault} == {}


def test_no_two_rows_have_the_same_name() -> None:
    names = [(row.file, row.name) for row in ROWS]
    assert sorted(names) == sorted(set(names))


def test_every_file_of_tests_exists() -> None:
    files = {file for files in (*TESTS.values(), *FIRST.values()) for file in files}
    assert files <= {file.name for file in HERE.glob("test_*.py")}
    assert {row.file for row in ROWS} >= set(FIRST)

"""The pytest fixture that records marks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .recorded import RecordedMarks, record_marks


@pytest.fixture
def bitmapist_marks() -> Iterator[RecordedMarks]:
    """The marks that the test made, with every application in the process; needs no server."""
    with record_marks() as recorded:
        yield recorded

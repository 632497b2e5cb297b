"""Marks on their way: what was done is told apart from who did it, alone or as many at once."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from flask_bitmapist.delivery.spool import packed, unpacked
from flask_bitmapist.marks import Deed, Settled, count, deed, parts, singles

NOON = datetime(2026, 3, 14, 12)
SEEN = deed("seen", True, NOON, False, False, "plain", True)
LEFT = deed("left", False, None, True, True, "mapped:posts", False)
MIXED: list[Settled] = [
    (SEEN, 1),
    (SEEN, [2, 3, 4]),
    (LEFT, "ann"),
    (SEEN, np.array([5, 6, 7], dtype=np.uint32)),
    (LEFT, ["bea", "cid"]),
]
ALONE: list[Settled] = [*((SEEN, id_) for id_ in (1, 2, 3, 4)), (LEFT, "ann")]
ALONE += [*((SEEN, id_) for id_ in (5, 6, 7)), (LEFT, "bea"), (LEFT, "cid")]


def test_marks_of_many_are_those_of_each() -> None:
    assert [*singles(MIXED)] == ALONE
    assert count(MIXED) == len(ALONE) == 10
    assert all(type(id_) in (int, str) for _, id_ in singles(MIXED))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 10, 100])
def test_parts_keep_the_order_and_are_full(size: int) -> None:
    divided = [*parts(MIXED, size)]
    assert [mark for part in divided for mark in singles(part)] == ALONE
    assert {count(part) for part in divided[:-1]} <= {size}
    assert 0 < count(divided[-1]) <= size


def test_an_array_stays_one_when_it_is_divided() -> None:
    ((_, first),), ((_, second),) = parts([(SEEN, np.arange(6))], 4)
    assert isinstance(first, np.ndarray)
    assert isinstance(second, np.ndarray)


@pytest.mark.parametrize("mark", MIXED)
def test_a_row_of_the_spool_gives_back_what_was_put_in(mark: Settled) -> None:
    row = json.dumps(packed(mark))
    what, who = unpacked(json.loads(row))
    assert what == mark[0]
    assert [*singles([(what, who)])] == [*singles([mark])]
    assert what is unpacked(json.loads(row))[0]


@pytest.mark.parametrize(
    ("values", "mark"),
    [
        (["seen", 7, True, "2026-03-14T12:00:00", False, False, "plain", True], (SEEN, 7)),
        (["left", "ann", False, None, True, True, "mapped:posts", False], (LEFT, "ann")),
        (
            ["left", "ann", False, None, True, True, "mapped:posts"],
            (Deed("left", False, None, True, True, "mapped:posts"), "ann"),
        ),
    ],
)
def test_rows_of_earlier_versions_are_read(values: list[Any], mark: Settled) -> None:
    assert unpacked(values) == mark


@pytest.mark.parametrize("values", [[], ["e"], [1, 2], [None, 3], [["e"], 1], {}, {"a": 1, "b": 2}])
def test_a_row_that_is_not_a_mark_is_an_error_of_type_or_value(values: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        unpacked(values)

"""Takes a long series in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")


def in_parts(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """`items` in lists of at most `size`."""
    rest = iter(items)
    while part := [*islice(rest, size)]:
        yield part

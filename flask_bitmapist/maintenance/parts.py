"""Takes a long series in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")


def in_parts(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """`items` in lists of at most `size`."""
    rest = iter(items)
    while part := [*islice(rest, size)]:
        yield part


def in_sized_parts(
    items: Iterable[_Item], size_of: Callable[[_Item], int], most: int
) -> Iterator[list[_Item]]:
    """`items` in lists whose sizes add up to at most `most`; a larger item is alone."""
    part: list[_Item] = []
    room = most
    for item in items:
        size = size_of(item)
        if part and size > room:
            yield part
            part, room = [], most
        part.append(item)
        room -= size
    if part:
        yield part

"""Dimensions: what a person has one value of at a time, such as ``user:plan``.

Those who have a value are an undated set, the flag ``user:plan=pro``. Which values a dimension has
is kept in numbered slots, in the order in which they first came.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

#: A hash: a slot of a dimension, ``0:user:plan`` -> the value in it.
DIMENSIONS = "flask_bitmapist:dimensions"
#: The value that stands for those for which a dimension has no room. It has no slot.
OTHER = "other"


def flag_of(dimension: str, value: str) -> str:
    """The flag of those whose `value` it is."""
    return f"{dimension}={value}"


def slot(dimension: str, number: int) -> str:
    """The field of `DIMENSIONS` that has a value of `dimension`."""
    return f"{number}:{dimension}"


def values_in(slots: Mapping[str, str], flags: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The values of each dimension, in the order in which they came; `OTHER` is the last.

    :param slots: the fields of `DIMENSIONS`.
    :param flags: those that there are. A value that has none has never been marked.
    """
    numbered: dict[str, dict[int, str]] = {}
    for field, value in slots.items():
        number, _, dimension = field.partition(":")
        numbered.setdefault(dimension, {})[int(number)] = value
    found: dict[str, tuple[str, ...]] = {}
    for dimension, values in sorted(numbered.items()):
        in_order = (*(values[number] for number in sorted(values)), OTHER)
        if marked := tuple(value for value in in_order if flag_of(dimension, value) in flags):
            found[dimension] = marked
    return found

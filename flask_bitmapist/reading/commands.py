"""Sends many reading commands, as many together as a server answers in some milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from .replies import read_numbers, read_replies
from .time_limit import check_time

#: Commands of one round trip.
COMMANDS = 2_000
_Command = TypeVar("_Command", bound=tuple[Any, ...])


def numbers(client: Any, commands: Sequence[tuple[str, ...]]) -> list[int]:
    """The whole numbers that `commands` return, in one round trip for every 2,000 of them."""
    found: list[int] = []
    for batch in batches(commands):
        told = read_numbers(client, batch)
        found += pipelined(client, batch) if told is None else told
    return found


def read(client: Any, commands: Sequence[tuple[str, ...]]) -> list[Any]:
    """The replies to `commands`, in one round trip for every 2,000 of them."""
    return [reply for batch in batches(commands) for reply in pipelined(client, batch)]


def batches(commands: Sequence[_Command]) -> Iterator[Sequence[_Command]]:
    """The `commands` of each round trip."""
    for first in range(0, len(commands), COMMANDS):
        if first:
            check_time()
        yield commands[first : first + COMMANDS]


def pipelined(client: Any, commands: Sequence[tuple[str, ...]]) -> list[Any]:
    """The replies to `commands`, in one round trip."""
    told = read_replies(client, commands)
    if told is not None:
        return told
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        # A client made with decode_responses=True would take a bitmap for UTF-8 text, and fail.
        pipeline.execute_command(*command, NEVER_DECODE=True)
    replies: list[Any] = pipeline.execute()
    return replies

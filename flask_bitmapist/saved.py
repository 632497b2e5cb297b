"""What people have saved from the dashboard: boards and single questions, kept on the server.

Others can write to the server, too: what cannot be read is left as it is, and counted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import redis

from .boards import MOST_CHARTS, Board, Chart
from .trip import node_of

#: A hash: an id -> a board or a question as JSON. No data about anybody.
BOARDS = "flask_bitmapist:boards"
#: The version of the records. Those of another one are left as they are.
_VERSION = 1
#: The most boards and questions, and the most bytes of one.
MOST, _LARGEST = 200, 64 * 1024

#: A board, or a question under its title.
Thing: TypeAlias = Board | Chart


class Saved(NamedTuple):
    """All that is saved, by id, in the order of the names."""

    boards: Mapping[str, Board]
    questions: Mapping[str, Chart]
    #: How many records cannot be read: of a later version, damaged, or somebody else's.
    unreadable: int = 0


def saved(client: Any) -> Saved:
    """What is saved on the server of `client`.

    :raises redis.RedisError: if the server does not answer.
    """
    return _parted(_records(node_of(client, BOARDS)))


def save(client: Any, thing: Thing) -> str:
    """Keep a new board or question; its id.

    :raises ValueError: if there is a board of that name, or no more room.
    :raises redis.RedisError: if the server does not answer.
    """
    id_ = secrets.token_hex(8)

    def add(records: Mapping[str, bytes]) -> bytes:
        if len(records) >= MOST:
            raise ValueError(f"{MOST} boards and questions are saved: delete some of them first")
        _check_name(thing, _parted(records), id_)
        return _dumped(thing)

    _change(client, id_, add)
    return id_


def change(client: Any, id_: str, changed: Callable[[Thing], Thing]) -> None:
    """Let the board or question `id_` be what `changed` makes of it.

    What somebody else saves meanwhile is not lost: `changed` is called again, with that.

    :raises ValueError: if there is no such board or question, or there is one of the new name.
    :raises redis.RedisError: if the server does not answer.
    """

    def replace(records: Mapping[str, bytes]) -> bytes:
        others = _parted(records)
        new = changed(_found(others, id_))
        _check_name(new, others, id_)
        return _dumped(new)

    _change(client, id_, replace)


def add_chart(client: Any, id_: str, chart: Chart) -> None:
    """Put `chart` at the end of the board `id_`; errors are those of `change`."""

    def added(thing: Thing) -> Thing:
        if not isinstance(thing, Board):
            raise ValueError(f"{thing.title!r} is a question, not a board")
        if len(thing.charts) >= MOST_CHARTS:
            raise ValueError(f"the board {thing.name!r} is full: it has {MOST_CHARTS} charts")
        return Board(thing.name, (*thing.charts, chart))

    change(client, id_, added)


def delete(client: Any, id_: str) -> None:
    """Delete the board or question `id_`, if it is there.

    :raises redis.RedisError: if the server does not answer.
    """
    node_of(client, BOARDS).hdel(BOARDS, id_)


def _change(client: Any, id_: str, change: Callable[[Mapping[str, bytes]], bytes]) -> None:
    """Write under `id_` what `change` makes of all records, unless others write meanwhile."""
    with node_of(client, BOARDS).pipeline(transaction=True) as pipe:
        while True:
            with suppress(redis.WatchError):
                pipe.watch(BOARDS)
                record = change(_records(pipe))
                pipe.multi()
                pipe.hset(BOARDS, id_, record)
                pipe.execute()
                return


def _records(client: Any) -> dict[str, bytes]:
    # A client that decodes would fail for bytes that are no text.
    held = client.execute_command("HGETALL", BOARDS, NEVER_DECODE=True)
    return {id_.decode(errors="replace"): record for id_, record in held.items()}


def _parted(records: Mapping[str, bytes]) -> Saved:
    things = {id_: thing for id_, record in records.items() if (thing := _thing(record))}
    boards = {id_: thing for id_, thing in things.items() if isinstance(thing, Board)}
    questions = {id_: thing for id_, thing in things.items() if isinstance(thing, Chart)}
    return Saved(
        dict(sorted(boards.items(), key=lambda one: (one[1].name.casefold(), one[0]))),
        dict(sorted(questions.items(), key=lambda one: (one[1].title.casefold(), one[0]))),
        len(records) - len(things),
    )


def _thing(record: bytes) -> Thing | None:
    """The board or question of a record; None if it cannot be read."""
    if len(record) > _LARGEST:
        return None
    # A RecursionError is that of brackets in thousands of brackets.
    with suppress(ValueError, RecursionError):
        match json.loads(record):
            case {"version": 1, "board": board, **rest} if not rest:
                return Board.of_plain(board)
            case {"version": 1, "question": question, **rest} if not rest:
                return Chart.of_plain(question)
    return None


def _dumped(thing: Thing) -> bytes:
    kind = "board" if isinstance(thing, Board) else "question"
    record = json.dumps({"version": _VERSION, kind: thing.plain}).encode()
    if len(record) > _LARGEST:
        raise ValueError(f"that takes {len(record):,} bytes, and {_LARGEST:,} are the most")
    return record


def _found(saved: Saved, id_: str) -> Thing:
    thing = saved.boards.get(id_) or saved.questions.get(id_)
    if thing is None:
        raise ValueError("that board or question is no longer there")
    return thing


def _check_name(thing: Thing, saved: Saved, id_: str) -> None:
    if isinstance(thing, Board) and any(
        board.name == thing.name for other, board in saved.boards.items() if other != id_
    ):
        raise ValueError(f"there is a board called {thing.name!r}: give this one another name")

"""What a piece of SQL does to the transaction that it runs in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Control(NamedTuple):
    """A statement that controls a transaction."""

    #: begin, commit, rollback, savepoint, release or rollback_to.
    verb: str
    #: For the last three: the name of the savepoint.
    savepoint: str = ""
    #: Whether the next transaction begins at once (COMMIT AND CHAIN).
    chained: bool = False


def controls_in(sql: str, *, one_statement: bool) -> list[Control]:
    """The statements of `sql` that control a transaction, in order.

    :param one_statement: whether the driver takes only one statement, as sqlite3 does.
    """
    # A routine contains statements, and its BEGIN and END are not about transactions.
    one_statement = one_statement or ";" not in sql or _ROUTINE.search(sql) is not None
    if one_statement and not _MAY_CONTROL.match(sql):  # almost all SQL, and it may be long
        return []
    statements = [text for text in "".join(_uncommented(sql)).split(_END) if text.strip()]
    found = map(_control, statements[:1] if one_statement else statements)
    return [control for control in found if control is not None]


_ROUTINE = re.compile(r"\bCREATE\b[^;]*\b(?:EVENT|FUNCTION|PROCEDURE|TRIGGER)\b", re.IGNORECASE)
_MAY_CONTROL = re.compile(
    r"(?:\s|;|/\*.*?\*/|--[^\n]*|\#[^\n]*)*"
    r"(?:BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE)\b",
    re.IGNORECASE | re.DOTALL,
)
_TOKEN = re.compile(
    r"""(?P<comment>/\*.*?\*/ | --[^\n]*)
      | (?P<end>;)
      | E'(?:[^'\\]|\\.|'')*'
      | '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
      | .""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# Separates two statements: no database accepts this character in SQL.
_END = "\0"


def _uncommented(sql: str) -> Iterator[str]:
    """`sql` with a space for each comment, and `_END` for each semicolon outside of quotes."""
    for token in _TOKEN.finditer(sql):
        if token["comment"]:
            yield " "
        else:
            yield _END if token["end"] else token[0]


_NAME = r"""(?:"[^"]+"|`[^`]+`|'[^']+'|\[[^]]+\]|[^\s"`'\[]+)"""
# Each group is named after its verb; those of savepoints hold the savepoint's name.
_CONTROL = re.compile(
    rf"""(?:\s|\#[^\n]*\n)*
    (?: (?P<begin>(?:BEGIN(?!\s+NOT\s+ATOMIC)|START\s+TRANSACTION)\b.*)
      | (?: (?P<commit>COMMIT|END) | (?P<rollback>ROLLBACK|ABORT) )
        (?:\s+(?:WORK|TRANSACTION))?
        (?: (?P<chain>\s+AND\s+CHAIN) | \s+AND\s+NO\s+CHAIN )?
        (?:\s+(?:NO\s+)?RELEASE)?
      | SAVEPOINT\s* (?P<savepoint>{_NAME})
      | RELEASE (?:\s+SAVEPOINT)? \s* (?P<release>{_NAME})
      | ROLLBACK (?:\s+(?:WORK|TRANSACTION))? \s+TO (?:\s+SAVEPOINT)? \s* (?P<rollback_to>{_NAME})
      | (?P<prepare>PREPARE\s+TRANSACTION\b.*)
    )\s*""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_OF_SAVEPOINTS = ("savepoint", "release", "rollback_to")


def _control(statement: str) -> Control | None:
    match = _CONTROL.fullmatch(statement)
    if match is None:
        return None
    for verb in _OF_SAVEPOINTS:
        if match[verb]:
            return Control(verb, match[verb].strip("\"`'[]").casefold())
    if match["prepare"]:
        # Whether it commits is decided later, by anybody.
        return Control("rollback")
    verb = next(verb for verb in ("begin", "commit", "rollback") if match[verb])
    return Control(verb, chained=match["chain"] is not None)

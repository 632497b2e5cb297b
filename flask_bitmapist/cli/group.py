"""How a command asks and prints, whatever it is about."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import click
from flask.cli import AppGroup

from ..current import current_tracker
from ..refusals import SERVER_ERRORS
from .terminal import shown

commands = AppGroup("bitmapist", help="Who was active, who came back, who did what.")


class Answer(Protocol):
    """What a command prints, and the dashboard offers for download: a report, for example."""

    def to_dict(self) -> Any: ...
    def to_csv(self) -> str: ...


class Shown(Protocol):
    """What a terminal shows of an answer."""

    def show(self) -> None: ...


def command(
    name: str,
    picture: Callable[[Any], Shown],
    asking: Callable[[], AbstractContextManager[None]] | None = None,
) -> Callable[[Callable[..., Answer]], click.Command]:
    """A command that asks for one answer and prints it.

    :param picture: makes the table that a terminal shows.
    :param asking: what is around the question; None: `answering`.
    """

    def decorate(ask: Callable[..., Answer]) -> click.Command:
        @functools.wraps(ask)
        def run(as_json: bool, as_csv: bool, **arguments: Any) -> None:
            server = current_tracker().server
            with (asking or answering)():
                answer = ask(**arguments)
            with unwritten_told():
                if as_json:
                    click.echo(json.dumps(server.with_replica(answer.to_dict()), indent=2))
                elif as_csv:
                    _print_csv(answer.to_csv())
                else:
                    picture(answer).show()
                    # Where another is around the question, the answer itself tells.
                    if asking is None and (replica := server.replica()):
                        click.echo(f"({replica})", err=True)
            if exit_code := getattr(answer, "exit_code", 0):
                click.get_current_context().exit(exit_code)

        run = click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")(run)
        run = click.option("--json", "as_json", is_flag=True, help="JSON, for pipes.")(run)
        return commands.command(name)(run)

    return decorate


@contextmanager
def answering() -> Iterator[None]:
    """Say in one sentence why there is no answer."""
    server = current_tracker().server
    try:
        server.check_reading()  # one that is too old is reported before anything else
        yield
    except SERVER_ERRORS as error:
        reason = server.explain(error) or f"Redis does not answer: {error}"
        raise click.ClickException(reason) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _print_csv(text: str) -> None:
    if sys.stdout is not None and sys.stdout.isatty():
        # A terminal would obey control characters in an id.
        text = "".join(f"{shown(line)}\n" for line in text.split("\r\n") if line)
    click.echo(text, nl=False)


@contextmanager
def unwritten_told() -> Iterator[None]:
    """Say in one sentence why the output cannot be written."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise click.ClickException(
            f"the output's encoding, {error.encoding}, does not have "
            f"{error.object[error.start]!a}: set PYTHONIOENCODING=utf-8"
        ) from error
    except BrokenPipeError:
        raise  # the reader has gone, as with `| head`: click ends quietly
    except OSError as error:
        # Python would try to write the rest at exit, and complain.
        with suppress(OSError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise click.ClickException(f"the output was not written: {error.strerror}") from error

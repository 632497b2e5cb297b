"""The command `digest`: a board as text, HTML, JSON, or a message to be sent."""

from __future__ import annotations

import json
import sys

import click

from .group import answering, commands, unwritten_told
from .terminal import shown


@commands.command("digest")
@click.argument("board")
@click.option("--html", "as_html", is_flag=True, help="A document that mail programs show.")
@click.option("--json", "as_json", is_flag=True, help="JSON, for pipes.")
@click.option("--to", metavar="ADDRESSES", help="Print a message to these, for sendmail -t.")
@click.option("--from", "sender", metavar="ADDRESS", help="Whom that message comes from.")
@click.option("--url", help="The application's address, such as https://shop.example.")
def digest(
    board: str,
    as_html: bool,
    as_json: bool,
    to: str | None,
    sender: str | None,
    url: str | None,
) -> None:
    """The board called BOARD, as of now, to be read or sent.

    \b
    flask bitmapist digest Weekly
    flask bitmapist digest Weekly --to team@shop.example | sendmail -t
    """
    from ..digest import digest

    if as_html + as_json + (to is not None) > 1:
        raise click.UsageError("give one of --html, --json and --to")
    with answering():
        made = digest(board, url=url)
        message = None if to is None else made.message(to, sender or "").as_bytes()
    with unwritten_told():
        if message is not None:
            click.echo(message, nl=False)
        elif as_html:
            click.echo(made.html)
        elif as_json:
            click.echo(json.dumps(made.to_dict(), indent=2))
        elif sys.stdout is not None and sys.stdout.isatty():
            click.echo("\n".join(map(shown, made.text.splitlines())))
        else:
            click.echo(made.text, nl=False)

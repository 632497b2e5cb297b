"""``python -m flask_bitmapist.demo``: play the year once, then serve the app."""

from __future__ import annotations

import errno
import logging
import socket
import sys
from importlib import import_module
from pathlib import Path

import click
from werkzeug.serving import make_server

HOST = "127.0.0.1"


@click.command()
@click.option(
    "--port",
    envvar="PORT",
    show_envvar=True,
    default=5000,
    show_default=True,
    type=click.IntRange(1, 65535),
)
@click.option(
    "--instance",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("instance", "demo"),
    show_default=True,
    help="Where the data is kept. Delete this folder to start over.",
)
@click.option(
    "--days",
    default=365,
    show_default=True,
    type=click.IntRange(1, 3660),
    help="Length of the history.",
)
@click.option(
    "--users",
    default=3000,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Sign-ups in the history.",
)
def main(port: int, instance: Path, days: int, users: int) -> None:
    """Marginalia, a small community with a year of history, and its Flask-Bitmapist dashboard."""
    try:
        from redis import RedisError

        from .app import create_app
        from .history import ensure_played
        from .packing import saving

        import_module("flask_bitmapist.reading.packed")  # which `saving` needs, after the year
    except ImportError as error:
        raise click.ClickException(
            f'{error}\nThe demo needs its extra: pip install "flask-bitmapist[demo]"'
        ) from error
    listener = _listen(port)  # before the year is played: nobody waits for a port that is taken
    try:
        app = create_app(instance)
        played = ensure_played(app, days=days, users=users)
        raw, packed = saving(app)
    except KeyboardInterrupt:
        click.echo("\nInterrupted. The next start plays the history from the beginning.", err=True)
        sys.exit(130)
    except (OSError, RedisError) as error:  # a folder that is not ours, no server to start
        raise click.ClickException(str(error)) from error
    # Its line for each request would hide the ones below.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server(HOST, port, app, threaded=True, fd=listener.fileno())
    listener.close()
    click.echo(f"{'The history has been played and is' if played else 'The data is'} in {instance}")
    click.echo(f"Marginalia    http://{HOST}:{port}/")
    click.echo(
        f"Its dashboard http://{HOST}:{port}{app.config.get('BITMAPIST_URL_PREFIX', '/bitmapist')}/"
    )
    if raw:
        told = f"Packed, {raw // 1000:,} kB of its past would take {packed // 1000:,} kB"
        click.echo(f"{told}: docs/packing.md")
    click.echo("Stop with Ctrl-C.")
    server.serve_forever()


def _listen(port: int) -> socket.socket:
    """Take the port now and keep it: early visitors wait in its queue while the year is played."""
    try:
        return socket.create_server((HOST, port), backlog=128)
    except OSError as error:
        reason = (
            "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        )
        raise click.ClickException(
            f"Port {port} {reason}. Choose another one with PORT=, for example PORT={port + 1}."
        ) from error


if __name__ == "__main__":
    main()

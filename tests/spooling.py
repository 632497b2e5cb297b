"""What processes do that append to a spool, or drain it, until they are killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path

from flask_bitmapist.delivery.addresses import Addresses
from flask_bitmapist.delivery.spool import Spool, SpoolError
from flask_bitmapist.marks import Settled, deed, singles

NOON = datetime(2026, 3, 14, 12)
DEED = deed("e", True, NOON, False, False, "plain", True)
SERVER = Addresses(("here",), "here")


def fill(spool: Spool, ids: Sequence[int]) -> None:
    for id_ in ids:
        spool.append([(DEED, id_)])


def keep_appending(path: Path, ids: range, acknowledged: Connection) -> None:
    """Append ten marks after the other, and tell the first id of those that the spool has."""
    spool = Spool(path, SERVER, limit=2**28)
    for id_ in ids[::10]:
        try:
            if id_ % 3:
                spool.append([(DEED, [*range(id_, id_ + 10)])])
            else:
                fill(spool, range(id_, id_ + 10))
        except SpoolError:
            continue
        acknowledged.send(id_)


def keep_draining(path: Path, log: Path) -> None:
    """Write what comes out to `log`."""
    spool = Spool(path, SERVER)
    with log.open("a") as out:

        def write(marks: Sequence[Settled]) -> None:
            out.write("".join(f"{id_}\n" for _, id_ in singles(marks)))
            out.flush()

        while True:
            try:
                spool.drain(write, 5)
            except SpoolError as error:
                print(error, file=sys.stderr)  # noqa: T201
            time.sleep(0.002)

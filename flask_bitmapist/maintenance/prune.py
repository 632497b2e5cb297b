"""Lets periods go as ``BITMAPIST_TTL`` says, also those that were written before it was set.

When a short period expires, its week and its month stay. They may lack some of its bits, since
others may have marked days alone: these bits are set there first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..config import STORED_GRAINS
from ..delivery.bits import Bits
from ..delivery.expiry import Expiries, is_wrong
from ..delivery.merging import in_commands
from ..packed_periods import is_packable, keys_of, packed_key, packed_keys
from ..periods import KEY_PREFIX, Grain, Period
from ..reading.bitmap import Bitmap
from ..reading.both import both_forms, joined
from ..trip import Trip, replies
from .parts import in_parts, in_sized_parts
from .stored import name_and_period

#: Keys that are asked about in one round trip; bytes of bitmaps that are read in one.
_KEYS, _BYTES = 2_000, 16 * 2**20


@dataclass(slots=True)
class Pruned:
    """What became of the periods of one length.

    :ivar gone: bitmaps that were deleted, as their time was over; and the bytes that they took.
    :ivar expiring: bitmaps that were given the right expiry; and their bytes.
    :ivar saved: bits that longer periods lacked, and that were set there first.
    """

    grain: Grain
    gone: int = 0
    gone_bytes: int = 0
    expiring: int = 0
    expiring_bytes: int = 0
    saved: int = 0


class _Found(NamedTuple):
    """A bitmap, and where it is kept."""

    key: str
    stored: str
    event: str
    period: Period


class _Due(NamedTuple):
    """A bitmap whose expiry is not what it should be."""

    found: _Found
    #: When it is to expire, in seconds since the epoch; None: it is over.
    expires: int | None
    #: Whether it would have stayed.
    lasted: bool
    #: Its bytes.
    size: int


def prune(
    client: Any,
    names: Collection[str],
    expiries: Expiries,
    *,
    dry_run: bool = False,
    watch: Callable[[int], None] = lambda keys: None,
) -> list[Pruned]:
    """Delete the bitmaps of `names`, or let them expire, as `expiries` say; returns what was done.

    It can be stopped at any moment, and run again.

    :param client: a client that writes, and waits.
    :param dry_run: only tell what would happen.
    :param watch: called now and then with the number of keys looked at since.
    :raises redis.RedisError: if the server does not answer.
    :raises UnreadableError: if a packed bitmap is damaged.
    """
    pruned = {grain: Pruned(grain) for grain in STORED_GRAINS if expiries.covers(grain)}
    for found in in_parts(_bitmaps(client, names, watch), _KEYS):
        due = _due(client, expiries, found)
        for one in due:
            of_grain = pruned[one.found.period.grain]
            if one.expires is None:
                of_grain.gone += 1
                of_grain.gone_bytes += one.size
            else:
                of_grain.expiring += 1
                of_grain.expiring_bytes += one.size
        lasted = (one for one in due if one.lasted)
        for part in in_sized_parts(lasted, lambda one: one.size, _BYTES):
            of_part = [one.found for one in part]
            for grain, saved in _saved(client, expiries, of_part, dry_run=dry_run):
                pruned[grain].saved += saved
        if not dry_run:
            _let_go(client, due)
    return [*pruned.values()]


def _bitmaps(client: Any, names: Collection[str], watch: Callable[[int], None]) -> Iterator[_Found]:
    """The dated bitmaps of `names`, in both forms."""
    for is_packed in (False, True):
        keys = packed_keys(client) if is_packed else keys_of(client, KEY_PREFIX)
        for batch in in_parts(keys, _KEYS):
            watch(len(batch))
            for key in dict.fromkeys(batch):
                event, period = name_and_period(key)
                if event in names and period is not None:
                    yield _Found(key, packed_key(key) if is_packed else key, event, period)


def _due(client: Any, expiries: Expiries, found: Iterable[_Found]) -> list[_Due]:
    """Those of `found` whose expiry is not what it should be."""
    asked = [(one, moment) for one in found if (moment := expiries.moment(one.period)) is not None]
    pipe = Trip(client)
    for one, _ in asked:
        pipe.execute_command("TTL", one.stored)
        pipe.execute_command("STRLEN", one.stored)
    told = pipe.execute() if asked else []
    now, due = time.time(), []
    for (one, moment), left, size in zip(asked, told[::2], told[1::2], strict=True):
        if isinstance(size, Exception) and "WRONGTYPE" in str(size):
            continue  # it is no bitmap
        if isinstance(size, Exception) or isinstance(left, Exception):
            pipe.check()
        if is_wrong(left, moment):
            is_over = moment <= now
            due.append(_Due(one, None if is_over else moment, is_over or left == -1, size))
    return due


def _saved(
    client: Any, expiries: Expiries, found: Collection[_Found], *, dry_run: bool
) -> Iterator[tuple[Grain, int]]:
    """Set the bits of `found` that longer periods lack; yields how many, by grain of `found`."""
    targets = {one.key: [*_longer(expiries, one)] for one in found}
    held = _held(client, {*targets, *(one.key for listed in targets.values() for one in listed)})
    pipe = Trip(client)
    for one in found:
        for target in targets[one.key]:
            lacking = held[one.key] - held[target.key]
            if not (count := len(lacking)):
                continue
            yield one.period.grain, count
            held[target.key] |= lacking
            for offsets in in_commands(lacking.ids()):
                Bits(offsets).queue(pipe, target.key)
            if (moment := expiries.moment(target.period)) is not None:
                pipe.execute_command("EXPIREAT", target.key, moment)
    if len(pipe) and not dry_run:
        pipe.execute()
        pipe.check()


def _held(client: Any, keys: Collection[str]) -> dict[str, Bitmap]:
    """The bitmaps under `keys`, packed or not."""
    # In a cluster, both forms of a bitmap are on one node only if it is packable.
    asked = [both_forms(key) if is_packable(key) else ("MGET", key) for key in keys]
    told = replies(client, asked)
    return {
        key: joined(key, (forms[0], forms[1] if len(forms) > 1 else None))
        for key, forms in zip(keys, told, strict=True)
    }


def _longer(expiries: Expiries, found: _Found) -> Iterator[_Found]:
    """The longer periods that contain `found` and are still kept."""
    for grain in STORED_GRAINS[STORED_GRAINS.index(found.period.grain) + 1 :]:
        if found.period.grain == "week":  # it may lie in two months
            return
        period = Period.containing(grain, found.period.start)
        if not expiries.has_passed(period):
            key = period.key(found.event)
            yield _Found(key, key, found.event, period)


def _let_go(client: Any, due: Collection[_Due]) -> None:
    if not due:
        return
    pipe = Trip(client)
    for one in due:
        if one.expires is None:
            pipe.execute_command("UNLINK", one.found.stored)
        else:
            pipe.execute_command("EXPIREAT", one.found.stored, one.expires)
    pipe.execute()
    pipe.check()

"""Packs the bitmaps of periods that are over, and unpacks them, one swap of two keys at a time.

A swap watches both keys: what marks, or packs, meanwhile makes it start again. It can be stopped at
any moment, and what is left is what the next run finds.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from itertools import chain
from typing import Any, NamedTuple

import redis
from redis.cluster import RedisCluster

from .packed_periods import (
    PACKED_BEFORE,
    TRUSTED,
    ends_by,
    is_packable,
    keys_of,
    note,
    packed_key,
)
from .periods import KEY_PREFIX
from .reading.both import both_forms, joined
from .registry import text
from .trip import node_of, replies

_ATTEMPTS = 20
#: A bitmap stays raw if it would not be so many times as small: denser sets take longer to combine
#: packed than raw.
_LEAST_SAVING = 2
#: Bytes by which the packed form's key is longer.
_LONGER_KEY = len(packed_key(""))


class Swap(NamedTuple):
    """One bitmap, and its bytes in both forms."""

    key: str
    raw: int
    packed: int


class UnstableError(redis.RedisError):
    """A bitmap kept changing while it was to be swapped."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} keeps changing: run the command again")


def announce(client: Any, before: date) -> None:
    """Let every process know that periods which are over before the day `before` may be packed.

    Waits, where that is news, until no process can hold it for wrong.
    """
    known = client.get(PACKED_BEFORE)
    if known is None or date.fromisoformat(text(known)) < before:
        client.set(PACKED_BEFORE, before.isoformat())
        time.sleep(2 * TRUSTED)
    note(client, client.get(PACKED_BEFORE))


def raw_keys(client: Any, names: Collection[str], before: date) -> Iterator[str]:
    """The keys of the bitmaps of `names` that can be packed: of periods over before `before`."""
    for key in keys_of(client, KEY_PREFIX):
        name = key.removeprefix(KEY_PREFIX).rpartition("_")[0]
        if name in names and is_packable(key) and ends_by(key, before):
            yield key


def pack(client: Any, key: str, *, dry: bool = False) -> Swap | None:
    """Swap the raw form of the bitmap under `key` for the packed one, with late marks merged.

    :param dry: only tell what it would save.
    :returns: None if it is not there, or packing it would not halve it.
    :raises UnreadableError: if it is packed already, and that form is damaged.
    :raises ArithmeticError: if the packed form does not give the raw one back.
    """
    from .reading.packed import Packed

    for pipe, forms, expiry in _watched(client, key):
        raw, before = forms
        if raw is None:
            return None
        bitmap = Packed.of(joined(key, forms))
        value = bitmap.to_portable()
        if before is None and len(value) + _LONGER_KEY > len(raw) // _LEAST_SAVING:
            return None
        swap = Swap(key, len(raw), len(value))
        if dry:
            return swap
        unpacked = Packed.from_portable(value)
        if unpacked != bitmap or (before is None and unpacked.to_bytes() != raw.rstrip(b"\0")):
            raise ArithmeticError(f"{key} packed is not what it was: please report this")
        pipe.multi()
        pipe.set(packed_key(key), value, px=expiry)
        pipe.delete(key)
        if _executed(pipe):
            return swap
    raise UnstableError(key)


def unpack(client: Any, key: str) -> Swap | None:
    """Swap the packed form of the bitmap under `key` for the raw one; None if it is not packed.

    :raises UnreadableError: if it is damaged.
    """
    for pipe, forms, expiry in _watched(client, key):
        value = forms[1]
        if value is None:
            return None
        raw = joined(key, forms).to_bytes()
        pipe.multi()
        pipe.set(key, raw, px=expiry)
        pipe.delete(packed_key(key))
        if _executed(pipe):
            return Swap(key, len(raw), len(value))
    raise UnstableError(key)


def merge(client: Any, key: str, value: bytes, life: int | None) -> None:
    """Add the packed bitmap `value` to the packed form of the bitmap under `key`.

    :param life: in how many ms `value` expires; None: never.
    :raises UnreadableError: if what is there is damaged.
    """
    from .reading.packed import Packed

    for pipe, (raw, before), expiry in _watched(client, key):
        if raw is None and before is None:
            expiry = life
        elif expiry is not None:
            expiry = None if life is None else max(life, expiry)
        if before is not None:
            both = joined(key, (None, value)) | joined(key, (None, before))
            value = Packed.of(both).to_portable()
        pipe.multi()
        pipe.set(packed_key(key), value, px=expiry)
        if _executed(pipe):
            return
    raise UnstableError(key)


def exchange(client: Any, key: str, old: int, new: int) -> None:
    """Have the bitmap under `key`, if it is packed and has `old`, have `new` instead.

    :raises UnreadableError: if it is damaged.
    """
    from .reading.packed import Packed

    for pipe, forms, expiry in _watched(client, key):
        bitmap = joined(key, forms)
        if forms[1] is None or old not in bitmap:
            return
        changed = Packed.of(bitmap).without([old]) | Packed.containing([new])
        pipe.multi()
        pipe.delete(key)
        pipe.set(packed_key(key), changed.to_portable(), px=expiry)
        if _executed(pipe):
            return
    raise UnstableError(key)


def clear(client: Any, bits: Mapping[str, Collection[int]]) -> None:
    """Clear bits of packed bitmaps, which stay packed. One that has no other bit goes.

    :param bits: key -> offsets; in a cluster, of one key.
    :raises UnreadableError: if a bitmap is damaged.
    """
    from .reading.packed import Packed

    keys = [*bits]
    both = [(key, packed_key(key)) for key in keys]
    for _ in range(_ATTEMPTS):
        with node_of(client, keys[0]).pipeline() as pipe:
            pipe.watch(*chain(*both))
            forms = replies(pipe, [both_forms(key) for key in keys])
            left = replies(pipe, [("PTTL", one) for pair in both for one in pair])
            pipe.multi()
            for key, form, lives in zip(keys, forms, _pairs(left), strict=True):
                if form[1] is None:  # it has been unpacked
                    continue
                bitmap = Packed.of(joined(key, form)).without(bits[key])
                pipe.delete(key, packed_key(key))
                if bitmap:
                    pipe.set(packed_key(key), bitmap.to_portable(), px=longest_life(lives))
            if _executed(pipe):
                return
    raise UnstableError(keys[0])


def _watched(
    client: Any, key: str
) -> Iterator[tuple[Any, tuple[bytes | None, bytes | None], int | None]]:
    """A pipeline that watches both forms of `key`, both forms, and in how many ms they expire."""
    if isinstance(client, RedisCluster):  # the keys of a transaction are on one node
        client = client.get_redis_connection(client.get_node_from_key(key))
    for _ in range(_ATTEMPTS):
        with client.pipeline() as pipe:
            pipe.watch(key, packed_key(key))
            raw, value = pipe.execute_command("MGET", key, packed_key(key), NEVER_DECODE=True)
            left = [pipe.pttl(one) for one in (key, packed_key(key))]
            yield pipe, (raw, value), longest_life(left)


def longest_life(left: Sequence[int]) -> int | None:
    """In how many ms a bitmap expires that is made of several; None: never.

    :param left: what PTTL says of each.
    """
    # -1: it never expires; -2: there is none.
    return None if -1 in left else max(1, *left)


def _pairs(left: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(left[::2], left[1::2], strict=True)


def _executed(pipe: Any) -> bool:
    """Whether nobody has changed what `pipe` watches."""
    try:
        pipe.execute()
    except redis.WatchError:
        return False
    return True

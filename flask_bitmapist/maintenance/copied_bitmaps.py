"""Bitmaps in a copy: bits that the target lacks are sent, merged there, and read back."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import redis
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import AskError, TryAgainError

from ..delivery.merging import STAGED
from ..packed_periods import PACKED_BEFORE, packed_key
from ..periods import KEY_PREFIX
from ..registry import text
from ..swapping import announce, longest_life, merge
from ..trip import Trip, node_of
from .copied import Copied
from .copied_events import Events
from .parts import in_sized_parts
from .sides import Side
from .stored import event_of

#: Bytes of bitmaps that are read in one round trip.
_BYTES = 8 * 2**20
#: Seconds that a bitmap waits on the target to be merged, should this process die.
_AGE = 60


class _Window(NamedTuple):
    """A stretch of the bytes of a bitmap."""

    #: Where it is on the source, and on the target.
    key: str
    target: str
    first: int
    size: int

    def reading(self, key: str) -> tuple[str, str, int, int]:
        return "GETRANGE", key, self.first, self.first + self.size - 1


class Bitmaps:
    """The bitmaps of both sides."""

    def __init__(self, source: Side, target: Side, events: Events, prefix: str) -> None:
        """:param prefix: how the keys of the source begin."""
        self._source, self._target = source, target
        self._events = events
        self._prefix = prefix

    def copy(self, held: Mapping[str, int], copied: Copied) -> None:
        """Copy the raw bitmaps under the keys `held`, which have so many bytes."""
        copied.bitmaps += len(held)
        copied.bytes += sum(held.values())
        written: set[str] = set()
        for part in in_sized_parts(self._windows(held), lambda one: one.size, _BYTES):
            written |= self._copy(part, copied)
        copied.written += len(written)
        copied.still_marked += len(written)

    def _windows(self, held: Mapping[str, int]) -> Iterator[_Window]:
        for key, size in held.items():
            target = KEY_PREFIX + key.removeprefix(self._prefix)
            for first in range(0, size, _BYTES):
                yield _Window(key, target, first, min(_BYTES, size - first))

    def _follow(self, keys: Iterable[str]) -> None:
        """Tell the target the events of `keys` and their ids, once their bits were read."""
        self._events.follow(str(event_of(key, self._prefix)) for key in keys)

    def _copy(self, windows: list[_Window], copied: Copied) -> set[str]:
        """Copy these stretches; returns the keys that lacked bits."""
        windows = self._fitting(windows, copied)
        asked = [one.reading(one.key) for one in windows] + [("PTTL", one.key) for one in windows]
        told = self._source.ask(asked)
        held = dict(zip(windows, told, strict=False))
        lives = dict(zip(windows, told[len(windows) :], strict=True))
        self._follow(one.key for one in windows)
        lacking = self._lacking(held, copied)
        if lacking:
            self._merge(lacking, lives)
            left = self._lacking({one: held[one] for one in lacking}, None)
            copied.unequal += sorted({one.target for one in left})
        return {one.key for one in lacking}

    def _fitting(self, windows: list[_Window], copied: Copied) -> list[_Window]:
        """Those of `windows` whose keys on the target hold nothing else than a bitmap."""
        lengths = self._target.lengths(one.target for one in windows)
        taken = {one.target for one, length in zip(windows, lengths, strict=True) if length is None}
        copied.unequal += sorted(taken.difference(copied.unequal))
        return [one for one in windows if one.target not in taken]

    def _lacking(
        self, held: Mapping[_Window, bytes], copied: Copied | None
    ) -> dict[_Window, bytes]:
        """The windows of `held` that have bits which the target lacks."""
        ours = self._target.ask([one.reading(one.target) for one in held])
        lacking = {}
        for (window, source), target in zip(held.items(), ours, strict=True):
            wanted, found = int.from_bytes(source), int.from_bytes(target.ljust(len(source), b"\0"))
            if missing := wanted & ~found:
                lacking[window] = source
            if copied is not None:
                copied.source_bits += wanted.bit_count()
                copied.target_bits += (found | missing).bit_count()
        return lacking

    def _merge(self, lacking: Mapping[_Window, bytes], lives: Mapping[_Window, int]) -> None:
        client = self._target.client
        left = self._target.ask([("PTTL", one.target) for one in lacking])
        staged = {one: _staged(client, one.target) for one in lacking}
        pipe = Trip(client)
        for one, bits in lacking.items():
            # The expiry comes first: the connection may break after any command.
            pipe.execute_command("SET", staged[one], "", "EX", _AGE)
            pipe.execute_command("SETRANGE", staged[one], one.first, bits)
        self._target.write(pipe)
        ends = {
            one: longest_life((lives[one], before))
            for one, before in zip(lacking, left, strict=True)
        }
        if isinstance(client, RedisCluster):  # a transaction has the keys of one slot
            for one, name in staged.items():
                self._target.patiently(partial(_merge_one, client, one.target, name, ends[one]))
            return
        pipe = Trip(client)
        for one, name in staged.items():
            # BITOP drops the expiry.
            merging: list[tuple[Any, ...]] = [("BITOP", "OR", one.target, one.target, name)]
            if (life := ends[one]) is not None:
                merging = [("MULTI",), *merging, ("PEXPIRE", one.target, life), ("EXEC",)]
            for command in (*merging, ("UNLINK", name)):
                pipe.execute_command(*command)
        self._target.write(pipe)

    def copy_packed(self, keys: Sequence[str], copied: Copied) -> None:
        """Copy the packed bitmaps of the periods under `keys`."""
        from ..reading.both import joined

        asked = [(name, packed_key(key)) for key in keys for name in ("GET", "PTTL")]
        told = self._source.ask(asked)
        self._follow(keys)
        ours = self._target.ask([("GET", packed_key(key)) for key in keys])
        for key, value, life, held in zip(keys, told[::2], told[1::2], ours, strict=True):
            if value is None:  # it has been unpacked
                continue
            source, target = joined(key, (None, value)), joined(key, (None, held))
            copied.bitmaps += 1
            copied.bytes += len(value)
            copied.source_bits += len(source)
            copied.target_bits += len(source | target)
            if not source - target:
                continue
            self._allow_packed()
            left = None if life == -1 else max(life, 1)
            self._target.patiently(partial(merge, self._target.client, key, value, left))
            copied.written += 1
            copied.still_marked += 1
            (now,) = self._target.ask([("GET", packed_key(key))])
            if source - joined(key, (None, now)):
                copied.unequal.append(key)

    def _allow_packed(self) -> None:
        (before,) = self._source.ask([("GET", PACKED_BEFORE)])
        if before is not None:
            day = date.fromisoformat(text(before))
            self._target.patiently(lambda: announce(self._target.client, day))


def _staged(client: Any, key: str) -> str:
    """A name for what is to be merged into `key`; in a cluster, in the slot of `key`."""
    name = f"{STAGED}{secrets.token_hex(8)}"
    if "{" not in key and "}" not in key:
        return f"{name}:{{{key}}}"
    if not isinstance(client, RedisCluster):
        return name
    slot = key_slot(key.encode())
    return next(f"{name}:{{{tag}}}" for tag in count() if key_slot(str(tag).encode()) == slot)


def _merge_one(client: Any, key: str, staged: str, life: int | None) -> None:
    """:raises redis.RedisError: also if the slot of `key` is being moved: to be tried again."""
    try:
        with node_of(client, key).pipeline(transaction=True) as pipe:
            pipe.bitop("OR", key, key, staged)
            if life is not None:
                pipe.pexpire(key, life)
            pipe.unlink(staged)
            pipe.execute()
    except (AskError, TryAgainError) as error:  # MOVED is an ASK
        client.nodes_manager.initialize()
        raise redis.ConnectionError(f"the slot of {key} is being moved to another node") from error

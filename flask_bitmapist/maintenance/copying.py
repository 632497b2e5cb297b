"""Copies all bitmaps from one server to another, while both are in use.

Bits are added to what the target has, and nothing is taken away, so a copy can be stopped at any
moment and run again. What Flask-Bitmapist keeps beside the bitmaps is copied too: which events
there are, the ids behind mapped offsets, packed periods, who has been erased, saved boards and
annotations. Mapped ids keep their offsets.

1. Look at what there is (`Copy.survey`), and check that both sides fit together.
2. Go through the keys. Bits that the target lacks are sent, merged there, and read back.
3. Repeat that until a pass finds nothing missing: the source may have been marked meanwhile, or
   slots of its cluster have moved.

The modules ``copied_*`` have a part of it each.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from ..annotations import ANNOTATIONS
from ..cluster import have_moved
from ..config import Settings
from ..dimensions import Slots
from ..ids import MAPPED
from ..packed_periods import keys_of, packed_key, packed_keys
from ..periods import KEY_PREFIX, local
from ..registry import Registry
from ..saved import BOARDS
from ..trip import Trip
from .copied import Copied, Survey
from .copied_bitmaps import Bitmaps
from .copied_events import Events
from .copied_people import (
    last_erasure,
    take_erasures,
    take_promotions,
    take_wishes,
    who_would_come_back,
)
from .copied_values import settle_values, take_values
from .parts import in_parts
from .runs import StoppedError
from .sides import FaultError, Side
from .stored import event_of, is_operation

__all__ = ["Copied", "Copy", "Survey"]

#: Keys asked about in one round trip; packed bitmaps are read whole.
_KEYS, _PACKED_KEYS = 1_000, 100
#: How often the keys are gone through, while the source is being marked.
_PASSES = 3
#: Seconds for which the target keeps what tells it from the source, should this process die.
_AGE = 60


class Copy:
    """A copy of all bitmaps from one server to another."""

    def __init__(
        self,
        source: Any,
        target: Any,
        settings: Settings,
        *,
        prefix: str = KEY_PREFIX,
        ignores_erasures: bool = False,
    ) -> None:
        """
        :param source: a client of the server to read from.
        :param target: a client of the server to write to, which waits.
        :param settings: those of the application.
        :param prefix: how the keys of the source begin; those of bitmapist4 with ``bitmapist_``.
        :param ignores_erasures: copy although persons who were erased from the target may be on
            the source.
        """
        self._source, self._target = Side("the source", source), Side("the target", target)
        self._settings = settings
        self._prefix = prefix
        self._ignores_erasures = ignores_erasures
        self._registry = Registry(str(settings.timezone))
        self._events = Events(
            self._source,
            self._target,
            self._registry,
            settings.timezone,
            are_ours=self._is_ours,
        )
        self._bitmaps = Bitmaps(self._source, self._target, self._events, prefix)

    @property
    def _is_ours(self) -> bool:
        """Whether the source may have more than bitmaps."""
        return self._prefix == KEY_PREFIX

    def survey(self) -> Survey:
        """Look at what there is, and whether it can be copied. Nothing is written.

        :raises ValueError: if both servers do not fit together.
        :raises StoppedError: if one of them does not answer.
        """
        found = Survey()
        with self._stopping(found):
            for keys, sizes in self._sized(self._raw_keys(), lambda key: key):
                for key, size in zip(keys, sizes, strict=True):
                    event = self._event(key)
                    if event is None or size is None:
                        found.skipped += not is_operation(key, self._prefix)
                    elif size:
                        found.bitmaps += 1
                        found.bytes += size
                        found.events.add(event)
            for keys, sizes in self._sized(self._packed_keys(), packed_key):
                for key, size in zip(keys, sizes, strict=True):
                    found.bitmaps += 1
                    found.packed += 1
                    found.bytes += size or 0
                    found.events.add(str(self._event(key)))
            self._check(found.events)
        return found

    def run(self, watch: Callable[[int], None] = lambda keys: None) -> Copied:
        """Copy, until a pass finds that the target lacks nothing.

        :param watch: called now and then with the number of keys gone through since.
        :raises ValueError: if both servers do not fit together.
        :raises StoppedError: if one of them does not answer, or a key is pressed: what has been
            copied stays, and the next run goes on.
        """
        copied = Copied()
        with self._stopping(copied):
            self._check_not_same()
            self._check(())
            last = self._last_erasure()
            # Bits that an earlier copy has brought may be those of persons erased since.
            copied.erased_meanwhile = self._take_erasures() and self._events.are_known
            self._events.admit(self._events.kinds)
            sides = (self._source, self._target)
            slots = take_values(*sides, self._registry) if self._is_ours else Slots({})
            for copied.passes in range(1, _PASSES + 1):
                copied.bitmaps = copied.bytes = copied.skipped = copied.still_marked = 0
                copied.source_bits = copied.target_bits = 0
                copied.unequal.clear()
                before = self._source.slots()
                self._pass(copied, watch)
                copied.slots_moved = have_moved(before, self._source.slots())
                if not copied.still_marked and not copied.slots_moved:
                    break
            now = local(None, self._settings.timezone)
            self._take_people(now)
            self._target.patiently(lambda: self._registry.reindex(self._target.client, now))
            settle_values(*sides, slots, now.date())
            self._take_saved()
            took = self._take_erasures()
            copied.erased_meanwhile |= took or last != self._last_erasure()
        return copied

    @contextmanager
    def _stopping(self, counts: Any) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as error:
            raise StoppedError("Interrupted", None, counts) from error
        except FaultError as error:
            raise StoppedError(str(error), None, counts) from None

    # What is to be copied

    def _raw_keys(self) -> Iterator[str]:
        return self._source.keys(lambda client: keys_of(client, self._prefix))

    def _packed_keys(self) -> Iterator[str]:
        return self._source.keys(packed_keys) if self._is_ours else iter(())

    def _sized(
        self, keys: Iterator[str], stored: Callable[[str], str]
    ) -> Iterator[tuple[list[str], list[int | None]]]:
        for batch in in_parts(keys, _KEYS):
            listed = [*dict.fromkeys(batch)]
            yield listed, self._source.lengths(map(stored, listed))

    def _event(self, key: str) -> str | None:
        return event_of(key, self._prefix)

    # What must hold before

    def _check_not_same(self) -> None:
        """:raises ValueError: if the source is the target."""
        if not self._is_ours:  # other keys may be on the same server
            return
        name = f"flask_bitmapist:copy:{secrets.token_hex(8)}"
        self._target.patiently(lambda: self._target.client.set(name, "", ex=_AGE))
        (is_same,) = self._source.ask([("EXISTS", name)])
        self._target.patiently(lambda: self._target.client.delete(name))
        if is_same:
            raise ValueError("both are the same server: there is nothing to copy")

    def _check(self, events: Iterable[str]) -> None:
        """:raises ValueError: if the two servers do not fit together, as far as is known."""
        self._events.check(events)
        if self._ignores_erasures:
            return
        back = who_would_come_back(self._source if self._is_ours else None, self._target)
        if back:
            raise ValueError(
                f"{back} erased persons of the target may be on the source, and would come "
                "back: add --ignore-erasures, and erase them again afterwards"
            )

    # People

    def _last_erasure(self) -> bytes | None:
        return last_erasure(self._source) if self._is_ours else None

    def _take_erasures(self) -> bool:
        return self._is_ours and take_erasures(self._source, self._target, self._events.maps)

    def _take_people(self, now: datetime) -> None:
        if MAPPED in self._events.maps:
            since = (now - self._settings.visitor_age).date()
            take_promotions(self._source, self._target, since)
        if self._is_ours:
            take_wishes(self._source, self._target)

    # What people have saved

    def _take_saved(self) -> None:
        """Have the target keep the boards and annotations of the source, beside its own."""
        if not self._is_ours:
            return
        client = self._source.client
        boards = self._source.patiently(lambda: client.hgetall(BOARDS))
        noted = self._source.patiently(lambda: client.zrange(ANNOTATIONS, 0, -1, withscores=True))
        pipe = Trip(self._target.client)
        for id_, board in boards.items():
            pipe.execute_command("HSETNX", BOARDS, id_, board)
        for annotation, day in noted:
            pipe.execute_command("ZADD", ANNOTATIONS, int(day), annotation)
        self._target.write(pipe)

    # Bitmaps

    def _pass(self, copied: Copied, watch: Callable[[int], None]) -> None:
        for keys, sizes in self._sized(self._raw_keys(), lambda key: key):
            held: dict[str, int] = {}
            for key, size in zip(keys, sizes, strict=True):
                if size and self._event(key) is not None:
                    held[key] = size
                elif not is_operation(key, self._prefix) and size != 0:
                    copied.skipped += 1
            self._bitmaps.copy(held, copied)
            watch(len(keys))
        for keys in in_parts(self._packed_keys(), _PACKED_KEYS):
            self._bitmaps.copy_packed([*dict.fromkeys(keys)], copied)
            watch(len(keys))

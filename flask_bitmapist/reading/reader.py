"""Reader: what one application's reports know about its events and users. It only reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import date, datetime
from typing import Any

from ..erased import ERASED, SALT, Erasure, digest
from ..id_map import IdMap
from ..ids import PLAIN, normal_form
from ..marks import is_name
from ..packed_periods import is_packable, packed_key
from ..registry import Catalogue, Known, Registry, text
from ..server import Server
from ..trip import replies

# The last bit of a Redis string, which holds at most 512 MiB. Asking for a later one is an error.
_BITS = 2**32


class Reader:
    """Names, kinds, first days and offsets, read from one application's server."""

    def __init__(
        self,
        server: Server,
        registry: Registry,
        id_map: IdMap,
        clock: Callable[[], datetime],
        *,
        maps_ints: bool = False,
        catch_up: Callable[[], None] = lambda: None,
    ) -> None:
        """
        :param clock: the moment that counts as now, naive in the application's calendar.
        :param catch_up: delivers the marks of this process that are still queued.
        :param maps_ints: whether the application maps ints too (``BITMAPIST_ID_MAP="always"``).
        """
        self._server = server
        self.now = clock
        self.maps_ints = maps_ints
        self._registry = registry
        self._id_map = id_map
        self._catch_up = catch_up

    @property
    def redis(self) -> Any:
        """The redis client to read with; it may lead to a replica.

        :raises UnfitServerError: if the server cannot hold the data.
        """
        self._catch_up()
        return self._server.reading

    def delete(self, key: str) -> None:
        """Delete the bitmap `key`, packed or not, for good, where it is written."""
        self._catch_up()
        self._server.patient.delete(key, *([packed_key(key)] if is_packable(key) else []))

    @property
    def has_compared_calendar(self) -> bool:
        """Whether this process has looked up the time zone of the server's days."""
        return self._registry.has_compared_calendar

    def event_names(self) -> list[str]:
        """The names of all events on the server, sorted, bitmapist's own included."""
        return self._registry.names(self.redis)

    def catalogue(self) -> Catalogue:
        """The names of all events, and those of all flags, bitmapist's own included, sorted."""
        return self.known().catalogue

    def known(self, *, scanned: bool = True) -> Known:
        """All events and flags, bitmapist's own included, with the kinds of their ids. Reads only.

        bitmapist's names may be any text. Names that no report accepts are left out.

        :param scanned: False leaves out bitmapist's own, whose ids are plain.
        """
        known = self._registry.known(self.redis, scanned=scanned)
        return known._replace(
            events={name: since for name, since in known.events.items() if is_name(name)},
            flags={name: kind for name, kind in known.flags.items() if is_name(name)},
        )

    def kind(self, names: Iterable[str]) -> str:
        """The kind of ids that the events and flags `names` share.

        :raises ValueError: if their ids are of different kinds.
        """
        return self._registry.shared_kind(self.redis, names)

    def registered_kind(self, name: str) -> str | None:
        """The kind of ids of `name`; None if it is not registered."""
        return self._registry.kind_of(self.redis, name)

    def kind_and_reply(self, names: Iterable[str], command: tuple[Any, ...]) -> tuple[str, Any]:
        """The `kind` of `names`, and the reply to a reading `command`, in one round trip.

        The reply is not decoded.

        :raises ValueError: if the ids of `names` are of different kinds.
        """
        return self._registry.kind_and_reply(self.redis, names, command)

    def kind_and_first_days(
        self, names: Iterable[str], events: Iterable[str]
    ) -> tuple[str, dict[str, date]]:
        """The `kind` of `names`, and the first day of each of `events`, as `known_of`."""
        listed = [*events]
        known, _ = self.known_of(names, listed)
        days = {name: known.events[name].first_day for name in listed if name in known.events}
        return known.shared_kind(names), days

    def known_of(
        self,
        names: Iterable[str],
        events: Iterable[str],
        *,
        with_dimensions: bool = False,
        keys: Sequence[str] = (),
    ) -> tuple[Known, frozenset[str]]:
        """What is `known` of some names, and which of `keys` exist, in one round trip.

        :param events: those whose first days are asked for, in one more if only others have marked
            any of them.
        :param with_dimensions: also the values of all dimensions.
        """
        return self._registry.known_of(
            self.redis, names, events, self.now, with_dimensions=with_dimensions, keys=keys
        )

    def with_others(
        self, known: Known, names: Iterable[str], *, keys: Sequence[str] = ()
    ) -> tuple[Known, frozenset[str]]:
        """`known`, with those of `names` that only others have marked, and which of `keys` exist.

        One round trip, if there is anything to be asked.
        """
        return self._registry.with_others(self.redis, known, names, self.now, keys=keys)

    def offset_of(self, identifier: object, kind: str) -> int | None:
        """The bit of `identifier` in the events of `kind`; None if it never had one. Reads only.

        :raises UnusableIdError: for something that identifies nobody.
        """
        return self.offsets_of(identifier, {kind})[kind]

    def offsets_of(self, identifier: object, kinds: Collection[str]) -> dict[str, int | None]:
        """The bit of `identifier` in the events of each of `kinds`, in one round trip.

        None where it never had one. Errors are those of `offset_of`.
        """
        form = normal_form(identifier)
        offsets: dict[str, int | None] = dict.fromkeys(kinds)
        if PLAIN in offsets and isinstance(form, int) and form < _BITS:
            offsets[PLAIN] = form
        mapped = [kind for kind in kinds if kind != PLAIN]
        return offsets | (self._id_map.lookup(self.redis, str(form), mapped) if mapped else {})

    def offsets_of_each(
        self, forms: Sequence[int | str], kinds: Collection[str]
    ) -> dict[str, dict[int | str, int]]:
        """By kind, the bits of those of several normal forms that have one in its events.

        One round trip for each kind but the plain one. Errors are those of `ids_at`.
        """
        texts = {str(form): form for form in forms}
        offsets: dict[str, dict[int | str, int]] = {}
        for kind in sorted(kinds):
            if kind == PLAIN:
                ints = (form for form in forms if isinstance(form, int) and form < _BITS)
                offsets[kind] = {form: form for form in ints}
            else:
                found = self.known_offsets(texts, kind)
                offsets[kind] = {texts[text]: offset for text, offset in found.items()}
        return offsets

    def erased_at(self, identifier: object) -> datetime | None:
        """When `identifier` was erased for the last time, in UTC; None: never. Reads only.

        :raises UnusableIdError: for something that identifies nobody.
        """
        form = normal_form(identifier)
        ((salt,),) = replies(self.redis, [("HMGET", ERASED, SALT)])
        if salt is None:
            return None
        ((held,),) = replies(self.redis, [("HMGET", ERASED, digest(text(salt), form))])
        return None if held is None else Erasure.loads(held).when

    def known_offsets(self, texts: Collection[str], kind: str) -> dict[str, int]:
        """The offsets of those of `texts` that have one in the map of `kind`. Reads only."""
        return self._id_map.find(self.redis, kind, texts)

    def ids_at(self, offsets: Iterable[int], kind: str) -> list[str | None]:
        """The ids of the mapped `kind` behind `offsets`. Reads only."""
        return self._id_map.ids(self.redis, kind, offsets)

    def identifiers_at(self, offsets: Iterable[int], kind: str) -> list[int | str]:
        """The ids of `kind` behind `offsets`, as the application knows them."""
        if kind == PLAIN:
            return [*offsets]
        texts = [text for text in self.ids_at(offsets, kind) if text is not None]
        # Where ints are mapped, an int and its decimal text are one id, which comes back as the
        # int.
        return [*map(normal_form, texts)] if self.maps_ints else [*texts]


class PlainReader(Reader):
    """Reads a server that others write. All its ids are plain: bitmapist has no other kind."""

    def kind(self, names: Iterable[str]) -> str:
        return PLAIN

    def kind_and_reply(self, names: Iterable[str], command: tuple[Any, ...]) -> tuple[str, Any]:
        return PLAIN, replies(self.redis, [command])[0]

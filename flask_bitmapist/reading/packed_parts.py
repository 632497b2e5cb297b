"""Reads of packed bitmaps what is needed: where their containers are, and then some of these.

A packed form may be swapped for another between the two trips. What is read of it by the second one
counts only if its head is still the same; else both forms are read whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..packed_periods import packed_key
from .bitmap import WORD_BYTES, Bitmap
from .both import both_forms, joined
from .commands import batches, pipelined, read
from .portable import CONTAINER_BYTES, Head, Place, TooShortError, octet_in, place_of

#: Words of a bitmap for which there is one container.
CONTAINER_WORDS = CONTAINER_BYTES // WORD_BYTES
#: How much is read to see the head: enough for those of 12 million ids.
_HEAD_BYTES = 1_536
#: Likewise to find one container: of those after it some need not be known.
_ENTRY_BYTES, _ENTRIES = 8, 8


class Form(NamedTuple):
    """The packed form of a bitmap.

    :ivar key: of the bitmap.
    :ivar begun: how it begins: its head, or all of a short one.
    :ivar size: how many bytes it has.
    """

    key: str
    begun: bytes
    size: int
    head: Head

    @property
    def words(self) -> tuple[int, int]:
        """Of the bitmap, the words outside which there is nobody."""
        numbers = self.head.numbers
        return int(numbers[0]) * CONTAINER_WORDS, (int(numbers[-1]) + 1) * CONTAINER_WORDS

    @property
    def users(self) -> int:
        return int(self.head.sizes.sum())


class Cut(NamedTuple):
    """Some containers of a packed form.

    :ivar containers: their indices; at least one.
    :ivar since: the number of the container that becomes the first one.
    """

    form: Form
    containers: range
    since: int

    def commands(self) -> list[tuple[str, ...]]:
        """What reads them; nothing if the whole form has been read already."""
        form, key = self.form, packed_key(self.form.key)
        if len(form.begun) >= form.size:
            return []
        if self._is_all:
            return [("GET", key)]
        begin, end = self._place
        # The head last: if it is the old one then, so was what is read before.
        return [("GETRANGE", key, str(begin), str(end - 1)), _first(key, form.head.length)]

    def made(self, found: Sequence[bytes | None]) -> Bitmap | None:
        """The set in the containers; None if the form has changed, or cannot be read.

        :param found: what `commands` returned.
        """
        value = self._portable(found)
        if value is None:
            return None
        try:
            from .packed import Packed

            return Packed.from_portable(value)
        except (ImportError, ValueError):
            return None

    def _portable(self, found: Sequence[bytes | None]) -> bytes | None:
        form, (begin, end) = self.form, self._place
        if self._is_all:
            return found[0] if found else form.begun
        body, head = found or (form.begun[begin:end], form.begun)
        if body is None or len(body) < end - begin or head != form.begun:
            return None
        return form.head.cut(self.containers, body, self.since)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Those of the containers."""
        return self.form.head.numbers[self.containers.start : self.containers.stop]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The bytes of each container."""
        places, (first, stop) = self.form.head.places, (self.containers.start, self.containers.stop)
        return places[first + 1 : stop + 1] - places[first:stop]

    @property
    def _is_all(self) -> bool:
        return not self.since and len(self.containers) == len(self.form.head.numbers)

    @property
    def _place(self) -> tuple[int, int]:
        places = self.form.head.places
        return int(places[self.containers.start]), int(places[self.containers.stop])


def beginning(key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The commands that tell how long the packed form of `key` is, and how it begins."""
    stored = packed_key(key)
    return ("STRLEN", stored), _first(stored, _HEAD_BYTES)


def _first(stored: str, length: int) -> tuple[str, ...]:
    """The command that reads the first bytes of what is stored."""
    return "GETRANGE", stored, "0", str(length - 1)


def forms_of(
    client: Any, begun: Mapping[str, tuple[int, bytes]]
) -> tuple[dict[str, Form], dict[str, Bitmap]]:
    """The packed forms, and bitmaps that had to be read whole, in both forms.

    :param begun: what `beginning` returned for each key. No further trip if heads are short.
    :raises UnreadableError: naming the key, if a form is damaged.
    """
    forms: dict[str, Form] = {}
    longer: dict[str, int] = {}
    whole: list[str] = []

    def see(key: str, size: int, value: bytes) -> None:
        try:
            head = Head.of(value, size)
            begun = value if len(value) >= size else value[: head.length]
            forms[key] = Form(key, begun, size, head)
        except TooShortError as error:
            longer[key] = error.length
        except ValueError:
            whole.append(key)

    for key, (size, value) in begun.items():
        if size or value:
            see(key, size, value)
    asked, longer = longer, {}
    commands = [_first(packed_key(key), length) for key, length in asked.items()]
    for key, value in zip(asked, read(client, commands), strict=True):
        see(key, begun[key][0], value)
    return forms, read_whole(client, [*whole, *longer])


def read_whole(client: Any, keys: Sequence[str]) -> dict[str, Bitmap]:
    """The bitmaps under `keys`, in both forms at one moment, in one round trip.

    :raises UnreadableError: naming the key, if a form is damaged.
    """
    replies = read(client, [*map(both_forms, keys)])
    return {key: joined(key, forms) for key, forms in zip(keys, replies, strict=True)}


def octets(client: Any, places: Sequence[tuple[str, int]]) -> list[bytes]:
    """The bytes of bitmaps that may be packed: of each key the one with that index.

    In two round trips for many of them, which read one container of each; in up to four where
    heads are long, or where a form has changed meanwhile.
    """
    return [octet for batch in batches(places) for octet in _octets(client, batch)]


def _octets(client: Any, places: Sequence[tuple[str, int]]) -> list[bytes]:
    """The `octets` at as many places as are looked up together."""
    search = _Search(places, _beginnings(client, places))
    search.look_longer(client)
    search.look_inside(client)
    search.read_whole(client)
    return search.found


def _beginnings(client: Any, places: Sequence[tuple[str, int]]) -> list[tuple[bytes, int, bytes]]:
    """Of each place the raw byte, the size of the packed form, and how that begins."""
    commands: list[tuple[str, ...]] = []
    for key, byte in places:
        size, (_, stored, *_) = beginning(key)
        entries = byte // CONTAINER_BYTES + _ENTRIES
        # The raw byte in between: whichever way it is swapped meanwhile, one of the three tells.
        commands += [size, ("GETRANGE", key, str(byte), str(byte))]
        commands.append(_first(stored, 8 + _ENTRY_BYTES * entries))
    told = pipelined(client, commands)
    return [*zip(told[1::3], told[::3], told[2::3], strict=True)]


class _Search:
    """Looks for bytes of bitmaps that may be packed, each time for those not found so far."""

    def __init__(
        self, places: Sequence[tuple[str, int]], begun: Sequence[tuple[bytes, int, bytes]]
    ) -> None:
        self._places = places
        self.found = [raw for raw, _, _ in begun]
        #: Index -> how many bytes of the packed form are needed to see where the byte is.
        self._longer: dict[int, int] = {}
        #: Index -> where it is, and how the packed form begins.
        self._inside: dict[int, tuple[Place, bytes]] = {}
        self._whole: list[int] = []
        self._sizes = [size for _, size, _ in begun]
        for index, (_, size, value) in enumerate(begun):
            if size or value:
                self._see(index, value)

    def _see(self, index: int, value: bytes) -> None:
        size, byte = self._sizes[index], self._places[index][1]
        try:
            place = place_of(value, size, byte)
            if len(value) >= size or place.kind == "none":
                self._add(index, octet_in(value[place.begin : place.end], place, byte))
            else:
                self._inside[index] = place, value
        except TooShortError as error:
            self._longer[index] = error.length
        except ValueError:
            self._whole.append(index)

    def _add(self, index: int, octet: bytes) -> None:
        raw = self.found[index]
        self.found[index] = bytes([raw[0] | octet[0]]) if raw and octet else raw or octet

    def _stored(self, index: int) -> str:
        return packed_key(self._places[index][0])

    def look_longer(self, client: Any) -> None:
        asked, self._longer = self._longer, {}
        commands = [_first(self._stored(i), length) for i, length in asked.items()]
        for index, value in zip(asked, read(client, commands), strict=True):
            self._see(index, value)
        self._whole += self._longer

    def look_inside(self, client: Any) -> None:
        commands: list[tuple[str, ...]] = []
        for index, (place, begun) in self._inside.items():
            stored = self._stored(index)
            commands.append(("GETRANGE", stored, str(place.begin), str(place.end - 1)))
            commands.append(_first(stored, len(begun)))
        told = iter(read(client, commands))
        for index, (place, begun) in self._inside.items():
            inside, again = next(told), next(told)
            try:
                octet = octet_in(inside, place, self._places[index][1])
            except ValueError:
                again = None
            if again == begun:
                self._add(index, octet)
            else:
                self._whole.append(index)

    def read_whole(self, client: Any) -> None:
        keys = [self._places[index][0] for index in self._whole]
        bitmaps = read_whole(client, [*dict.fromkeys(keys)])
        for index, key in zip(self._whole, keys, strict=True):
            self.found[index] = bitmaps[key].octet(self._places[index][1])

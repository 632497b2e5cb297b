"""The stored form of ids, and the records of the index that finds their offsets.

The index is spread over buckets, whose number grows with that of ids, one at a time: linear hashing
(Litwin 1980). So an id is looked up in one bucket, and no growth moves more than one. A record is
the digest of an id and its offset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha1

#: Bytes of a digest. Two ids with the same one would share a bit: the chance that there are such
#: two among ten million is 1 : 2 * 10^10, among 2^27, as many as there may be, 1 : 10^8.
DIGEST = 10
#: Bytes of a record: the digest and the offset.
RECORD = DIGEST + 4
#: Records in a bucket, on average: with fewer the map takes more memory, more take longer to read.
LOAD = 24

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_OBJECT_ID = re.compile(r"[0-9a-f]{24}", re.ASCII)
#: Their lengths in bytes. A text of the same length is told apart by a first byte that no text has.
_UUID_BYTES, _OBJECT_ID_BYTES = 16, 12
_TEXT = b"\xff"
#: What replaces an erased id begins with this, followed by its offset: no text has these bytes.
_NOBODY = b"\xff\xff"


def stored(id_: str) -> bytes:
    """`id_` in as few bytes as it takes: a UUID in 16, an ObjectId in 12, another text in UTF-8.

    >>> stored("12345678-1234-5678-1234-567812345678")
    b'\\x124Vx\\x124Vx\\x124Vx\\x124Vx'
    """
    length = len(id_)
    if length == 36 and _UUID.fullmatch(id_):
        return bytes.fromhex(id_.replace("-", ""))
    if length == 24 and _OBJECT_ID.fullmatch(id_):
        return bytes.fromhex(id_)
    text = id_.encode()
    return _TEXT + text if len(text) in (_UUID_BYTES, _OBJECT_ID_BYTES) else text


def nobody(offset: int) -> bytes:
    """What replaces an erased id, which had `offset`."""
    return _NOBODY + offset.to_bytes(4)


def restored(value: bytes) -> str | None:
    """The id of which `value` is the `stored` form; None: it has been erased."""
    length = len(value)
    if length == _UUID_BYTES:
        text = value.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    if length == _OBJECT_ID_BYTES:
        return value.hex()
    return None if value.startswith(_NOBODY) else value.removeprefix(_TEXT).decode()


#: An id in its `stored` form, and its digest.
Entry = tuple[bytes, bytes]


def entry(value: bytes) -> Entry:
    """The entry of an id whose `stored` form is `value`."""
    return value, sha1(value, usedforsecurity=False).digest()[:DIGEST]


def buckets(digests: Iterable[bytes], size: int) -> Iterator[int]:
    """The bucket of each of `digests` in an index of `size` ids."""
    count, span = _extent(size)
    for each in digests:
        number = int.from_bytes(each[:4]) % span
        yield number if number < count else number - span // 2


def offset_in(records: bytes | None, wanted: bytes) -> int | None:
    """The offset that the `records` of a bucket give the digest `wanted`; None: it is not there."""
    if records is None:
        return None
    at = records.find(wanted)
    while at % RECORD:  # it is not at the beginning of a record; -1: it was not found
        if at < 0:
            return None
        at = records.find(wanted, at + 1)
    return int.from_bytes(records[at + DIGEST : at + RECORD])


def without(records: bytes, wanted: bytes) -> bytes:
    """The `records` of a bucket without that of the digest `wanted`."""
    listed = (records[at : at + RECORD] for at in range(0, len(records), RECORD))
    return b"".join(record for record in listed if not record.startswith(wanted))


def with_record(records: bytes, digest: bytes, offset: int) -> bytes:
    """The `records` of a bucket with one more."""
    return records + digest + offset.to_bytes(4)


class GrowingIndex:
    """The part of an index that changes when it takes more ids."""

    def __init__(self, size: int, held: Mapping[int, bytes]) -> None:
        """
        :param size: how many ids it has.
        :param held: the buckets that `affected` names, as they are.
        """
        self.size = size
        self._held = dict(held)
        #: The buckets that have changed, as they are now.
        self.changed: dict[int, bytes] = {}

    @staticmethod
    def affected(digests: Iterable[bytes], size: int) -> set[int]:
        """The buckets that may change when an index of `size` ids takes `digests`."""
        listed = [*digests]
        count, later = _extent(size)[0], _extent(size + len(listed))[0]
        return {*buckets(listed, size), *map(_source, range(count, later))}

    def take(self, entries: Iterable[Entry]) -> tuple[list[int], list[bytes]]:
        """The offset of each of `entries`, and the ids that are new."""
        offsets, new = [], []
        for id_, wanted in entries:
            (number,) = buckets([wanted], self.size)
            offset = offset_in(self._records(number), wanted)
            if offset is None:
                offset = self._add(wanted, number)
                new.append(id_)
            offsets.append(offset)
        return offsets, new

    def _add(self, new: bytes, number: int) -> int:
        """Give the digest `new`, which belongs in the bucket `number`, the next offset."""
        offset = self.size
        self.changed[number] = with_record(self._records(number), new, offset)
        self.size += 1
        count = _extent(offset)[0]
        if _extent(self.size)[0] > count:
            self._split(_source(count))
        return offset

    def _records(self, number: int) -> bytes:
        return self.changed.get(number, self._held.get(number, b""))

    def _split(self, source: int) -> None:
        """Move those records of the bucket `source` that belong to the newest one."""
        records = self._records(source)
        parts: dict[int, list[bytes]] = {source: [], _extent(self.size)[0] - 1: []}
        listed = [records[at : at + RECORD] for at in range(0, len(records), RECORD)]
        for record, number in zip(listed, buckets(listed, self.size), strict=True):
            parts[number].append(record)
        self.changed |= {number: b"".join(part) for number, part in parts.items()}


def _extent(size: int) -> tuple[int, int]:
    """How many buckets an index of `size` ids has, and the power of two that is not below that."""
    count = size // LOAD + 1
    return count, 1 << (count - 1).bit_length()


def _source(number: int) -> int:
    """The bucket whose records the bucket `number` shares when it begins."""
    return number - (1 << (number.bit_length() - 1))

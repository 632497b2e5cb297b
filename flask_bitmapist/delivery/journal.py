"""The journal: a copy of the queue in a memory-mapped file, which outlives the process.

The kernel keeps what a process has written to a mapped file, whether it ends by SIGKILL, by
``os._exit`` or by a signal that nobody handles; only a crash of the machine takes it. To write a
record costs no system call.

The file has two pages, of which one is written to. Before the queue is delivered, the other one
takes over (`turn`); after it, the first one is cleared. Nothing is lost in between, without a lock:
whoever queues a mark writes it to the page, puts it into the queue, and then looks whether that
page is still the one to be written to. If not, it may have been cleared before the mark was in the
queue, so the mark is written to the present page too. Each turn makes a new `Page` object, so that
a page which was there before does not pass for the same. A mark that stands in the journal although
it was delivered is harmless: it sets its bit once more. Numbers of deeds are used once in the life
of a journal: a record that comes late, to a page that was cleared meanwhile, names none of that
page's deeds, and is passed over.

The owner locks its file. Whoever can lock the file of another process knows that this one is dead,
and adopts its marks.
"""

from __future__ import annotations

import glob
import json
import logging
import mmap
import os
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from struct import Struct
from typing import Any
from uuid import uuid4
from zlib import crc32

from ..marks import Deed, Settled, Who
from .own_files import ensure_own
from .spool import Spool, SpoolError, packed, unpacked

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("flask_bitmapist")

#: Bytes of a page: about 130,000 plain marks.
_SIZE = 2**20
#: Behind the pages: whose marks these are, as JSON.
_OWNER = 4 * 2**10
_NOTHING = bytes(_SIZE)
#: Bytes of a page with little on it: about 2,000 plain marks.
_SMALL = 16 * 2**10
#: A plain id and the number of a deed; or what follows: the length of a text, and whose it is.
#: Eight bytes are written at once: no process is killed half-way through them.
_RECORD = Struct("<II")
#: The sum of a text (CRC-32), which tells whether all of it was written.
_SUM = Struct("<I")
#: The number of the page, which grows with each turn.
_TURN = Struct("<Q")
#: Where the records of marks begin. Before them is when these were made at the earliest.
_FIRST = _TURN.size + _RECORD.size
#: Added to the number of a deed: the text is an id.
_TEXT = 2**31
#: Instead of the number of a deed: the text is JSON with the deed and its number, or with marks.
_DEED, _MARKS = 2**32 - 2, 2**32 - 1
#: Likewise: what precedes it is no id, but a moment in seconds since the epoch.
_DATE = 2**32 - 3
#: In the names of the files, between the spool's and the process's.
_NAMED = "-queue-"


class Page:
    """What is written between two turns."""

    def __init__(self, memory: mmap.mmap, turn: int, numbers: Iterator[int]) -> None:
        """:param numbers: for deeds; 0 is where nothing has been written."""
        self._memory = memory
        self._numbers = numbers
        self._deeds: dict[Deed, int] = {}
        memory[: _TURN.size] = _TURN.pack(turn)
        self.date(time.time())

    def date(self, now: float) -> None:
        """Nothing has been written to it yet: note what time it is, in seconds since the epoch."""
        self._memory[_TURN.size : _FIRST] = _RECORD.pack(int(now), _DATE)

    def add(self, what: Deed, who: Who) -> bool:
        """Write the marks of `who`; False if there is no room."""
        # Each record is one write(), which no other thread interrupts.
        try:
            if isinstance(who, int):
                self._memory.write(_RECORD.pack(who, self._deeds.get(what) or self._number(what)))
            elif isinstance(who, str):
                self._write(_TEXT | (self._deeds.get(what) or self._number(what)), who)
            else:
                self._write(_MARKS, json.dumps(packed((what, who))))
        except ValueError:
            return False
        return True

    def _number(self, what: Deed) -> int:
        number = next(self._numbers)
        self._write(_DEED, json.dumps([number, packed((what, []))]))
        # Only now: another thread must not use the number before it is written down.
        self._deeds[what] = number
        return number

    def _write(self, number: int, value: str) -> None:
        text = value.encode()
        self._memory.write(_RECORD.pack(len(text), number) + _SUM.pack(crc32(text)) + text)

    @property
    def is_used(self) -> bool:
        """Whether anything has been written to it."""
        return self._memory.tell() > _FIRST

    def clear(self) -> None:
        """All of it has been delivered."""
        memory = self._memory
        end = memory.tell()
        memory.seek(len(memory))  # late writers find no room, and go to the present one
        if memory[end : end + _RECORD.size].strip(b"\0"):  # one has come in between
            end = len(memory)
        # No more: to write a whole page takes a millisecond, in which no other thread can run.
        # Not the turn: what is written later is still read in order.
        memory[_TURN.size : end] = _NOTHING[_TURN.size : end]
        memory.seek(_FIRST)


class Journal:
    """Two pages that take turns, in a file or in memory alone."""

    def __init__(self, file: int = -1, path: Path | None = None) -> None:
        """
        :param file: descriptor of the locked file; -1: memory alone.
        :param path: its name.
        """
        self._file, self._path = file, path
        offsets = (0, 0) if file == -1 else (0, _SIZE)
        self._pages = [mmap.mmap(file, _SIZE, offset=offset) for offset in offsets]
        for memory in self._pages:
            memory.seek(_FIRST)
        self._numbers = count(1)
        self._turn = 0
        self.page = Page(self._pages[0], self._turn, self._numbers)

    @classmethod
    def beside(cls, spool: Spool) -> Journal:
        """A journal in a file beside `spool`.

        :raises OSError: if it cannot be made.
        """
        if sys.platform == "win32":
            raise OSError("Windows has no locks that end with their process")
        path = spool.path.with_name(f"{spool.path.name}{_NAMED}{os.getpid()}-{uuid4().hex[:8]}")
        # Locked under another name: under its own it would be taken for that of a dead process.
        hidden = path.with_name(f".{path.name}")
        ensure_own(hidden)
        file = os.open(hidden, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            _reserve(file)
            os.pwrite(file, json.dumps(spool.addresses.names).encode(), 2 * _SIZE)
            journal = cls(file, path)
            hidden.rename(path)
        except BaseException:
            os.close(file)
            hidden.unlink(missing_ok=True)
            raise
        return journal

    def turn(self) -> Page:
        """Let the other page take over; returns the one that was written to until now."""
        before, self._turn = self.page, self._turn + 1
        self.page = Page(self._pages[self._turn % 2], self._turn, self._numbers)
        return before

    def end(self) -> None:
        """All of it has been delivered, and nothing more comes."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Close the file. A child does so with its parent's, whose lock it would keep."""
        for memory in self._pages:
            memory.close()
        if self._file != -1:
            os.close(self._file)


def _reserve(file: int) -> None:
    """Have the disk give all room now: writing to a mapped page that has none is fatal."""
    size = 2 * _SIZE + _OWNER
    try:
        os.posix_fallocate(file, 0, size)
    except OSError:  # not every file system can
        if os.pwrite(file, bytes(size), 0) < size:
            raise


def adopt(spool: Spool, small: int | None = None) -> None:
    """Put into `spool` what processes that are dead have queued for its server.

    :param small: only of so many that have left little, as a request waits; None: of all.
    :raises SpoolError: if the spool cannot take it. Then it stays where it is.
    """
    if sys.platform == "win32":
        return
    paths = [*spool.path.parent.glob(f"{glob.escape(spool.path.name)}{_NAMED}*")]
    adopted = (_was_adopted(path, spool, small is not None) for path in paths)
    # A generator, which looks no further when there are enough.
    for _ in islice(filter(None, adopted), small):
        pass


def _was_adopted(path: Path, spool: Spool, small: bool) -> bool:
    """Whether it was the journal of a dead process, and this one has adopted it."""
    file = -1
    try:
        ensure_own(path)
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        if not _is_orphan(file) or not _is_for(file, spool) or (small and _is_long(file)):
            return False
        pages = _pages(os.pread(file, 2 * _SIZE, 0))
        if marks := [*_read(pages, path)]:
            spool.append(marks, _made(pages))
        path.unlink(missing_ok=True)
        return True
    except SpoolError:
        raise
    except OSError as error:
        logger.debug("the journal %s is not adopted: %s", path, error)
        return False
    finally:
        if file != -1:
            os.close(file)


def _is_orphan(file: int) -> bool:
    """Whether its owner is dead, and nobody else has adopted it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return os.fstat(file).st_nlink > 0


def _is_for(file: int, spool: Spool) -> bool:
    """Whether it holds marks for the server of `spool`."""
    try:
        # A large cluster has more addresses than there was room for.
        told = os.pread(file, os.fstat(file).st_size, 2 * _SIZE)
        owner = json.loads(told.rstrip(b"\0"))
    except ValueError:  # it was never finished, or is no journal
        return True
    return bool({*owner} & {*spool.addresses.names})


def _is_long(file: int) -> bool:
    """Whether it holds thousands of marks."""
    return any(os.pread(file, _SMALL, page + _SMALL).strip(b"\0") for page in (0, _SIZE))


def _pages(content: bytes) -> list[bytes]:
    """The two pages of a file, the earlier one first; only those that are whole."""
    pages = (content[:_SIZE], content[_SIZE:])
    return sorted((page for page in pages if len(page) == _SIZE), key=_TURN.unpack_from)


def _read(pages: Iterable[bytes], path: Path) -> Iterator[Settled]:
    """The marks of the `pages` of a file, in the order in which they were made."""
    for page in pages:
        try:
            yield from _read_page(page)
        except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
            # The last record may be one that its process was killed over.
            logger.error("the rest of a page of the journal %s cannot be read: %s", path, error)


def _made(pages: Iterable[bytes]) -> float:
    """A moment before which no mark of `pages` was made; 0, if an earlier version wrote it."""
    dates = (_RECORD.unpack_from(page, _TURN.size) for page in pages)
    return min((moment if number == _DATE else 0 for moment, number in dates if number), default=0)


def _read_page(page: bytes) -> Iterator[Settled]:
    deeds: dict[int, Deed] = {}
    place = _TURN.size
    while place + _RECORD.size <= len(page):
        value, number = _RECORD.unpack_from(page, place)
        place += _RECORD.size
        if not number:
            return
        if number == _DATE:
            continue
        if number < _TEXT:
            if number in deeds:
                yield deeds[number], value
            continue
        (total,) = _SUM.unpack_from(page, place)
        text = page[place + _SUM.size :][:value]
        place += _SUM.size + value
        if len(text) < value or crc32(text) != total:
            raise ValueError("a record is damaged")
        if number == _DEED:
            held: Any = json.loads(text)
            deeds[held[0]] = unpacked(held[1])[0]
        elif number == _MARKS:
            yield unpacked(json.loads(text))
        elif number - _TEXT in deeds:
            yield deeds[number - _TEXT], text.decode()

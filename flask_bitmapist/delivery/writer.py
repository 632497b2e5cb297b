"""Settled marks -> bits, in as few round trips as possible."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from itertools import chain, compress, groupby, islice
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoScriptError

from ..id_map import IdMap
from ..id_map.faults import OvertakenError
from ..ids import PLAIN
from ..marks import ONE, Deed, Settled, count, parts
from ..packed_periods import may_be_packed, packed_key
from ..periods import Grain
from ..refusals import need_of
from ..registry import Registry
from ..server import Server
from ..trip import Trip, node_of
from .batch import Batch, Batches, keeps_other_days, writes
from .bits import Bits, Run, runs
from .breaker import chance
from .choosing import DONE, OUTGROWN, Choices
from .density import Density
from .erasures import Erasures, Since, Waited
from .expiry import Expiries
from .merging import Merge, bunches, in_commands, was_merged
from .people import People
from .recent import Recent, sorted_out
from .sent import Lost, Proof, Sent
from .single import Single
from .stats import Outcomes
from .unmarking import Values

logger = logging.getLogger("flask_bitmapist")

#: Bits set in one round trip: about 50 ms of the server's time.
_BITS_PER_TRIP = 15_000
#: Marks in one batch, if they are taken back or their ids are mapped.
_MARKS_PER_BATCH = 5_000
#: Likewise if they are taken back and other days of their week and month are read.
_UNMARKS_PER_BATCH = 500
#: Other marks: there is no limit.
_ALL = 2**63
#: A batch of more marks than this may take longer than a request can wait for one reply.
BULK = 1_000
#: A key that expires at once.
_PROBE = "flask_bitmapist:probe"
#: How often a batch is rewritten because the server turned out to have other data, or because other
#: processes mark what this one unmarks.
_ATTEMPTS = 5
#: How often the values of people are looked at who get other ones from other processes meanwhile.
_LOOKS = 30
#: Seconds between two of these looks, at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1


class Written(NamedTuple):
    """What a server has of one process's trips, which are numbered."""

    #: The number of the last one.
    trips: int
    #: If it turned out to have lost some: the last one that it had kept. Later ones took the
    #: numbers of those that were lost.
    kept: int | None = None


class Writer:
    """Writes batches of settled marks to one server."""

    def __init__(
        self,
        server: Server,
        *,
        registry: Registry,
        id_map: IdMap,
        clock: Callable[[], datetime],
        zone: tzinfo,
        max_id: int,
        dense_limit: int,
        ttl: Mapping[Grain, timedelta],
        values: int,
        people: People,
    ) -> None:
        """
        :param clock: the naive local time of the calendar `zone`.
        :param max_id: largest offset that is written.
        :param dense_limit: largest plain id that is not warned of.
        :param ttl: how long after its end a period's bitmap is kept, by grain.
        :param values: how many a dimension may have.
        """
        self._server = server
        self._registry = registry
        self._id_map = id_map
        self._clock = clock
        self._expiries = Expiries(ttl, zone)
        self._erasures = Erasures(registry)
        self._people = people
        self._recent = Recent()
        self._batches = Batches(
            registry, id_map, clock, self._expiries, max_id, Density(dense_limit), values
        )
        #: The ``maxmemory-policy`` seen last.
        self._eviction = ""
        self._complaints: set[str] = set()
        self._outcomes = Outcomes()

    def write(self, marks: Sequence[Settled], since: Since | None = None) -> None:
        """Set or clear the bits of `marks`; if two have the same bit, the later wins.

        Those that were made before their person was erased are dropped.

        :param since: when they were made, at the earliest; None: now.
        :raises redis.RedisError: if the server does not answer, or does not take a command. Some
            bits may be set then; writing the same marks again is harmless.
        """
        if not marks:
            return
        era = self._recent.era
        since = since or Since(time.time())
        client = self._server.quick
        self._warn_of_eviction()
        if len(marks) == 1 and isinstance(marks[0][1], ONE) and marks[0][0].kept is None:  # most
            marks = self._write(client, marks, since)
        else:
            marks = self._write_all(client, marks, since)
        self._recent.add(marks, era, since.made)

    def living(self, waited: Sequence[Waited]) -> tuple[list[Settled], Since]:
        """Those of `waited` that were not made before their person was erased, for `write`.

        :raises redis.RedisError: if the server does not answer.
        """
        client = self._server.quick
        self._erasures.hear(client)
        return self._erasures.living(client, waited)

    def written(self) -> Written:
        """What the server has of this process's trips; not known for a cluster."""
        return Written(self._recent.count, self._recent.take_kept())

    def proof(self) -> Proof:
        """How any process sees whether the server still has what was written."""
        return self._recent.proof()

    def sorted_out(self, sent: Sequence[Sent]) -> tuple[list[int], list[int]]:
        """As `recent.sorted_out`."""
        return sorted_out(self._server.quick, sent)

    @property
    def era(self) -> object:
        """Another one after each loss that this process has noticed."""
        return self._recent.era

    @property
    def refused(self) -> int:
        """Marks refused for good (by the registry or the limit) in this process."""
        return self._outcomes["refused"]

    def probe(self) -> None:
        """Find out whether the server takes writes: one that is full, or a replica, answers a PING.

        :raises redis.RedisError: if it does not.
        """
        pipe = self._recent.trip(self._server.quick)
        pipe.execute_command("SET", _PROBE, 1, "PX", 1)
        pipe.execute()
        pipe.check()

    @property
    def watches(self) -> bool:
        """Whether `look_back` still has something to ask the server."""
        return not self._recent.is_empty

    def look_back(self) -> None:
        """Ask the server whether it still has the last marks, once they are a minute old.

        :raises redis.RedisError: as `probe`.
        """
        if self._recent.is_old:
            self.probe()
            self._recent.forget_old()

    def take_lost(self) -> list[Lost]:
        """Marks that were written, and that the server has lost since; they are forgotten here."""
        return self._recent.take_lost()

    def give_back(self, lost: Sequence[Lost]) -> None:
        """What `take_lost` returned is still to be sent again."""
        self._recent.give_back(lost)

    def _write_all(self, client: Any, marks: Sequence[Settled], since: Since) -> list[Settled]:
        deeds = {id(what): what for what, _ in marks}.values()  # to hash them takes longer
        if {what.kept for what in deeds} != {None}:
            return self._write_in_order(client, marks, since)
        marked, most = count(marks), _most(deeds)
        if marked > BULK:
            client.ping()  # a silent server must not get the long timeout of bulk writes
            client = self._server.patient
        listed = parts(marks, most) if marked > most else [marks]
        return [*chain(*(self._write(client, part, since) for part in listed))]

    def _write_in_order(self, client: Any, marks: Sequence[Settled], since: Since) -> list[Settled]:
        """As `_write_all`, where people come or go in between."""
        written: list[Settled] = []
        for are_lives, run in groupby(marks, key=lambda mark: mark[0].kept is not None):
            part = [*run]
            if are_lives:
                since = self._people.note(client, part, since)
                written += part
            else:
                written += self._write_all(client, part, since)
        return written

    def _write(self, client: Any, marks: Sequence[Settled], since: Since) -> Sequence[Settled]:
        """Write those of `marks` whose people were not erased since; returns them."""
        erasures = self._erasures
        attempts = _ATTEMPTS
        while attempts:
            # Before anything is left out: another thread may hear of an erasure meanwhile.
            heard = erasures.bell
            if erasures.may_concern(since) and not (marks := erasures.sifted(client, marks, since)):
                return marks
            try:
                batch = self._batches.batch(client, marks, heard)
            except OvertakenError:
                attempts -= 1
                erasures.hear(client)
                continue
            relied_on = batch.relies_on.bell
            if relied_on == heard and self._was_written(client, batch):
                for reason in batch.refusals:
                    self._refuse(reason)
                return marks
            if batch.is_outgrown:  # as often as a dimension gets a value, so not for ever
                self._registry.forget_values()
                continue
            attempts -= 1
            if batch.offsets.is_overtaken:
                continue
            erasures.hear(client)
            if erasures.bell == relied_on:
                self.forget_known()
        raise redis.RedisError("the server's data keeps changing while marks are written")

    def _was_written(self, client: Any, batch: Batch) -> bool:
        """Whether the server agreed with what this process knew, so that `batch` is now written.

        If not, the bits are restored. The trip that writes also checks: an earlier answer may be
        out of date, and a proxy can hide that another server answers.
        """
        if batch.single is not None:
            return self._marked(client, batch, *batch.single)
        if batch.choices is None:
            return self._was_done(client, batch)
        return (batch.has_choices_alone or self._was_done(client, batch)) and all(
            self._chose(client, batch, part) for part in batch.choices.parts()
        )

    def _was_done(self, client: Any, batch: Batch) -> bool:
        """As `_was_written`, of marks of events."""
        return self._set(client, batch) if batch.sets else self._wrote(client, batch)

    def _chose(self, client: Any, batch: Batch, choices: Choices) -> bool:
        """As `_was_written`, of values of dimensions."""
        if not isinstance(client, redis.Redis):
            return self._chose_by_commands(client, batch, choices)
        pipe = self._recent.trip(client)
        choices.relies_on.enter(pipe)
        pipe.execute_command(*choices.script(is_known=True))
        told = pipe.execute()[-1]
        if isinstance(told, NoScriptError):
            pipe = self._recent.trip(client)
            choices.relies_on.enter(pipe)
            pipe.execute_command(*choices.script(is_known=False))
            told = pipe.execute()[-1]
        if isinstance(told, redis.ResponseError):
            # See `Script.replies`: servers without scripts word it differently, and any other
            # fault will show in the commands too.
            return self._chose_by_commands(client, batch, choices)
        pipe.check()
        if told != DONE:
            batch.is_outgrown = told == OUTGROWN
            return False
        choices.relies_on.remember()
        return True

    def _chose_by_commands(self, client: Any, batch: Batch, choices: Choices) -> bool:
        reliance = choices.relies_on, choices.offsets
        for look in range(_LOOKS):
            if look:  # others are at the same people: the next time they may not be
                time.sleep(chance.random() * min(_FIRST_PAUSE * 2**look, _LONGEST_PAUSE))
            values = self._trip(client, Batch(*reliance, looked_up=choices.reads()), ())
            if values is not None:
                choices = choices.unsettled(values)
                if not choices.groups:
                    return True
                outstanding = writes(choices.outstanding(values))
                values = self._trip(client, Batch(*reliance), outstanding)
            if values is None:
                batch.is_outgrown = choices.relies_on.is_outgrown
                return False
        raise redis.RedisError("other processes keep giving the same people other values")

    def _warn_of_eviction(self) -> None:
        """Say once that a server will delete irreplaceable data when it is full."""
        policy = self._server.facts.eviction
        if policy == self._eviction:
            return
        self._eviction = policy
        if policy.startswith("allkeys"):
            logger.warning(
                "maxmemory-policy of %s is %s: when its memory is full it deletes bitmaps and "
                "what says whose bits they hold. Use noeviction, and a server of its own",
                self._server.facts,
                policy,
            )

    def forget_known(self) -> None:
        """The server may have come back with other data: ask it again."""
        self._server.forget()
        if not self._recent.is_counted:
            self._recent.suspect()
        self._registry.forget_known()
        self._id_map.forget_known()
        self._expiries.forget_known()

    def _marked(self, client: Any, batch: Batch, single: Single, offset: int) -> bool:
        """As `_was_written`, of one mark."""
        pipe = self._recent.trip(client)
        single.queue(pipe, offset, batch.offsets)
        replies = pipe.execute()
        told = replies[len(single.keys) :]
        if not batch.relies_on.holds(told, batch.offsets):
            bits = Bits((offset,))
            written = runs((key, bits) for key in single.keys)
            self._take_back(client, batch, written, replies, [], told)
            return False
        pipe.check()
        return True

    def _wrote(self, client: Any, batch: Batch) -> bool:
        """As `_was_written`, where other bits are read, or need to expire."""
        outstanding = batch.writes
        names = {key.name for run in batch.writes for key in run.cleared()}.union(
            name for name, _ in batch.reads()
        )
        older = may_be_packed(client, names)
        _unpack(client, older)
        for _ in range(_ATTEMPTS):
            values = self._trip(client, batch, outstanding)
            if values is None:
                return False
            if strays := batch.found_strays(values):
                self._registry.enter_plain(client, strays, self._clock)
                return False
            if batch.unmarking is None:
                return True
            outstanding = writes(batch.unmarking.outstanding(values))
            # What has been packed meanwhile was not read.
            if not _unpack(client, older) and not outstanding:
                return True
        return False

    def _set(self, client: Any, batch: Batch) -> bool:
        """As `_wrote`, where bits are only set."""
        alone = isinstance(client, redis.Redis)
        # A merge cannot be taken back, as the bits of a visitor who is promoted meanwhile must be.
        may_merge = not batch.offsets.has_visitors
        merges = [
            merge for bits in batch.sets if may_merge for merge in bits.take_merges(alone=alone)
        ]
        days, longer = (
            [run for bits in batch.sets for run in bits.runs(longer=longer)]
            for longer in (False, True)
        )
        if not merges:
            return self._set_each(client, batch, days + longer)
        return (
            self._set_each(client, batch, days)
            and all(self._merged(client, batch, bunch) for bunch in bunches(merges, alone=alone))
            and self._set_each(client, batch, longer)
        )

    def _set_each(self, client: Any, batch: Batch, writes: Iterable[Run]) -> bool:
        return all(self._trip(client, batch, part) is not None for part in _trips(writes))

    def _merged(self, client: Any, batch: Batch, bunch: Sequence[Merge]) -> bool:
        try:
            return self._merge(client, batch, bunch)
        except redis.ResponseError as error:
            if need_of(error) is None and isinstance(client, redis.Redis):
                raise
        # A user may lack the right to these commands, a proxy may not know them, a slot of a
        # cluster may have moved, and a key that holds something else is to be found.
        return self._set_each(
            client,
            batch,
            runs(
                (key, Bits(offsets))
                for merge in bunch
                for key in merge.keys
                for chunk in merge.chunks
                for offsets in in_commands(chunk)
            ),
        )

    def _merge(self, client: Any, batch: Batch, bunch: Sequence[Merge]) -> bool:
        pipe = Trip(client)
        batch.relies_on.enter(pipe)
        for merge in bunch:
            merge.stage(pipe)
        first = len(pipe)
        batch.relies_on.ask(pipe, batch.offsets)
        replies = pipe.execute()
        rest = iter(replies)
        entered = batch.relies_on.entered(rest)
        told = replies[first:]
        if not batch.relies_on.holds(told, batch.offsets):
            undo = Trip(client)
            for merge in bunch:
                merge.discard(undo)
            batch.relies_on.withdraw(undo, entered, told)
            undo.execute()
            undo.check()
            return False
        pipe.check()
        batch.relies_on.remember()
        for merge in bunch:
            merge.staged(rest)
        return all(self._finish(client, *of_node) for of_node in _by_node(client, bunch))

    def _finish(self, client: Any, node: Any, merges: Sequence[Merge]) -> bool:
        pipe = self._recent.trip(client) if node is client else Trip(node)
        ends = [merge.finish(pipe) for merge in merges]
        without_expiry = self._expiries.queue(pipe, [key for merge in merges for key in merge.keys])
        replies = pipe.execute()
        pipe.check()
        if expiring := without_expiry(iter(replies[ends[-1].stop :])):
            self._expire(client, expiring)
        return all(was_merged(replies[end]) for end in ends)

    def _trip(self, client: Any, batch: Batch, writes: Sequence[Run]) -> Values | None:
        """Make `writes` and read the bits of `batch`; None if what it relies on no longer holds."""
        pipe = self._recent.trip(client)
        batch.relies_on.enter(pipe)
        for run in writes:
            pipe.queue_many(run)
        without_expiry = self._expiries.queue(
            pipe, (key for run in writes for key in run.bitmaps())
        )
        reads = batch.reads()
        for name, offsets in reads:
            _queue_reads(pipe, name, offsets)
        compares_calendar = self._registry.ask_calendar(pipe)
        batch.relies_on.ask(pipe, batch.offsets)

        rest = iter(pipe.execute())
        entered = batch.relies_on.entered(rest)
        before = [*islice(rest, sum(map(len, writes)))]
        expiring = without_expiry(rest)
        values = _values(reads, islice(rest, len(reads)))
        calendar = next(rest) if compares_calendar else None
        told = [*rest]
        if not batch.relies_on.holds(told, batch.offsets):
            self._take_back(client, batch, writes, before, entered, told)
            return None
        batch.relies_on.remember()
        pipe.check()
        if compares_calendar:
            self._registry.compare_calendar(calendar)
        if expiring:
            self._expire(client, expiring)
        return values

    @staticmethod
    def _take_back(
        client: Any,
        batch: Batch,
        written: Iterable[Run],
        replies: Iterable[Any],
        entered: Sequence[str],
        told: Sequence[Any],
    ) -> None:
        """What `batch` relies on does not hold: restore the bits that were `written`.

        :param replies: those to `written`.
        :param entered: as `told`, for `Reliance.withdraw`.
        """
        undo, before = Trip(client), iter(replies)
        for run in written:
            for key, former in run.restoring(before):
                former.queue(undo, key.name)
        batch.relies_on.withdraw(undo, entered, told)
        undo.execute()
        undo.check()

    def _expire(self, client: Any, expiring: Iterable[tuple[str, int]]) -> None:
        pipe = client.pipeline(transaction=False)
        for name, moment in expiring:
            pipe.execute_command("EXPIREAT", name, moment)
        pipe.execute()

    def _refuse(self, reason: str) -> None:
        self._outcomes.add("refused", 1)
        if reason not in self._complaints and len(self._complaints) < 1_000:
            self._complaints.add(reason)
            logger.error("a mark was refused: %s", reason)


def _unpack(client: Any, keys: Collection[str]) -> bool:
    """Unpack those bitmaps among `keys` that are packed, in which no bit can be cleared.

    :returns: whether there were any.
    """
    if not keys:
        return False
    pipe = Trip(client)
    for key in keys:
        pipe.execute_command("EXISTS", packed_key(key))
    packed = [*compress(keys, pipe.execute())]
    pipe.check()
    if packed:
        from ..swapping import unpack  # it loads NumPy

        for key in packed:
            unpack(client, key)
    return bool(packed)


def _most(deeds: Collection[Deed]) -> int:
    """How many marks of `deeds` a batch may have."""
    if {what.value for what in deeds} == {True}:
        return _ALL if {what.kind for what in deeds} == {PLAIN} else _MARKS_PER_BATCH
    return _UNMARKS_PER_BATCH if any(map(keeps_other_days, deeds)) else _MARKS_PER_BATCH


def _trips(writes: Iterable[Run]) -> Iterator[list[Run]]:
    """`writes`, as many as are sent in one trip."""
    trip: list[Run] = []
    room = _BITS_PER_TRIP
    for run in writes:
        rest: Run | None = run
        while rest is not None:
            some, rest = rest.divided(room)
            trip.append(some)
            room -= some.size
            if room <= 0:
                yield trip
                trip, room = [], _BITS_PER_TRIP
    if trip:
        yield trip


def _by_node(client: Any, merges: Iterable[Merge]) -> list[tuple[Any, list[Merge]]]:
    """The merges of each server of a cluster, with its client; of one server all of them."""
    nodes: dict[int, tuple[Any, list[Merge]]] = {}
    for merge in merges:
        node = node_of(client, merge.keys[0].name)
        nodes.setdefault(id(node), (node, []))[1].append(merge)
    return [*nodes.values()]


def _values(reads: Iterable[tuple[str, Sequence[int]]], replies: Iterable[Any]) -> Values:
    values: dict[str, dict[int, bool]] = {}
    for (name, offsets), reply in zip(reads, replies, strict=True):
        # A key that holds no bitmap has no bit. The writes will report any other fault.
        held = [0] * len(offsets) if isinstance(reply, Exception) else reply
        bits = held if isinstance(held, list) else [held]
        values.setdefault(name, {}).update(zip(offsets, map(bool, bits), strict=True))
    return values


def _queue_reads(pipe: Any, key: str, offsets: Sequence[int]) -> None:
    if len(offsets) == 1:
        pipe.execute_command("GETBIT", key, offsets[0])
        return
    arguments: list[object] = []
    for offset in offsets:
        arguments += ("GET", "u1", offset)
    pipe.execute_command("BITFIELD", key, *arguments)

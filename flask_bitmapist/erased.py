"""Who has been erased, as the server remembers it: what was marked before must not come back.

Marks made before may still wait: in a spool, a journal, a queue. So the moment of each erasure is
kept, under a digest of the id. `BELL` changes with each erasure. It is kept with the kinds of
events, which every trip that marks asks for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, NamedTuple

from .registry import KINDS
from .trip import node_of, replies

#: A hash: the digest of an id -> its `Erasure`. It also has the two fields below.
ERASED = "flask_bitmapist:erased"
#: What the digests are made with.
SALT = "salt"
#: The moment of the last erasure.
LAST = "last"

#: Digests that one command looks up: the server answers nobody else meanwhile.
_TOGETHER = 5_000
#: Microseconds in a second.
_SECOND = 1_000_000


class Erasure(NamedTuple):
    """One erasure of one person."""

    #: When, by the server's clock, in microseconds since the epoch. No two have the same moment.
    moment: int
    #: The events that were left as they were.
    kept: Collection[str] = ()
    #: Kind of ids -> offsets whose bits are still to be cleared.
    unfinished: Mapping[str, Collection[int]] = MappingProxyType({})
    #: Of a person whose row was deleted, and `asked` when: what was marked until then goes. None:
    #: the moment.
    before: int | None = None
    #: As in `Wish`; 0: it was no wish.
    asked: int = 0

    @property
    def until(self) -> int:
        """What was marked until then must not come back; likewise in microseconds."""
        return self.moment if self.before is None else self.before

    @property
    def when(self) -> datetime:
        """The moment, in UTC."""
        return datetime.fromtimestamp(self.moment / _SECOND, UTC)

    def dumps(self) -> str:
        """As it is kept on the server."""
        wished = [] if self.before is None else [self.before, self.asked]
        return json.dumps([self.moment, sorted(self.kept), dict(self.unfinished), *wished])

    @classmethod
    def loads(cls, held: bytes | str) -> Erasure:
        """What `dumps` made."""
        moment, kept, *rest = json.loads(held)
        return cls(moment, frozenset(kept), *rest)


def digest(salt: str, id_: int | str) -> str:
    """The digest of the normal form `id_`, from which the id cannot be read."""
    return blake2b(str(id_).encode(), key=salt.encode(), digest_size=12).hexdigest()


def erasures_held(client: Any, digests: Sequence[str]) -> list[Erasure | None]:
    """The last erasure that the server has under each of `digests`.

    :raises redis.RedisError: if it does not answer.
    """
    found: list[Erasure | None] = []
    for first in range(0, len(digests), _TOGETHER):
        part = digests[first : first + _TOGETHER]
        (held,) = replies(client, [("HMGET", ERASED, *part)])
        found += [None if value is None else Erasure.loads(value) for value in held]
    return found


def server_time(client: Any) -> int:
    """The server's clock, in microseconds since the epoch; in a cluster, that of the kinds."""
    seconds, rest = node_of(client, KINDS).time()
    return int(seconds) * _SECOND + int(rest)

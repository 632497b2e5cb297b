"""The marks of one app, as bitmapist's own classes read them."""

from __future__ import annotations

from bitmapist import DayEvents, MonthEvents, UniqueEvents, WeekEvents

from flask_bitmapist.ids import mapped_kind
from flask_bitmapist.tracker import Tracker

Ids = list[int]


class Marks:
    """Today's marks and the flags of one app."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __call__(self) -> dict[str, Ids]:
        """Event -> the offsets marked today; day, week and month agree."""
        found = {}
        for name in self._tracker.reader.event_names():
            day = list(DayEvents.from_date(name))
            assert day == list(WeekEvents.from_date(name)) == list(MonthEvents.from_date(name))
            if day:
                found[name] = day
        return found

    def flags(self) -> dict[str, Ids]:
        """Flag -> the offsets that have it."""
        names = self._tracker.reader.event_names()
        return {name: list(UniqueEvents(name)) for name in names if len(UniqueEvents(name))}

    def offset(self, id_: str, space: str = "") -> int:
        """The offset that stands for a mapped id."""
        offset = self._tracker.reader.offset_of(id_, mapped_kind(space))
        assert offset is not None, f"{id_} was never marked"
        return offset

    def forget_event(self, event: str) -> None:
        """Start afresh with `event`."""
        if keys := self._tracker.redis.keys(f"trackist_{event}_*"):
            self._tracker.redis.delete(*keys)

    def forget_days(self) -> None:
        """Start afresh but for the flags."""
        undated = [UniqueEvents(name).redis_key for name in self._tracker.reader.event_names()]
        bitmaps = {key.decode() for key in self._tracker.redis.keys("trackist_*")}
        if dated := bitmaps - set(undated):
            self._tracker.redis.delete(*dated)

    def forget(self) -> None:
        """Start afresh: as if nothing had been marked."""
        if bitmaps := self._tracker.redis.keys("trackist_*"):
            self._tracker.redis.delete(*bitmaps)
        self._tracker.forget_emptied()

"""A shop's models in each ORM, with rows of five years, and what must be marked for them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_bitmapist import Bitmapistable

BEGIN = datetime(2021, 3, 14, 15)


class Base(DeclarativeBase):
    pass


class Customer(Base, Bitmapistable):
    __tablename__ = "customer_of_history"
    __bitmapist_flags__ = ("vip",)

    id: Mapped[int] = mapped_column(primary_key=True)
    joined: Mapped[datetime | None]
    vip: Mapped[bool | None]
    invited_by: Mapped[int | None]

    @property
    def is_lucky(self) -> bool:
        return self.id % 7 == 0

    @property
    def level(self) -> str | None:
        return f"l{self.id % 3}" if self.id % 11 else None


def moment(number: int) -> datetime:
    """When row `number` was made: some days have many, others none."""
    return BEGIN + timedelta(days=number // 4 % 1700, hours=number % 9)


def rows(count: int) -> Iterator[dict[str, Any]]:
    for number in range(1, count + 1):
        yield {
            "id": number,
            "joined": moment(number),
            "vip": number % 5 == 0,
            "invited_by": number // 2 or None,
        }


def fill(engine: Engine, count: int) -> None:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        if count:
            connection.execute(insert(Customer), [*rows(count)])

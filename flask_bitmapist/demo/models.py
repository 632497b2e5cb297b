"""The tables of Marginalia. The mixin is all that its models know about analytics."""

from __future__ import annotations

from datetime import UTC, datetime

from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Dialect, ForeignKey, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import DateTime
from werkzeug.security import check_password_hash, generate_password_hash

from flask_bitmapist import Bitmapistable, Dimension

# SQLite reuses the number of the last row once that row is deleted. A new account would inherit the
# bits of the closed one, so an id that was marked must never be used again.
NEVER_REUSE_IDS = {"sqlite_autoincrement": True}


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC: SQLite keeps no time zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


class User(UserMixin, db.Model, Bitmapistable):  # type: ignore[misc, name-defined]
    """Marks ``user:created`` and ``user:deleted``; the flag ``user:premium`` follows its column.

    So does the dimension ``user:plan``, of which everybody has one value; it is dated, so that
    reports also tell the plan that somebody had then.
    """

    __bitmapist_events__ = ("created", "deleted")
    __bitmapist_flags__ = ("premium",)
    __bitmapist_dimensions__ = (Dimension("plan", dated=True),)
    __table_args__ = NEVER_REUSE_IDS

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    password_hash: Mapped[str | None]
    premium: Mapped[bool] = mapped_column(default=False)
    joined_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now)
    posts: Mapped[list[Post]] = relationship(
        back_populates="author", cascade="all, delete-orphan", passive_deletes=True
    )

    @property
    def plan(self) -> str:
        return "premium" if self.premium else "free"

    def set_password(self, password: str) -> None:
        self.password_hash = generate_password_hash(password)

    def has_password(self, password: str) -> bool:
        """Readers of the played year have none: nobody logs in as one of them by guessing."""
        return self.password_hash is not None and check_password_hash(self.password_hash, password)


class Post(db.Model, Bitmapistable):  # type: ignore[misc, name-defined]
    """Marks ``post:created`` for its author: analytics counts people, not posts."""

    __bitmapist_id__ = "author_id"
    __bitmapist_events__ = ("created",)

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), index=True)
    title: Mapped[str] = mapped_column(String(120))
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now)
    author: Mapped[User] = relationship(back_populates="posts")


class Like(db.Model):  # type: ignore[misc, name-defined]
    """One for each person and post. Not a Bitmapistable: the view marks ``post:liked`` itself."""

    post_id: Mapped[int] = mapped_column(
        ForeignKey("post.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[int] = mapped_column(
        ForeignKey("user.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class PlayedYear(db.Model):  # type: ignore[misc, name-defined]
    """Written with the last day of the year: without this row the year was interrupted."""

    id: Mapped[int] = mapped_column(primary_key=True)
    until: Mapped[datetime] = mapped_column(UTCDateTime)

#!/bin/sh
# SQLAlchemy 2.1.9 and 2.0.58, sqlite3 of Python 3.11 and newer.
#
# Expected: `SessionEvents.after_commit` ("after a commit has occurred") is sent only if something
# was committed, and `Session.commit()` raises if the transaction is no more.
# Seen: where a statement fails by ON CONFLICT ROLLBACK (a documented conflict clause of SQLite, which
# SQLAlchemy offers as `sqlite_on_conflict_unique="ROLLBACK"`), SQLite ends the whole transaction.
# The session does not notice: `commit()` raises nothing, `after_commit` is sent, and the rows that
# were flushed before are not there. So `after_commit` cannot be taken for "these rows exist".
# Source: sqlite.org/lang_conflict.html ("ROLLBACK ... aborts the current SQL statement and rolls back
# the current transaction"); sqlalchemy/orm/session.py, SessionTransaction.commit().
#
# Exits 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat >"$folder/program.py" <<'PROGRAM'
import sys

import sqlalchemy
from sqlalchemy import create_engine, event, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True, sqlite_on_conflict_unique="ROLLBACK")


engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
seen = []
with Session(engine) as session:
    session.add(User(id=1, name="Ann"))
    session.commit()
    event.listen(session, "after_commit", lambda _: seen.append("after_commit"))
    session.add(User(id=2, name="Bea"))
    session.flush()
    try:
        session.execute(insert(User).values(id=3, name="Ann"))
    except IntegrityError:
        seen.append("IntegrityError")
    session.commit()
    there = session.scalar(select(func.count()).select_from(User))
print(f"SQLAlchemy {sqlalchemy.__version__}: {', '.join(seen)}; rows: {there}")
sys.exit(0 if (seen, there) == (["IntegrityError", "after_commit"], 1) else 1)
PROGRAM
for version in 2.1.9 2.0.58; do
    "$folder/venv/bin/pip" install -q "sqlalchemy==$version"
    "$folder/venv/bin/python" "$folder/program.py"
done
# Output seen:
#   SQLAlchemy 2.1.9: IntegrityError, after_commit; rows: 1
#   SQLAlchemy 2.0.58: IntegrityError, after_commit; rows: 1

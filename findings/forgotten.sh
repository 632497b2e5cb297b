#!/bin/sh
# SQLAlchemy 2.1.9 and 2.0.58, sqlite3 of Python 3.11 and newer: a delete() that deletes no row
# makes the session forget objects all the same. What is changed in them afterwards is lost,
# without an error.
#
# Expected: the session drops what the database has deleted. By the ORM's guide, the strategy
# "auto", the default, is "fetch" on databases with RETURNING, of which SQLite is one, and
# "evaluate" raises an error where Python cannot tell which rows are meant.
# Seen, with both versions, where the only row has the number -1:
#   NOT IN (1, NULL), auto: 0 rows deleted, edit is lost
#   % 3 = 2, auto: 0 rows deleted, edit is lost
#   both, fetch: 0 rows deleted, edit is stored
# Source: sqlalchemy/orm/bulk_persistence.py, _do_pre_synchronize_auto() prefers "evaluate"
# whenever the criteria can be translated to Python; sqlalchemy/orm/evaluator.py,
# visit_not_in_op_binary_op() takes None for one more value, where NULL makes SQL's NOT IN true of
# no row, and visit_mod_binary_op() is Python's %, which gives 2 for -1 % 3, where SQL gives -1.
#
# Exits 1 if that changes, 2 if the packages could not be installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat >"$folder/program.py" <<'PROGRAM'
import sys

import sqlalchemy
from sqlalchemy import create_engine, delete, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Ticket(Base):
    __tablename__ = "ticket"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    note: Mapped[str] = mapped_column(default="")


CRITERIA = {
    "NOT IN (1, NULL)": Ticket.number.not_in([1, None]),
    "% 3 = 2": Ticket.number % 3 == 2,
}


def edit_after_delete(criterion, strategy):
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Ticket(id=1, number=-1))
        session.commit()
        ticket = session.get(Ticket, 1)
        options = {"synchronize_session": strategy}
        result = session.execute(delete(Ticket).where(criterion), execution_options=options)
        ticket.note = "edited"
        session.commit()
    with Session(engine) as session:
        note = session.scalars(select(Ticket.note)).one()
    return f"{result.rowcount} rows deleted, edit is {'stored' if note else 'lost'}"


print("SQLAlchemy", sqlalchemy.__version__)
as_seen = True
for name, criterion in CRITERIA.items():
    for strategy, end in (("auto", "lost"), ("fetch", "stored")):
        seen = edit_after_delete(criterion, strategy)
        print(f"{name}, {strategy}: {seen}")
        as_seen = as_seen and seen == f"0 rows deleted, edit is {end}"
sys.exit(0 if as_seen else 1)
PROGRAM
for version in 2.1.9 2.0.58; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
        "sqlalchemy==$version" || exit 2
    "$folder/venv/bin/python" "$folder/program.py" || exit 1
done

#!/bin/sh
# SQLAlchemy 2.1.9 and 2.0.58, sqlite3 of Python 3.11 and newer: after an upsert that updates a row,
# `inserted_primary_key` is the key of another row, and not even one of the same table.
#
# Expected: the key of the row that was written, or None. `inserted_primary_key` is, by its
# documentation, "the primary key for the row just inserted", of any insert() of a single row without
# returning().
# Seen: row 1 is updated, and both upserts tell 9, the number of the last row of the other table.
# The one that does nothing tells it too, and its rowcount is 0.
# Source: sqlalchemy/engine/default.py, DefaultExecutionContext._setup_ins_pk_from_lastrowid() takes
# cursor.lastrowid, which is that of the last INSERT of this connection that added a row
# (sqlite.org/c3ref/last_insert_rowid.html). With returning(table.c.id) it is the right one.
#
# Exits 1 if that changes, 2 if the packages could not be installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat >"$folder/program.py" <<'PROGRAM'
import sys

import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select
from sqlalchemy.dialects.sqlite import insert

metadata = MetaData()
user = Table(
    "user",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("email", String, unique=True),
    Column("visits", Integer),
)
letter = Table("letter", metadata, Column("id", Integer, primary_key=True))
engine = create_engine("sqlite://")
metadata.create_all(engine)
with engine.begin() as connection:
    connection.execute(insert(user).values(email="ann@example.org", visits=1))
    for _ in range(9):
        connection.execute(letter.insert())
    new = insert(user).values(email="ann@example.org", visits=2)
    update = new.on_conflict_do_update(index_elements=["email"], set_={"visits": 2})
    nothing = new.on_conflict_do_nothing(index_elements=["email"])
    found = []
    for upsert in (update, nothing):
        result = connection.execute(upsert)
        found.append((tuple(result.inserted_primary_key), result.rowcount))
    returned = connection.execute(update.returning(user.c.id)).scalar_one()
    rows = [tuple(row) for row in connection.execute(select(user.c.id, user.c.visits))]
print(f"SQLAlchemy {sqlalchemy.__version__}: {found}; rows: {rows}; returning: {returned}")
as_seen = (found, rows, returned) == ([((9,), 1), ((9,), 0)], [(1, 2)], 1)
sys.exit(0 if as_seen else 1)
PROGRAM
for version in 2.1.9 2.0.58; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
        "sqlalchemy==$version" || exit 2
    "$folder/venv/bin/python" "$folder/program.py"
done
# Output seen:
#   SQLAlchemy 2.1.9: [((9,), 1), ((9,), 0)]; rows: [(1, 2)]; returning: 1
#   SQLAlchemy 2.0.58: [((9,), 1), ((9,), 0)]; rows: [(1, 2)]; returning: 1
